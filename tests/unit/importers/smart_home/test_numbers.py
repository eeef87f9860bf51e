"""Numbers: which are said, how, and what they mean."""

import random
from collections import Counter

import pytest

from kdfast.importers.smart_home.home import Numbers
from kdfast.importers.smart_home.numbers import Range, Speaker
from kdfast.importers.smart_home.pools import number_words


def speaker(span, *, usual=(5, 10), usual_share=0.9, in_words_share=0.0, language="en"):
    own = Numbers(usual={"timer": usual}, usual_share=usual_share, in_words_share=in_words_share, most=1)
    return Speaker(span, "timer", own, number_words(language), language)


def test_usual_numbers_come_in_their_share_from_the_first_draw():
    rng = random.Random(0)
    drawn = Counter(speaker(Range(1, 100), usual_share=0.9).draw(rng)[1] in (5, 10) for _ in range(2000))
    assert 0.88 < drawn[True] / 2000 < 0.94


def test_usual_numbers_outside_the_range_are_not_said():
    rng = random.Random(0)
    own = speaker(Range(1, 10), usual=(5, 500), usual_share=1.0)
    assert {own.draw(rng)[1] for _ in range(50)} == {5}
    without = speaker(Range(1, 3), usual=(500,), usual_share=1.0)
    assert {without.draw(rng)[1] for _ in range(50)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("language", "text"), [("en", "twenty-five"), ("de", "fünfundzwanzig"), ("fr", "vingt-cinq")]
)
def test_words_are_those_of_the_language(language, text):
    own = speaker(Range(25, 25), usual=(25,), in_words_share=1.0, language=language)
    assert own.draw(random.Random(0)) == (text, 25)
    assert own.texts() == sorted({"25", text})


def test_a_language_without_number_words_has_digits():
    assert number_words("xx") is None
    assert number_words("nb") is None  # its file has no rules
    own = Speaker(
        Range(3, 3), "timer", Numbers(usual={}, usual_share=1, in_words_share=1, most=1), None, "xx"
    )
    assert own.draw(random.Random(0)) == ("3", 3)


@pytest.mark.parametrize(("language", "text"), [("en", "20.5"), ("de", "20,5")])
def test_halves_are_written_as_the_language_does(language, text):
    own = speaker(Range(20, 21, halves=True), usual_share=0.0, in_words_share=1.0, language=language)
    rng = random.Random(0)
    assert {own.draw(rng)[1] for _ in range(200)} == {20, 20.5, 21}
    assert text in own.texts()
    assert {own.draw(rng)[0] for _ in range(200)} <= set(own.texts())


def test_step_and_multiplier():
    own = speaker(Range(1000, 2000, step=100, multiplier=-1), usual_share=0.0)
    rng = random.Random(0)
    drawn = [own.draw(rng) for _ in range(100)]
    assert all(value == -int(text) and value % 100 == 0 for text, value in drawn)
    assert all(isinstance(value, int) for _, value in drawn)


def test_the_packages_definition_is_read():
    assert Range.of({"from": 0, "to": 9}) == Range(0, 9)
    assert Range.of({"from": 0, "to": 9, "step": 3, "multiplier": -1, "fractions": "halves"}) == Range(
        0, 9, 3, -1, True
    )
