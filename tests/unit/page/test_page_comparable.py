"""Which numbers of several runs may be compared, and the reasons, by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compared_runs import INPUTS, asked, cells, letters, made
from made_run import AFTER, config, evaluation, speed

from kdfast.page.compare.comparable import Comparability, comparability


def judged(found: Comparability) -> tuple[str, list[int | None]]:
    return found.answer, list(found.groups)


def test_runs_of_the_same_inputs_can_be_compared(tmp_path: Path) -> None:
    files = {"evaluation_after": asked(evaluation(8, AFTER))}
    runs = [made(tmp_path, name, **files) for name in "ab"]
    found = comparability(runs)
    assert {kind: judged(one) for kind, one in found.items()} == dict.fromkeys(
        ("loss", "terms", "divergence", "calls", "speed"), ("good", [0, 0])
    )
    assert not any(one.because for one in found.values())


@pytest.mark.parametrize(
    ("inputs", "changed", "bad"),
    [
        ({"data.validation": "others"}, {}, {"loss", "terms", "divergence"}),
        ({"data.tokenizer": "others"}, {}, {"loss", "terms", "divergence"}),
        ({"teacher.store": "def with 40 rows"}, {}, {"loss", "divergence"}),
        ({"teacher.store": "abc with 50 rows"}, {}, set()),  # of the same teacher
        ({}, {"train__validation_rows": 7}, {"loss", "terms", "divergence"}),
        ({}, {"data__shapes": [128, 256]}, {"loss", "terms", "divergence"}),
        ({}, {"data__shapes": [64, 512]}, set()),  # the longest is the same: no row is cut shorter
        ({}, {"kd__kl_weight": 0.7}, {"loss"}),
        (
            {},
            {"kd__kl_weight": 0.9, "kd__kl_final_weight": 0.5},
            set(),
        ),  # a validation takes the last weights
        ({}, {"kd__divergence": "reverse_kl"}, {"loss", "divergence"}),
        ({}, {"kd__skew_alpha": 0.3}, set()),  # no run uses it
        ({}, {"kd__length_hinge": 0.3}, set()),  # the length loss has no weight
        ({}, {"kd__args_weight": 0.5}, {"loss", "terms"}),
        ({}, {"optimizer__learning_rate": 0.5, "train__seed": 3, "kd__chunk_rows": 7}, set()),
    ],
)
def test_what_makes_losses_incomparable(
    tmp_path: Path, inputs: dict[str, str], changed: dict[str, Any], bad: set[str]
) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b", INPUTS | inputs, config=config(**changed))]
    found = comparability(runs)
    assert {kind for kind in ("loss", "terms", "divergence") if found[kind].answer == "bad"} == bad
    for kind in bad:
        assert found[kind].groups == [0, 1]
        assert "a | b." in found[kind].because[0]


def test_inputs_known_by_their_names_only(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b", {})]
    found = comparability(runs)
    assert judged(found["loss"]) == ("look", [0, 0])
    assert found["loss"].by_name
    other = made(tmp_path, "c", {}, config=config(data__validation="others.jsonl"))
    assert judged(comparability([*runs, other])["loss"]) == ("bad", [0, 0, 1])
    assert "Other held-out records: a, b | c." in comparability([*runs, other])["loss"].because


@pytest.mark.parametrize(
    ("second", "answer", "told"),
    [
        ({"prompts": "q"}, "bad", "Other evaluation prompts: a | b."),
        ({"truth": "u"}, "bad", "Other right answers: a | b."),
        ({"prompts": "q", "truth": "u"}, "bad", "Other evaluation prompts and right answers: a | b."),
        ({"limit": 32}, "bad", "Other values of max_new_tokens: a | b."),
        (None, "look", "Not known: evaluation prompts of b."),
    ],
)
def test_other_evaluation_prompts(
    tmp_path: Path, second: dict[str, Any] | None, answer: str, told: str
) -> None:
    after = evaluation(8, AFTER)
    runs = [
        made(tmp_path, "a", evaluation_after=asked(after)),
        made(tmp_path, "b", evaluation_after=after if second is None else asked(after, **second)),
    ]
    found = comparability(runs)["calls"]
    assert found.answer == answer
    assert told in found.because
    assert letters(runs, "valid calls") == (["A", "B"] if answer == "bad" else ["", ""])
    assert not any(cell.best for cell in cells(runs, "valid calls"))


def test_another_machine(tmp_path: Path) -> None:
    other = speed() | {"hardware": {"key": "another"}}
    runs = [made(tmp_path, "a"), made(tmp_path, "b", speed=other), made(tmp_path, "c", speed=None)]
    found = comparability(runs)["speed"]
    assert judged(found) == ("bad", [0, 1, None])
    assert found.because == ["Other machines: a | b.", "Without such numbers: c."]


def test_a_stale_speed_report_decides_nothing(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b", speed=speed(30, 0) | {"step": 4})]
    found = comparability(runs)["speed"]
    assert found.answer == "look"
    assert found.because[0] == "Of another student than the run has: b."
    first = cells(runs, "time to first token, median")
    assert not any(cell.best for cell in first)
    assert [cell.details for cell in first] == [(), ("stale: of another student",)]


def test_a_number_of_one_run_alone_is_not_compared(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b", metrics=None, evaluation_after=None, speed=None)]
    assert comparability(runs) == {}
