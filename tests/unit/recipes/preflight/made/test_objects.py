"""Objects: made once, of others; what cannot be made is told once, and a changed one makes its own anew."""

from __future__ import annotations

import pytest

from kdfast.errors import DataError
from kdfast.recipes.preflight.made.objects import NotMadeError, Objects, needs


def test_each_is_made_once_and_only_if_needed() -> None:
    made: list[str] = []

    def small(number: int) -> int:
        made.append("small")
        return number + 1

    def large(small: int, number: int) -> int:
        made.append("large")
        return small * 10 + number

    objects = Objects({"small": small, "large": large, "other": lambda: made.append("other")}, {"number": 1})
    assert (objects.get("large"), objects.get("large"), objects.get("small")) == (21, 21, 2)
    assert made == ["small", "large"]
    assert (objects.made("large"), objects.made("other")) == (21, None)


def test_a_failure_is_of_the_object_at_fault_and_is_tried_once() -> None:
    tries: list[int] = []

    def broken() -> int:
        tries.append(1)
        raise DataError("bad line", "train.jsonl", 3)

    objects = Objects({"rows": broken, "batches": lambda rows: rows, "loss": lambda batches: batches}, {})
    for name in ("loss", "rows", "loss"):
        with pytest.raises(NotMadeError) as caught:
            objects.get(name)
        assert caught.value.name == "rows"
    assert tries == [1]
    assert [error.name for error in objects.failures] == ["rows"]


def test_an_error_that_nobody_thought_of_is_kept_with_all_else_that_was_found() -> None:
    def broken() -> int:
        return int({}["missing"])

    objects = Objects({"rows": broken}, {})
    with pytest.raises(NotMadeError) as caught:
        objects.get("rows")
    assert isinstance(caught.value.cause, KeyError)


def test_what_is_made_of_a_changed_object_is_made_anew_and_the_rest_is_kept() -> None:
    made: list[str] = []

    def of(name: str, *parts: str) -> object:
        made.append(name)
        return (name, *parts)

    makers = {
        "rows": lambda config: of("rows", config),
        "batch": lambda rows: of("batch", str(rows)),
        "machine": lambda work: of("machine", work),
    }
    objects = Objects(makers, {"config": "a", "work": "w"})
    for name in makers:
        objects.get(name)
    changed = objects.replaced(config="b")
    made.clear()
    assert changed.get("rows") == ("rows", "b")
    assert "b" in str(changed.get("batch"))
    changed.get("machine")
    assert made == ["rows", "batch"]
    assert objects.get("rows") == ("rows", "a")


def test_a_changed_object_is_not_made() -> None:
    objects = Objects({"rows": lambda config: config, "batch": lambda rows: rows}, {"config": "a"})
    assert objects.replaced(rows="broken").get("batch") == "broken"


def test_a_maker_may_ask_for_more_as_it_needs_it() -> None:
    makers = {"dear": lambda: 5, "either": lambda cheap, objects: cheap or objects.get("dear")}
    assert Objects(makers, {"cheap": 2}).get("either") == 2
    asked = Objects(makers, {"cheap": 0})
    assert asked.get("either") == 5
    copied = asked.replaced(cheap=3)
    assert copied.get("objects") is copied


def test_needs_are_the_names_of_the_parameters() -> None:
    def look(batches: int, config: int) -> int:
        return batches + config

    assert needs(look) == ("batches", "config")
