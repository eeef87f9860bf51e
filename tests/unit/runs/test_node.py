"""JSON values that know where they stand: what is wrong is named by file, line and key."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kdfast.errors import DataError
from kdfast.page import Node


def node(value: Any, line: int | None = None) -> Node:
    return Node(value, "run/file.json", "make it again", line)


def test_values_of_the_right_type() -> None:
    made = node({"a": {"b": [1, 2.5]}, "t": "text", "f": False, "n": None})
    assert [one.number() for one in made["a"]["b"].list()] == [1.0, 2.5]
    assert made["a"]["b"].list()[0].count() == 1
    assert made["t"].text() == "text"
    assert made["f"].flag() is False
    assert made.find("n") is None
    assert made.find("missing") is None
    assert [(name, one.value) for name, one in made.items()] == list(made.value.items())


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda n: n["x"], "x is missing; make it again"),
        (lambda n: n["a"]["x"], "a.x is missing; make it again"),
        (lambda n: n["t"].number(), "t must be a number; make it again, got 'text'"),
        (lambda n: n["f"].number(), "f must be a number; make it again, got True"),
        (lambda n: n["inf"].number(), "inf must be a finite number; make it again, got inf"),
        (lambda n: n["big"].number(), "big must be a number that fits 64 bits; make it again, got 1000"),
        (lambda n: n["half"].count(), "half must be an integer of at least 0; make it again, got 0.5"),
        (lambda n: n["minus"].count(), "minus must be an integer of at least 0; make it again, got -1"),
        (lambda n: n["half"].text(), "half must be a text; make it again, got 0.5"),
        (lambda n: n["t"].flag(), "t must be true or false; make it again, got 'text'"),
        (lambda n: n["t"].list(), "t must be a list; make it again, got 'text'"),
        (lambda n: n["t"].find("x"), "t must be an object; make it again, got 'text'"),
        (lambda n: n["l"].list()[1].number(), "l.1 must be a number; make it again, got 'two'"),
    ],
)
def test_a_wrong_value_is_named(read: Any, told: str) -> None:
    made = node(
        {
            "a": {},
            "t": "text",
            "f": True,
            "inf": math.inf,
            "big": 10**400,
            "half": 0.5,
            "minus": -1,
            "l": [1, "two"],
        }
    )
    with pytest.raises(DataError) as error:
        read(made)
    assert str(error.value).startswith(f"run/file.json: {told}")
    assert error.value.source == "run/file.json"


def test_the_document_itself_and_its_line() -> None:
    with pytest.raises(
        DataError, match=r"^run/file\.json:7: the document must be an object; make it again, got \[\]$"
    ):
        node([], line=7).object()


def test_a_long_value_is_cut() -> None:
    with pytest.raises(DataError) as error:
        node("x" * 500).number()
    assert len(str(error.value)) < 200
