"""Cut commands: no command any more, with the question for what is missing."""

import random

import pytest
from small_import import parts
from small_intents import write_wheel

from kdfast.importers.smart_home.missing import Cutter
from kdfast.importers.smart_home.templates import TRAIN


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return parts(write_wheel(tmp_path_factory.mktemp("wheel") / "w.whl"))


@pytest.fixture(scope="module")
def cuts(small):
    cutter = Cutter(small.reader, small.home.answers.missing)
    rng = random.Random(0)
    made = [
        (cutter.cut(sentence, template, rng), template, sentence)
        for template, sentence in small.sentences(4000)
    ]
    return [one for one in made if one[0] is not None]


def test_a_cut_sentence_is_no_command(small, cuts):
    assert len(cuts) > 1000
    assert not [cut.text for cut, _, _ in cuts if small.reader.sentences_of(cut.text)]


def test_a_cut_sentence_is_a_beginning_or_has_one_gap(cuts):
    gaps = 0
    for cut, _, sentence in cuts:
        words, left = sentence.text.split(), cut.text.split()
        if words[: len(left)] == left:
            continue
        gaps += 1
        length = next(i for i, (one, other) in enumerate(zip(words, left, strict=False)) if one != other)
        assert words[len(words) - len(left) + length :] == left[length:], (sentence.text, cut.text)
    assert gaps > 10


def test_one_beginning_gets_one_question(cuts):
    questions = {}
    for cut, _, _ in cuts:
        questions.setdefault(cut.text, set()).add(cut.question)
    several = [text for text, own in questions.items() if len(own) > 1]
    assert len(several) < 0.02 * len(questions), several


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("set the lantern brightness to", "To what brightness?"),
        ("turn on the", "Which one?"),
        ("turn on", "Which one?"),
        ("set a timer for", "For how long?"),
        ("set a timer", "For how long?"),
        ("add to my shopping list", "Which item?"),
        ("broadcast", "What should I say?"),
        ("kitchen volume down by", "Up or down?"),
        ("start a", None),  # a timer, or something else: no question has most of the ways to go on
        ("turn on the lights in the", "In which room?"),
    ],
)
def test_what_is_asked(small, text, question):
    cutter = Cutter(small.reader, small.home.answers.missing)
    rng = random.Random(1)
    found = {}
    for template, sentence in small.sentences(12_000, seed=5):
        cut = cutter.cut(sentence, template, rng)
        if cut is not None and cut.text not in found:
            found[cut.text] = cut.question
    assert found.get(text) == question


def test_a_list_can_have_a_question_of_its_own(small):
    questions = small.home.answers.missing | {"down": "By how much?", "up": "By how much?"}
    cutter = Cutter(small.reader, questions)
    rng = random.Random(1)
    own = [(t, s) for t, s in small.sentences(2000) if "{down:volume_step}" in t.text]
    asked = {cut.question for template, sentence in own if (cut := cutter.cut(sentence, template, rng))}
    assert "By how much?" in asked


def test_a_name_alone_breaks_nothing_off(small, cuts):
    names = {name for own in small.home.devices.values() for name in own} | set(small.home.areas)
    assert not names & {cut.text for cut, _, _ in cuts}


def test_known_says_whether_training_is_cut_at_the_same_words(small, cuts):
    trained = {cut.text for cut, template, _ in cuts if template.part == TRAIN}
    assert all(cut.known for cut, template, _ in cuts if template.part == TRAIN)
    fresh = {cut.text for cut, _, _ in cuts if not cut.known}
    assert not fresh & trained


def test_what_is_a_call_without_the_slot_is_not_cut(small):
    """A template of the same tool that lacks the slot says that it can be done without."""
    cutter = Cutter(small.reader, small.home.answers.missing, small.templates.calls)
    rng = random.Random(3)
    made = [
        (template, cut)
        for template, sentence in small.sentences(4000, seed=4)
        if "{name} in [<the>] {area}" in template.text and (cut := cutter.cut(sentence, template, rng))
    ]
    assert made
    assert {cut.question for _, cut in made} == {"Which one?"}
