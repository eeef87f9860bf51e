"""Names that are one letter apart."""

from __future__ import annotations

import pytest

from kdfast.recipes.preflight.looking.spelling import misspelt_names, one_letter_apart


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("location", "lokation"),
        ("location", "locations"),
        ("location", "locaion"),
        ("location", "loaction"),
        ("user_id", "userId"),
        ("Location", "location"),
    ],
)
def test_near_names(first: str, second: str) -> None:
    assert one_letter_apart(first, second)
    assert one_letter_apart(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("location", "location"),
        ("location", "lkoation2"),
        ("location", "vacation"),
        ("item1", "item2"),
        ("lat", "lot"),
        ("weight", "height"),
        ("", "name"),
    ],
)
def test_other_names(first: str, second: str) -> None:
    assert not one_letter_apart(first, second)


def test_tools_are_compared_with_each_other() -> None:
    tools = [{"name": "get_weather"}, {"name": "get_wether", "parameters": None}, {"name": "add"}]
    assert misspelt_names(tools, [("nobody", ["a"])]) == ["tools 'get_weather' and 'get_wether'"]
