"""Sampling: every sentence is one that hassil's own sampler makes, and its slots are where it says."""

import random

import pytest
from hassil_twin import every_sentence
from small_import import parts
from small_intents import write_wheel

from kdfast.importers.smart_home.expand import expand
from kdfast.importers.smart_home.home import Polite
from kdfast.importers.smart_home.politeness import polite


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return parts(write_wheel(tmp_path_factory.mktemp("wheel") / "w.whl"))


def test_every_sentence_is_one_of_those_that_hassil_lists(small):
    rng = random.Random(0)
    compared = 0
    for template in small.templates.calls:
        if "timer_command" in template.pools:
            continue
        every = every_sentence(template, small.package.rules, 60_000)
        if every is None:
            continue
        compared += 1
        drawn = {expand(template, rng, 1).text for _ in range(100)}
        assert {text.replace("%", "") for text in drawn} <= {text.replace("%", "") for text in every}, (
            template.text
        )
    assert compared > 25


def test_all_sentences_of_a_small_template_come_up(small):
    rng = random.Random(0)
    (template,) = [one for one in small.templates.calls if one.text == "is [<the>] {name} {opened:state}"]
    every = every_sentence(template, small.package.rules, 100)
    assert len(every) == 2 * 4 * 3
    assert {expand(template, rng, 1).text for _ in range(500)} == every


def test_a_slot_is_where_its_span_says(small):
    for template, sentence in small.sentences(300):
        for span in sentence.spans:
            said = sentence.text[span.start : span.end]
            assert said in template.pools[span.source].texts() or span.source == "timer_command"
            if span.source in ("name", "area"):
                assert said == span.value == sentence.arguments[span.slot]


def test_a_slot_is_bare_where_no_optional_words_are_before_it(small):
    seen = set()
    for template, sentence in small.sentences(600):
        if template.text == "<turn> on [<the>] {name}":
            (span,) = sentence.spans
            article = sentence.text.split()[2] in ("the", "my", "our")
            assert span.bare is not article
            seen.add(article)
    assert seen == {True, False}


def test_arguments_are_in_the_order_of_the_intents_slots_and_hold_the_fixed_ones(small):
    for template, sentence in small.sentences(300):
        order = list(small.package.intents[template.intent]["slots"])
        assert list(sentence.arguments) == [name for name in order if name in sentence.arguments]
        assert template.fixed.items() <= sentence.arguments.items()


def test_too_many_numbers_are_discarded(small):
    (template,) = [
        one for one in small.templates.calls if one.text.startswith("(set|start) [a|the] timer for")
    ]
    rng = random.Random(0)
    assert expand(template, rng, 1) is not None
    assert expand(template, rng, 0) is None


def test_polite_words_come_in_their_share():
    rng = random.Random(0)
    words = Polite(
        before=("please ",),
        before_verbs=("could you ",),
        verbs=frozenset({"turn"}),
        after=(", thanks",),
        before_share=0.3,
        after_share=0.1,
    )
    texts = [polite("stop", rng, words) for _ in range(2000)]
    assert set(texts) == {"stop", "please stop", "stop, thanks", "please stop, thanks"}
    assert 0.27 < sum(text.startswith("please") for text in texts) / 2000 < 0.33
    assert 0.08 < sum(text.endswith("thanks") for text in texts) / 2000 < 0.12


def test_some_polite_words_go_only_before_a_verb():
    words = Polite(
        before=("hey, ",),
        before_verbs=("could you ",),
        verbs=frozenset({"turn"}),
        after=(),
        before_share=1.0,
        after_share=0.0,
    )
    rng = random.Random(0)
    assert {polite("turn it on", rng, words) for _ in range(50)} == {
        "hey, turn it on",
        "could you turn it on",
    }
    assert {polite("what time is it", rng, words) for _ in range(50)} == {"hey, what time is it"}
    assert {polite("turning tables", rng, words) for _ in range(50)} == {"hey, turning tables"}
