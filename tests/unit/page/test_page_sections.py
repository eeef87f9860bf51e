"""What each section of the page shows, against files made by hand."""

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

from kdfast.errors import DataError
from kdfast.page import Node
from kdfast.page.evaluation import EvaluationSection, evaluation_section
from kdfast.page.gates import gate_section
from kdfast.page.history import History, read_history, series
from kdfast.page.losses import loss_section
from kdfast.page.outcome import (
    CUT,
    CUT_SILENT,
    FALSE_CALL,
    INVALID,
    NO_CALL,
    OTHER_FUNCTION,
    OTHER_VALUE,
    RIGHT,
    SILENT,
    outcome,
)
from kdfast.page.settings import settings_section
from kdfast.page.shapes import shape_section
from kdfast.runs.reading import read_run


def history_of(lines: list[dict[str, Any]]) -> History:
    return read_history(
        [Node(line, "metrics.jsonl", "remove it", number) for number, line in enumerate(lines, 1)]
    )


# History


def test_history_by_kind_in_the_order_of_steps() -> None:
    history = history_of(
        [train_line(2, 0.5), train_line(1, 0.7), validation_line(0, 1.0), {"step": 9, "kind": "qat"}]
    )
    assert series(history.train, "loss") == [(1.0, 0.7), (2.0, 0.5)]
    assert series(history.validation, "loss") == [(0.0, 1.0)]
    assert (history.speed, history.last_step) == ([], 2)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"kind": "train"}, "metrics.jsonl:1: step is missing"),
        ({"step": 1}, "metrics.jsonl:1: kind is missing"),
        ({"step": -1, "kind": "train"}, "step must be an integer of at least 0"),
        ({"step": 1, "kind": "train", "loss": "low"}, "loss must be a number; remove it, got 'low'"),
        ({"step": 1, "kind": "train", "loss": None}, "loss must be a number; remove it, got None"),
        ([1], "metrics.jsonl:1: the document must be an object"),
    ],
)
def test_a_bad_line_of_metrics(line: Any, told: str) -> None:
    with pytest.raises(DataError) as error:
        history_of([line])
    assert told in str(error.value)


# Losses


def test_every_logged_number_has_its_chart(tmp_path: Path) -> None:
    lines = [line | {"len_kd.frac_penalized": 0.5} if line["kind"] == "train" else line for line in metrics()]
    section = loss_section(history_of(lines), read_run(write_run(tmp_path / "run")).config)
    shown = {heading: len(charts) for heading, charts in section.groups}
    assert shown == {
        "Terms of the loss": 2,
        "Agreement on held-out answers": 2,
        "Optimiser": 3,
        "Diagnostics": 1,
    }
    assert "weight 0.5" in section.groups[0][1][0]
    assert "average" not in section.loss
    names, rows = section.validations
    assert names == ["loss", "kl", "ce_truth", "token_accuracy", "token_agreement"]
    assert [step for step, _ in rows] == [0, 2, 4, 6, 8]
    assert rows[0][1] == ["1", "0.8", "1", "50 %", "67 %"]


def test_a_long_run_is_smoothed_and_thinned(tmp_path: Path) -> None:
    section = loss_section(history_of(metrics(5000)), read_run(write_run(tmp_path / "run")).config)
    assert section.loss is not None
    assert len(section.loss) < 60_000
    charts = [section.loss, *(chart for _, group in section.groups for chart in group)]
    smoothed = [chart for chart in charts if 'class="train"' in chart]
    assert len(smoothed) == 6  # loss, two terms, three of the optimiser
    smoothed = [chart for chart in smoothed if "learning rate" not in chart]  # this one has no noise
    assert len(smoothed) == 5
    for chart in smoothed:
        assert chart.count('path class="faint"') == 1  # the raw line
        assert "exponential average over about 167 logged steps" in chart
    for chart in set(charts) - set(smoothed):
        assert "average" not in chart


def test_nothing_logged_is_no_chart(tmp_path: Path) -> None:
    section = loss_section(history_of([]), read_run(write_run(tmp_path / "run")).config)
    assert (section.loss, section.groups) == (None, [])


# Tool calls


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (answer(CALL), RIGHT),
        (answer(CALL, exact_match=False), OTHER_VALUE),
        (answer(CALL, exact_match=False, schema_valid=False), INVALID),
        (answer(CALL, exact_match=False, right_function=False), OTHER_FUNCTION),
        (answer("Hm."), NO_CALL),
        (answer("Hm.", should_call=False), SILENT),
        (answer(CALL, should_call=False), FALSE_CALL),
    ],
)
def test_outcomes(made: dict[str, Any], expected: Any) -> None:
    assert outcome(Node(made["score"], "f", "r")) is expected
    cut = {NO_CALL: CUT, SILENT: CUT_SILENT}.get(expected, expected)  # a call may have followed
    assert outcome(Node(made["score"], "f", "r"), cut=True) is cut


def test_an_answer_that_was_cut_is_not_rightly_silent(tmp_path: Path) -> None:
    after = [answer("Hm.") | {"cut": True}, answer("Hm.", should_call=False) | {"cut": True}]
    section = calls(tmp_path, evaluation_after=evaluation(8, after))
    assert [group.outcome.label for group in section.groups] == [
        "cut before a call",
        "no call until it was cut, where no tool fits",
    ]
    assert section.cut_silent == 1
    bars = [bar for _, _, both in section.outcomes for when, bar in both if when == "after"]
    assert ["rightly 0" in bar or "rightly" not in bar for bar in bars] == [True, True]


def calls(folder: Path, **files: Any) -> EvaluationSection:
    return evaluation_section(read_run(write_run(folder / "run", **files)))


def test_shares_before_and_after(tmp_path: Path) -> None:
    rows = {row.label: row for row in calls(tmp_path).rows}
    assert list(rows) == [
        "a call was found",
        "right function",
        "valid against its schema",
        "exact match (accepted values)",
        "false calls (no tool fits)",
    ]
    assert (str(rows["right function"].before), str(rows["right function"].after)) == (
        "0 % (0 of 2)",
        "100 % (2 of 2)",
    )
    assert rows["false calls (no tool fits)"].fewer_is_better
    assert rows["right function"].after is not None
    assert rows["right function"].after.interval == ""
    assert not calls(tmp_path).intervals


def test_intervals_and_quality_where_the_file_has_them(tmp_path: Path) -> None:
    section = calls(tmp_path, evaluation_after=evaluation(8, AFTER, intervals=True))
    rows = {row.label: row for row in section.rows}
    assert section.intervals
    assert section.without_intervals == "evaluation_before.json"
    f1 = rows["F1 of calls"]
    assert (f1.before, str(f1.after), f1.after and f1.after.interval) == (None, "62 %", "50 to 75 %")
    assert "right calls of those made" not in rows  # absent in both files
    assert f1.why[0] == "not in the file"


def test_an_interval_without_width_is_one(tmp_path: Path) -> None:
    made = evaluation(8, AFTER)
    for share in made["table"].values():
        share["low"] = share["high"] = share["fraction"]
    section = calls(tmp_path, evaluation_before=None, evaluation_after=made)
    assert (section.intervals, section.without_intervals) == (True, "")
    assert next(row.after and row.after.interval for row in section.rows) == "100 to 100 %"


def test_what_could_not_be_formed_says_why(tmp_path: Path) -> None:
    before, after = evaluation(0, BEFORE, intervals=True), evaluation(8, AFTER, intervals=True)
    after["quality"]["precision"] = {"value": 0.5, "low": 0.5, "high": 0.5}
    rows = {row.label: row for row in calls(tmp_path, evaluation_before=before, evaluation_after=after).rows}
    precision = rows["right calls of those made"]
    assert (precision.before, precision.why[0]) == (None, "none made")
    assert precision.after is not None
    assert precision.after.interval == "50 to 50 %"  # it has one, if without width
    only = calls(tmp_path / "only", evaluation_before=None).rows[0]
    assert (only.before, only.why[0]) == (None, "no evaluation_before.json")


def test_examples_of_each_outcome_the_worst_first(tmp_path: Path) -> None:
    after = [answer(CALL)] * 5 + [answer("Hm.")] * 3 + [answer(CALL, should_call=False)]
    groups = calls(
        tmp_path, evaluation_before=evaluation(0, [answer("b")] * 9), evaluation_after=evaluation(8, after)
    ).groups
    assert [(group.outcome, group.count, len(group.examples)) for group in groups] == [
        (NO_CALL, 3, 2),
        (RIGHT, 5, 2),
        (FALSE_CALL, 1, 1),
    ]
    assert groups[0].examples[0].after.number == 6
    assert groups[0].examples[0].before is not None


def test_answers_of_other_prompts_are_not_set_side_by_side(tmp_path: Path) -> None:
    groups = calls(tmp_path, evaluation_before=evaluation(0, BEFORE[:1])).groups
    assert all(example.before is None for group in groups for example in group.examples)


def test_categories_lengths_and_reasons(tmp_path: Path) -> None:
    ratio = {"count": 2, "p50": {"value": 1.0, "low": 0.9, "high": 1.25}, "p95": {"value": 2.0}}
    extra = {"length": {"ratio": ratio}, "mismatches": {"value": 1}}
    parts = {
        "simple": evaluation(8, AFTER[:1]) | {"prompts": 1},
        "multiple": evaluation(8, AFTER[1:]) | {"prompts": 2},
    }
    section = calls(tmp_path, evaluation_after=evaluation(8, AFTER) | extra | {"categories": parts})
    assert [(one.name, one.prompts) for one in section.categories] == [("simple", 1), ("multiple", 2)]
    assert [str(after) for _, after in section.categories[1].cells] == [
        "100 % (1 of 1)",
        "0 % (0 of 1)",
        "None",
        "0 % (0 of 1)",
        "None",
        "None",
    ]
    assert section.facts == [
        ("after", "length against the right answer", "median 1 (95 %: 0.9 to 1.25), p95 2"),
        ("after", "not exact because of", "value of an argument 1"),
    ]


def test_a_missing_evaluation_says_why(tmp_path: Path) -> None:
    section = calls(tmp_path, evaluation_after=None)
    assert [when for when, _ in section.missing] == ["after"]
    assert "kdfast train CONFIG --resume" in section.missing[0][1].reason
    assert section.groups == []
    off = calls(tmp_path / "off", evaluation_after=None, config=config(train__eval_prompts=0))
    assert "train.eval_prompts" in off.missing[0][1].reason


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("table", "parsed", "count"), 9, "table.parsed.count must be at most the total (2)"),
        (("table", "parsed", "low"), 1.5, "table.parsed.low must be a number in [0, 1]"),
        (("table",), None, "table is missing"),
        (("answers",), {}, "answers must be a list"),
        (("answers", 0, "text"), 3, "answers.0.text must be a text"),
        (("answers", 0, "score", "parsed"), "yes", "answers.0.score.parsed must be true or false"),
    ],
)
def test_a_damaged_evaluation_is_named(tmp_path: Path, path: tuple[Any, ...], value: Any, told: str) -> None:
    made = evaluation(8, [dict(one, score=dict(one["score"])) for one in AFTER], intervals=True)
    place: Any = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError) as error:
        calls(tmp_path, evaluation_after=made)
    assert f"evaluation_after.json: {told}" in str(error.value)
    assert "make it again" in str(error.value)


# Gates


def test_gates_as_they_were_judged(tmp_path: Path) -> None:
    section = gate_section(read_run(write_run(tmp_path / "run")))
    assert [(row.name, row.status) for row in section.rows] == [
        (result["name"], result["status"]) for result in gates()["results"]
    ]
    rows = {row.name: row for row in section.rows}
    assert (rows["ttft_p50"].value, rows["ttft_p50"].limit) == ("1.01 x slower", "1.05 x slower")
    # whether an answer without a call was cut, the file does not say
    assert (rows["ttfa_p95"].value, rows["ttfa_p95"].limit) == ("infinite", "25 tokens")
    assert rows["tps_p50"].value == ""
    assert section.counts == "1 failed, 1 inconclusive, 1 passed, 1 report only, 1 skipped"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "other"}, "kind must be 'kdfast.gate_report'"),
        ({"results": [gate("g", "fine", "why")]}, "results.0.status must be one of failed"),
        ({"results": [gate("g", "passed", "why", value="1")]}, "results.0.value must be a number"),
    ],
)
def test_a_damaged_gate_report_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as error:
        gate_section(read_run(write_run(tmp_path / "run", gates=gates() | change)))
    assert f"gates.json: {told}" in str(error.value)


# Shapes


def test_padding_against_a_count_by_hand(tmp_path: Path) -> None:
    read = read_run(write_run(tmp_path / "run"))
    lines = metrics()
    section = shape_section(history_of(lines), read.config)
    padded = read_tokens = 0
    for line in lines:
        if line["kind"] == "train":
            padded += 8 * int(line["shape"])
            read_tokens += int(line["tokens"])
    assert section.total is not None
    assert section.total.waste == pytest.approx(1 - read_tokens / padded)
    assert [(row.shape, row.steps, row.rows) for row in section.rows] == [(256, 6, 48), (512, 2, 16)]
    assert [row.waste for row in section.rows] == [0.25, 0.25]
    assert (section.unused, section.logged) == ([128], (8, 8))


def test_steps_that_were_not_logged_are_told(tmp_path: Path) -> None:
    read = read_run(write_run(tmp_path / "run"))
    section = shape_section(history_of([train_line(4, 1.0), train_line(8, 0.5)]), read.config)
    assert section.logged == (2, 8)


def test_metrics_of_another_config(tmp_path: Path) -> None:
    read = read_run(write_run(tmp_path / "run", config=config(train__micro_batch_size=1)))
    with pytest.raises(DataError, match=r"config\.yaml and metrics\.jsonl are of different runs, got 9216"):
        shape_section(history_of(metrics()), read.config)


# Settings


def test_settings_and_what_is_not_the_default(tmp_path: Path) -> None:
    read = read_run(write_run(tmp_path / "run"))
    section = settings_section(read)
    changed = {setting.key: (setting.value, setting.default) for setting in section.changed}
    assert changed["data.shapes"] == ("[128, 256, 512]", "[512, 1024, 2048, 4096]")
    assert changed["io.run_dir"] == ("runs/made", "required")
    assert "train.seed" not in changed
    every = [setting.key for _, settings in section.sections for setting in settings]
    assert len(every) == sum(len(values) for values in read.config.to_dict().values())
    assert section.fingerprints[0] == ("config", read.config.fingerprint())
    assert dict(section.fingerprints)["prompts"] == "ab" * 32


def test_fingerprints_that_are_not_known(tmp_path: Path) -> None:
    section = settings_section(read_run(write_run(tmp_path / "run", speed=None)))
    assert [name for name, _ in section.fingerprints] == ["config"]
    assert "kdfast measure" in section.fingerprints_missing


def test_a_config_that_changed_since_speed_was_measured(tmp_path: Path) -> None:
    report = speed() | {"fingerprints": {"config": "ef" * 32}}
    section = settings_section(read_run(write_run(tmp_path / "run", speed=report)))
    assert ("config when speed was measured", "ef" * 32) in section.fingerprints
