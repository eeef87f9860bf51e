"""The verdict: each question answered from numbers that are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_run import (
    AFTER,
    BEFORE,
    CALL,
    answer,
    config,
    evaluation,
    gate,
    gates,
    metrics,
    speed,
    train_line,
    validation_line,
    write_run,
)

from kdfast.page.checks import Check, Shown, checks, verdict
from kdfast.page.evaluation import evaluation_section
from kdfast.page.gates import gate_section
from kdfast.page.history import History, read_history
from kdfast.page.shares import estimates
from kdfast.page.speed import speed_section
from kdfast.page.tiles import tiles
from kdfast.runs.reading import Missing, read_run, there

CALLS = ("Trained to the end", "Held-out loss fell", "Calls tools rightly")


def shown(folder: Path, **files: Any) -> Shown:
    made = read_run(write_run(folder / "run", **files))
    missing = isinstance(made.metrics, Missing)
    history = History(train=[], validation=[], speed=[]) if missing else read_history(made.metrics)
    return Shown(
        config=made.config,
        history=history,
        before=estimates(there(made.before)),
        after=estimates(there(made.after)),
        after_missing=made.after.short if isinstance(made.after, Missing) else "",
        speed=speed_section(made, history),
        gates=gate_section(made),
        cut_silent=evaluation_section(made).cut_silent,
        student_step=made.student_step,
    )


def asked(folder: Path, question: str, **files: Any) -> tuple[str, str]:
    found = {check.question: check for check in checks(shown(folder, **files))}
    return found[question].answer, found[question].because


def validations(*losses: float) -> list[dict[str, Any]]:
    return [validation_line(4 * number, loss) for number, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("lines", "answer", "because"),
    [
        (metrics(), "good", "8 of 8 steps"),
        (metrics()[:6], "look", "not finished: "),
        ([train_line(8, 0.5, skipped_rows=3.0)], "look", "3 rows skipped for NaN"),
        ([train_line(8, 0.5) | {"not_finite": ["kl"]}], "bad", "not finite in some line: kl"),
        (None, "look", "not finished: 0 of 8 steps"),
    ],
)
def test_trained_to_the_end(tmp_path: Path, lines: Any, answer: str, because: str) -> None:
    got = asked(tmp_path, "Trained to the end", metrics=lines)
    assert got[0] == answer
    assert because in got[1]


@pytest.mark.parametrize(
    ("losses", "answer", "because"),
    [
        ((1.0, 0.6, 0.5), "good", "1 to 0.5 (-50 %); the last is the best checkpoint, checkpoints/step_8"),
        ((1.0, 0.495, 0.5), "good", "1 to 0.5 (-50 %); lowest was 0.495, checkpoints/step_4"),  # 1 % above
        ((1.0, 0.4, 0.5), "look", "lowest was 0.4, checkpoints/step_4: io.final=best would"),
        ((1.0, 0.8, 1.1), "bad", "1 to 1.1 (+10 %)"),
        ((1.0,), "unknown", "fewer than two validations"),
    ],
)
def test_held_out_loss_fell(tmp_path: Path, losses: tuple[float, ...], answer: str, because: str) -> None:
    got = asked(tmp_path, "Held-out loss fell", metrics=validations(*losses))
    assert got[0] == answer
    assert because in got[1]


@pytest.mark.parametrize(("last", "answer"), [(1.01, "good"), (1.03, "bad")])
def test_a_finished_student_that_was_quantised_has_to_keep_its_loss(
    tmp_path: Path, last: float, answer: str
) -> None:
    settings = config(quant__enabled=True, quant__start_fraction=0, quant__min_steps=1)
    got = asked(tmp_path, "Held-out loss fell", metrics=validations(1.0, last), config=settings)
    assert got[0] == answer
    assert got[1].endswith("the first is that of the float student")


def test_a_student_of_the_best_checkpoint_is_judged_by_its_own_loss(tmp_path: Path) -> None:
    student = tmp_path / "run" / "student"
    student.mkdir(parents=True)
    (student / "kdfast.json").write_text('{"step": 4, "final": "best", "ended": "num_steps"}')
    assert asked(tmp_path, "Held-out loss fell", metrics=validations(1.0, 0.4, 0.5)) == (
        "good",
        "1 to 0.4 (-60 %), the student has the weights of the best checkpoint, checkpoints/step_4 (io.final: best)",
    )
    loss = tiles(shown(tmp_path, metrics=validations(1.0, 0.4, 0.5)))[0]
    assert (loss.label, loss.value) == ("held-out loss", "0.4")
    assert loss.details == ("from 1 (-60 %), at step 4: the student's",)


@pytest.mark.parametrize(
    ("losses", "answer", "because"),
    [
        (
            (1.0, 0.4, 0.5, 0.4),
            "good",
            "12 of 40 steps, then stopped: 2 validations in a row without a lower",
        ),
        ((1.0, 0.5, 0.4, 0.5), "look", "not finished: 12 of 40 steps"),
        ((0.3, 0.6, 0.5), "look", "not finished: 8 of 40 steps"),  # that before training is none of the run's
    ],
)
def test_a_run_that_its_own_rule_stopped(tmp_path: Path, losses: Any, answer: str, because: str) -> None:
    settings = config(train__num_steps=40, train__stop_after_validations=2)
    got = asked(tmp_path, "Trained to the end", metrics=validations(*losses), config=settings)
    assert got[0] == answer
    assert because in got[1]


def test_no_validation_data(tmp_path: Path) -> None:
    settings = config(data__validation=None, train__eval_prompts=0)
    got = asked(tmp_path, "Held-out loss fell", metrics=[train_line(1, 0.5)], config=settings)
    assert got == ("unknown", "no validation data")


VALID, INVALID, NONE = answer(CALL), answer(CALL, schema_valid=False, exact_match=False), answer("Hm.")


@pytest.mark.parametrize(
    ("before", "after", "wanted", "expected"),
    [
        ([NONE] * 4, [VALID] * 3 + [NONE], 0.5, "good"),
        ([NONE] * 4, [VALID] + [NONE] * 3, 0.5, "bad"),  # fewer than asked for
        ([VALID] * 4, [VALID] * 3 + [INVALID], 0.0, "bad"),  # fewer than before
        ([VALID, NONE], [VALID, NONE], 0.0, "look"),  # no change
        ([VALID] * 2, [VALID] * 2, 0.0, "good"),  # nothing to gain
        ([NONE] * 2, [NONE] * 2, 0.0, "look"),
    ],
)
def test_calls_tools_rightly(tmp_path: Path, before: Any, after: Any, wanted: float, expected: str) -> None:
    files = {
        "config": config(train__min_valid_calls_fraction=wanted),
        "evaluation_before": evaluation(0, before),
        "evaluation_after": evaluation(8, after),
    }
    assert asked(tmp_path, "Calls tools rightly", **files)[0] == expected


def test_fewer_exact_calls_than_asked_for_are_bad(tmp_path: Path) -> None:
    other = answer(CALL, exact_match=False)  # valid, and another call than the right one
    for wanted, expected in ((0.5, "good"), (0.75, "bad")):
        files = {
            "config": config(train__min_exact_calls_fraction=wanted),
            "evaluation_before": evaluation(0, [NONE] * 4),
            "evaluation_after": evaluation(8, [VALID, VALID, other, other]),
        }
        got = asked(tmp_path, "Calls tools rightly", **files)
        assert got[0] == expected
        assert ("75 % are asked for" in got[1]) == (expected == "bad")


SILENT, FALSE = answer("No tool fits.", should_call=False), answer(CALL, should_call=False)
CUT = SILENT | {"cut": True}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([SILENT] * 2, [SILENT] * 2, "good"),
        ([SILENT] * 2, [FALSE, SILENT], "bad"),  # more than before
        ([FALSE] * 2, [FALSE, SILENT], "look"),  # fewer, but many
        ([SILENT] * 40, [SILENT] * 39 + [FALSE], "good"),  # 2.5 %
        ([NONE], [NONE], "unknown"),
        ([SILENT] * 2, [SILENT, CUT], "look"),  # whether a call would have followed is not known
        ([SILENT] * 40, [SILENT] * 39 + [CUT], "good"),
    ],
)
def test_keeps_silent(tmp_path: Path, before: Any, after: Any, expected: str) -> None:
    files = {"evaluation_before": evaluation(0, before), "evaluation_after": evaluation(8, after)}
    assert asked(tmp_path, "No call where no tool fits", **files)[0] == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 3, "good"),  # the user's limit holds, whatever an untrained student did
        (0, 4, "good"),
        (40, 5, "bad"),
        (0, 5, "bad"),
    ],
)
def test_a_limit_of_false_calls_decides(tmp_path: Path, before: int, after: int, expected: str) -> None:
    def answers(false: int) -> list[dict[str, Any]]:
        return [FALSE] * false + [SILENT] * (40 - false)

    files = {
        "config": config(train__max_false_calls_fraction=0.1, train__eval_irrelevance_prompts=40),
        "evaluation_before": evaluation(0, answers(before)),
        "evaluation_after": evaluation(8, answers(after)),
    }
    got = asked(tmp_path, "No call where no tool fits", **files)
    assert got[0] == expected
    assert ("10 % are allowed" in got[1]) == (expected == "bad")


@pytest.mark.parametrize(
    ("report", "expected", "because"),
    [
        (speed(24, 0), "good", "first valid call after"),
        (speed(24, 2), "look", "never on 2 of 24 prompts (8.3 %)"),
        (speed(4, 4), "bad", "never on 4 of 4 prompts (100 %)"),
        (speed(24, 0, cut=1), "good", "cut before a call on 1 of 24 prompts (4.2 %)"),
        (
            speed(24, 1, cut=3),
            "look",
            "never on 1 of 24 prompts (4.2 %), cut before a call on 3 (12 %)",
        ),
        (
            speed(4, 0, cut=4),
            "look",
            "cut before a call on 4 of 4 prompts (100 %)",
        ),  # a call may have followed
        (speed() | {"step": 4}, "unknown", "stale: measured at step 4, the student is of step 8. "),
        (speed(24, 0) | {"step": 12}, "unknown", "stale: measured at step 12, the student is of step 8. "),
        (None, "unknown", "no speed.json"),
        (
            speed() | {"metrics": {}, "absent": {"ttfa_tokens": "no prompt needs a call"}},
            "unknown",
            "no prompt needs",
        ),
    ],
)
def test_acts_on_every_prompt(tmp_path: Path, report: Any, expected: str, because: str) -> None:
    got = asked(tmp_path, "Acts on every prompt", speed=report)
    assert got[0] == expected
    assert because in got[1]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["passed", "failed", "inconclusive"], "bad"),
        (["passed", "inconclusive"], "look"),
        (["passed", "skipped", "report_only"], "good"),
        (["skipped", "report_only"], "unknown"),
        ([], "unknown"),
    ],
)
def test_gates(tmp_path: Path, statuses: list[str], expected: str) -> None:
    report = gates() | {"results": [gate(f"g{n}", status, "why") for n, status in enumerate(statuses)]}
    assert asked(tmp_path, "Gates", gates=report)[0] == expected


def test_the_verdict_is_the_worst_answer() -> None:
    def made(*answers: Any) -> list[Check]:
        return [Check(question="q", answer=one, because="", link="") for one in answers]

    assert verdict(made("good", "good"))[:2] == ("good", "Good")
    assert verdict(made("good", "unknown"))[:2] == ("good", "Good, as far as known")
    assert verdict(made("good", "look", "unknown"))[:2] == ("look", "Mixed")
    assert verdict(made("good", "look", "bad")) == ("bad", "Not good", "1 good, 1 worth a look, 1 bad")
    assert verdict(made("unknown", "unknown"))[:2] == ("unknown", "Not known")


def test_why_every_gate_was_skipped(tmp_path: Path) -> None:
    results = [
        gate("ttft_p50", "skipped", "no_baseline"),
        gate("tps_p50", "skipped", "no_baseline"),
        gate("ttfa_p95", "skipped", "infeasible: the shortest correct calls need p95 = 63 tokens"),
    ]
    got = asked(tmp_path, "Gates", gates=gates() | {"results": results})
    assert got == ("unknown", "3 skipped: no_baseline, infeasible")


# Tiles


def test_tiles_of_a_whole_run(tmp_path: Path) -> None:
    found = {
        tile.label: tile
        for tile in tiles(shown(tmp_path, evaluation_after=evaluation(8, AFTER, intervals=True)))
    }
    assert list(found) == [
        "held-out loss",
        "valid calls",
        "exact matches",
        "false calls",
        "time to first token",
        "first action",
        "generation",
        "training steps",
    ]
    assert (found["held-out loss"].value, found["held-out loss"].tone) == ("0.24", "better")
    assert found["valid calls"].value == "100 %"
    assert found["valid calls"].details == ("2 of 2, 0 % before", "95 %: 80 to 100 %")
    assert (found["exact matches"].value, found["exact matches"].tone) == ("50 %", "better")
    assert (found["false calls"].value, found["false calls"].tone) == ("0 %", "")
    assert found["first action"].details[1] == "never on 2 of 24 prompts (8.3 %)"
    assert (found["training steps"].value, found["training steps"].unit) == ("8", "of 8")


def test_a_tile_of_a_stale_report_says_so(tmp_path: Path) -> None:
    found = {tile.label: tile for tile in tiles(shown(tmp_path, speed=speed(4, 0, cut=4) | {"step": 4}))}
    first = found["first action"]
    assert (first.value, first.unit, first.tone) == ("cut", "", "stale")
    assert first.details == (
        "median; p95 cut",
        "cut before a call on 4 of 4 prompts (100 %)",
        "stale: measured at step 4, the student is of step 8",
    )
    assert found["generation"].tone == "stale"
    assert found["valid calls"].tone == "better"  # the evaluation is of the student


def test_what_is_missing_is_no_zero(tmp_path: Path) -> None:
    bare = dict.fromkeys(("metrics", "evaluation_before", "evaluation_after", "speed", "gates"))
    found = tiles(shown(tmp_path, **bare))
    assert [tile.value for tile in found[:-1]] == [""] * 7
    assert all(tile.details for tile in found[:-1])
    assert found[-1].value == "0"  # steps: none was made, and that is known


def test_more_false_calls_are_worse(tmp_path: Path) -> None:
    files = {"evaluation_before": evaluation(0, BEFORE), "evaluation_after": evaluation(8, [*AFTER, FALSE])}
    found = {tile.label: tile for tile in tiles(shown(tmp_path, **files))}
    assert found["false calls"].tone == "worse"
