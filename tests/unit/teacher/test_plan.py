"""What a teacher is asked: the demonstrations, and the fingerprint of all that its answers depend on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kdfast.config import TeacherConfig
from kdfast.errors import ConfigError
from kdfast.teacher.local.plan import choose_demonstrations, plan_teaching

DUE = [True] * 6 + [False] * 2


@dataclass
class Rows:
    """Eight rows of which row n is the ids [n, n + 10]; the newline is 99."""

    lengths: list[int] = field(default_factory=lambda: [2] * 8)
    turn_end_ids: list[int] = field(default_factory=lambda: [3])
    call_openings: tuple[str, ...] = ("<tool_call>",)

    def should_call(self) -> list[bool]:
        return DUE

    def ids(self, index: int) -> list[int]:
        return [index, index + 10]

    def encode(self, text: str) -> list[int]:
        assert text == "\n"
        return [99]

    def pieces(self) -> list[str]:
        return ["<tool_call>" if token == 7 else f"w{token}" for token in range(120)]


def plan(teacher: str = "abc", usable: int = 120, **settings: object):
    given = TeacherConfig(model="model", store="store", **{"k": 4, **settings})  # type: ignore[arg-type]
    return plan_teaching(given, teacher, Rows(), usable)


def test_demonstrations_are_whole_rows_with_a_line_between() -> None:
    one = plan(demonstrations=4)
    assert len(one.shown) == 4
    assert len(one.prefix_ids) == 12
    for start in range(0, 12, 3):
        row, last, newline = one.prefix_ids[start : start + 3]
        assert row in one.shown
        assert (last, newline) == (row + 10, 99)
    assert sum(not DUE[row] for row in one.shown) == 1  # one in four needs no call


def test_the_wanted_ids() -> None:
    wanted = plan().wanted
    assert wanted.always_ids == (3,)
    assert wanted.call_opening_ids == (7,)


def test_the_same_settings_give_the_same_plan() -> None:
    assert plan(demonstrations=3) == plan(demonstrations=3)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "abd"},
        {"usable": 119},
        {"k": 5},
        {"dtype": "bf16"},
        {"demonstrations": 1},
        {"samples": 8},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_answers_changes_the_fingerprint(change: dict[str, object]) -> None:
    assert plan(**change).fingerprint != plan().fingerprint  # type: ignore[arg-type]


def test_what_does_not_keeps_it() -> None:
    assert plan(batch_tokens=7, device="cpu", demonstrations_seed=4).fingerprint == plan().fingerprint


def test_without_samples_the_name_is_that_of_stores_made_before_there_were_any() -> None:
    known = "ca55701f70f7ed9ef5d0e802b898605839f2bb0cc820c82ceda136958300ecbd"
    assert plan(samples=0).fingerprint == plan().fingerprint == known
    assert plan(samples=8).wanted.samples == 8


def test_long_rows_are_not_shown() -> None:
    lengths = [1, 9, 1, 9, 1, 9, 1, 9]
    assert set(choose_demonstrations(lengths, [True] * 8, count=4, seed=1)) == {0, 2, 4, 6}
    with pytest.raises(ConfigError, match=r"teacher\.demonstrations.*: 5$"):
        choose_demonstrations(lengths, [True] * 8, count=5, seed=1)


def test_k_must_hold_what_is_always_kept() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.k"):
        plan(k=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 1}, "teacher.k: must be at least 2 (the answer's token and the end of a turn), got 1"),
        (
            {"k": 121},
            "teacher.k: must be at most 120, the number of ids that teacher and student share, got 121",
        ),
        (
            {"k": 2, "usable": 3},
            "data.tokenizer: must have the end of a turn among the 3 ids that teacher and student share; use the "
            "teacher's tokenizer, got [3]",
        ),
    ],
)
def test_a_k_or_a_vocabulary_that_does_not_fit(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_k_of_the_whole_vocabulary_fits() -> None:
    assert plan(k=120).wanted.k == 120
