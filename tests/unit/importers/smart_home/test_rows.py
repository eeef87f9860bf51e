"""Building the files: distinct sentences, one meaning each, what makes up for what is scarce."""

import random
from collections import Counter

import pytest
from small_import import parts
from small_intents import block, language, write_wheel

from kdfast.errors import DataError
from kdfast.importers.smart_home.no_call import SHARES, NoCalls
from kdfast.importers.smart_home.records import CALL, Row
from kdfast.importers.smart_home.rows import Builder, shared
from kdfast.importers.smart_home.sentences import fold
from kdfast.importers.smart_home.templates import TEST, TRAIN


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return parts(write_wheel(tmp_path_factory.mktemp("wheel") / "w.whl"))


def builder(small, seed=0, share=0.2):
    no_calls = NoCalls(small.templates, small.calls, small.home, small.reader, ["who am i"], (share, seed))
    return Builder(small.calls, no_calls, small.reader, seed)


def ignore(done):
    """No progress is shown."""


def test_counts_and_shares(small):
    own = builder(small)
    own.want("test", 50, TEST, 0.2)
    own.want("train", 400, TRAIN, 0.25)
    shown = []
    files = own.build(shown.append).files
    assert {name: len(rows) for name, rows in files.items()} == {"test": 50, "train": 400}
    assert shown[-1] == 450
    slices = Counter(row.slice for row in files["test"] if row.arguments is not None)
    assert slices == {"held_out_template": 20, "held_out_sentence": 20}
    assert sum(row.arguments is None for row in files["train"]) == 100
    assert {row.category for row in files["train"]} >= {
        "call",
        "missing_slot",
        "out_of_domain",
        "unknown_device",
    }


def test_a_held_out_template_is_not_in_training_and_says_what_training_does_not(small):
    own = builder(small)
    own.want("test", 60, TEST, 0.2)
    own.want("train", 400, TRAIN, 0.2)
    files = own.build(ignore).files
    held = {row.template for row in files["test"] if row.slice == "held_out_template"}
    assert held
    assert not held & {row.template for row in files["train"] if row.arguments is not None}
    for row in files["test"]:
        if row.slice == "held_out_template":
            said = [
                one
                for word in ("", "please ", "could you ", "hey, ")
                for one in _readings(small, row.text, word)
            ]
            assert said
            assert all(one.part != TRAIN for one in said), row.text


def _readings(small, text, before):
    text = text.removeprefix(before)
    return small.reader.sentences_of(text.removesuffix(" please").removesuffix(" now"))


def test_sentences_are_distinct_over_all_files(small):
    own = builder(small)
    own.want("a", 100, TEST, 0.2)
    own.want("b", 300, TRAIN, 0.2)
    keys = [fold(row.text) for rows in own.build(ignore).files.values() for row in rows]
    assert len(keys) == len(set(keys)) == 400


def test_a_sentence_with_two_meanings_is_dropped_everywhere(small):
    own = builder(small)
    own.want("a", 0, TRAIN, 0.0)
    first, second = (Row("Turn it on!", "call", "train", "x", "", {"n": n}) for n in (1, 2))
    assert own._add(0, first)
    assert not own._add(0, Row("turn it  on", "call", "train", "x", "", {"n": 1}))
    assert len(own._rows) == 1
    assert not own._add(0, second)
    assert own._rows == {}
    assert not own._add(0, first)
    assert own.build(ignore).clashes == 1


def test_what_is_asked_in_training_is_not_asked_in_test_with_a_polite_word(small):
    own = builder(small)
    own.want("test", 1, TEST, 0.0)
    own.want("train", 1, TRAIN, 0.0)
    train = next(n for n, demand in enumerate(own._demands) if demand.part == TRAIN)

    def row(text, plain, n=1):
        return Row(text, "call", "train", "x", "", {"n": n}, plain=plain)

    assert own._add(0, row("hey, what's on", "what's on"))
    assert not own._add(train, row("whats on please", "whats on"))
    assert not own._add(train, row("what's on", "what's on"))
    assert own._add(0, row("please what's on", "what's on"))  # within a file polite variants stay
    assert len(own._rows) == 2
    assert not own._add(train, row("whats on", "whats on", n=2))  # a second meaning takes all of them
    assert own._rows == {}


def test_held_out_commands_that_two_templates_read_differently_are_dropped(tmp_path):
    data = language()
    data["intents"]["HassTurnOff"]["data"].append(
        block("area_domain", "<turn> on [<the>] {name}", domain="light")
    )
    made = parts(write_wheel(tmp_path / "w.whl", data=data))
    own = builder(made)
    own.want("test", 60, TEST, 0.0)
    rng = random.Random(0)
    demands = [one for one in own._demands if one.kind == CALL]
    drawn = [row for _ in range(400) for one in demands if (row := one.make(rng))]
    assert len(drawn) > 500
    for row in drawn:  # "turn on the lantern" means two things, "turn on the tower fan" one
        assert (
            row.template != "<turn> on [<the>] {name}"
            or "tower fan" in row.text
            or "air purifier" in row.text
        )
    assert own.build(ignore).ambiguous > 5


def test_scarce_kinds_are_made_up_for_by_others_of_the_file(small):
    own = builder(small)
    own.want("train", 300, TRAIN, 0.6)
    categories = Counter(row.category for row in own.build(ignore).files["train"])
    assert sum(categories.values()) == 300
    assert categories["irrelevant"] == 1
    assert categories["missing_slot"] > round(180 * SHARES["missing_slot"])


def test_too_few_sentences_are_an_error_that_says_what_is_missing(tmp_path):
    data = language()
    data["intents"] = {"HassBroadcast": data["intents"]["HassBroadcast"]}
    own = builder(parts(write_wheel(tmp_path / "w.whl", data=data)))
    own.want("train", 500, TRAIN, 0.0)
    with pytest.raises(
        DataError, match=r"train: \d+ rows of the kind 'call' could not be found.*ask for fewer rows"
    ):
        own.build(ignore)


def test_without_held_out_templates_commands_are_new_sentences(tmp_path):
    made = parts(write_wheel(tmp_path / "w.whl"), share=0.0)
    own = builder(made, share=0.0)
    own.want("test", 40, TEST, 0.25)
    slices = Counter(row.slice for row in own.build(ignore).files["test"])
    assert slices == {"held_out_sentence": 30, "held_out_no_call_sentence": 10}


def test_largest_remainders():
    assert shared(7, {"a": 1, "b": 1, "c": 1}) == {"a": 3, "b": 2, "c": 2}
    assert shared(0, {"a": 1}) == {"a": 0}
    rng = random.Random(0)
    for _ in range(50):
        weights = {name: rng.random() + 0.01 for name in "abcd"}
        counts = shared(100, weights)
        assert sum(counts.values()) == 100
        assert all(abs(counts[name] - 100 * weights[name] / sum(weights.values())) < 1 for name in weights)
