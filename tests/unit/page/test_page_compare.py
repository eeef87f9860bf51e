"""Several runs side by side: their numbers, curves and gates, and what differs, by value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compared_runs import asked, cells, made
from html_page import Page
from made_run import (
    AFTER,
    EVIL,
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
from kdfast.page.compare import Run, labels, render_comparison
from kdfast.page.compare.curves import loss_curve, term_curves
from kdfast.page.compare.gates import gate_rows
from kdfast.page.compare.numbers import number_tables
from kdfast.page.compare.run import style
from kdfast.page.compare.settings import differences
from kdfast.runs.reading import read_run
from kdfast.runs.saved import Saved, read_saved

# Names and colours


def test_runs_of_one_name_are_told_apart() -> None:
    paths = ["/x/a/run", "/x/b/run", "/y/b/run", "/x/small"]
    assert labels([Path(path) for path in paths]) == ["a/run", "x/b/run", "y/b/run", "small"]
    assert labels([Path("/run"), Path("/a/run")]) == ["/run", "a/run"]


def test_each_run_has_a_look_of_its_own() -> None:
    looks = [style(index) for index in range(32)]
    assert len(set(looks)) == 32
    assert looks[:2] == ["run c1", "run c2"]
    assert all(" d" not in look for look in looks[:8])


# Numbers


def test_the_numbers_of_two_runs(tmp_path: Path) -> None:
    lines = [validation_line(0, 2.0), train_line(1, 1.5), validation_line(1, 0.5), validation_line(2, 0.75)]
    after = asked(evaluation(8, [*AFTER, answer("It is sunny.")], intervals=True))
    runs = [
        made(tmp_path, "a", metrics=lines, evaluation_after=asked(evaluation(8, AFTER))),
        made(tmp_path, "b", evaluation_after=after, speed=speed(4, 1)),
    ]
    assert [(cell.text, cell.details) for cell in cells(runs, "steps")] == [
        ("2", ("of 8",)),
        ("8", ("of 8",)),
    ]
    last, lowest = cells(runs, "loss, last")[0], cells(runs, "loss, lowest")[0]
    assert (last.text, last.details) == ("0.75", ("at step 2",))
    assert (lowest.text, lowest.details) == ("0.5", ("at step 1",))
    assert cells(runs, "cross-entropy, ground truth")[0].text == "0.75"
    assert cells(runs, "divergence from the teacher")[0].text == "0.6"
    assert cells(runs, "tokens, in logged steps")[0].text == "1,536"
    assert cells(runs, "time, in logged steps")[1].text == "16 s"
    valid = cells(runs, "valid calls")
    assert [(cell.text, cell.details, cell.best) for cell in valid] == [
        ("100 %", ("2 of 2",), True),
        ("67 %", ("2 of 3", "95 %: 47 to 82 %"), False),
    ]
    assert cells(runs, "F1 of calls")[1].details == ("95 %: 50 to 75 %",)
    action = cells(runs, "first action, median")
    assert action[1].text == f"{int(runs[1].speed.metrics['ttfa_tokens'].median)} tokens"
    assert action[1].details[0] == "never on 1 of 4 prompts (25 %)"


def test_the_best_is_the_lowest_or_the_highest(tmp_path: Path) -> None:
    slow, fast = speed(4, 0), speed(4, 0)
    fast["metrics"]["ttft_ms"]["p50"] = slow["metrics"]["ttft_ms"]["p50"] / 2
    fast["metrics"]["tps"]["p50"] = slow["metrics"]["tps"]["p50"] / 2
    runs = [made(tmp_path, "a", speed=slow), made(tmp_path, "b", speed=fast)]
    assert [cell.best for cell in cells(runs, "time to first token, median")] == [False, True]
    assert [cell.best for cell in cells(runs, "tokens per second, median")] == [True, False]
    assert [cell.best for cell in cells(runs, "first action, median")] == [False, False]  # no difference


@pytest.mark.parametrize(
    ("files", "label", "why"),
    [
        ({"metrics": None}, "loss, last", "No metrics.jsonl"),
        ({"metrics": [train_line(1, 1.0)]}, "loss, last", "No validation has ended yet."),
        ({"metrics": [validation_line(0, 1.0)]}, "time, in logged steps", "No training step was logged."),
        ({}, "parameters", "saved no weights"),
        ({"evaluation_after": None}, "valid calls", "No evaluation_after.json"),
        ({"evaluation_after": evaluation(8, AFTER)}, "F1 of calls", "f1: not in the file."),
        ({"speed": None}, "first action, median", "No speed.json"),
        (
            {"speed": speed() | {"metrics": {}, "absent": {"tps": "one token"}}},
            "tokens per second, median",
            "one token",
        ),
    ],
)
def test_what_a_run_lacks_has_a_reason(tmp_path: Path, files: dict[str, Any], label: str, why: str) -> None:
    whole = made(tmp_path, "whole", evaluation_after=evaluation(8, AFTER, intervals=True))
    found = cells([whole, made(tmp_path, "lacking", **files)], label)[1]
    assert found.text == "-"
    assert why in found.why
    assert found.value is None


def test_runs_without_any_number_say_why(tmp_path: Path) -> None:
    files = dict.fromkeys(("metrics", "evaluation_before", "evaluation_after", "speed", "gates"))
    runs = [made(tmp_path, name, **files) for name in "ab"]
    tables = {table.title: [row.label for row in table.rows] for table in number_tables(runs, {})}
    assert tables["Held-out rows"] == ["loss, last"]
    assert tables["Tool calls"] == ["valid calls"]
    assert tables["Speed"] == ["time to first token, median"]
    document, told = render_comparison(runs)
    assert told == []
    assert "No number is known of two runs." in Page(document).text()
    assert not Page(document).all("figure")


# Curves, gates, configs


def test_each_run_has_its_line_in_the_chart(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, "a", metrics=[validation_line(0, 2.0), train_line(1, 1.0), validation_line(4, 0.0)]),
        made(tmp_path, "b", metrics=[train_line(1, 1.0), train_line(2, 0.5)]),
        made(tmp_path, "c", metrics=None),
    ]
    chart = loss_curve(runs)
    paths = {path["class"]: path["d"] for path in Page(str(chart)).all("path")}
    assert paths == {
        "run c1": "M0 0L1000 1000",
        "run c1 raw": "M250 500",
        "run c2 raw alone": "M250 500L500 750",
    }
    assert "a, held out at step 4: 0" in str(chart)
    assert len(term_curves(runs)) == 2  # the divergence and the cross-entropy
    assert loss_curve(runs[2:]) is None


def test_gates_of_all_runs(tmp_path: Path) -> None:
    other = gates() | {
        "results": [gate("f1", "passed", "rose: by 0.1", value=0.7, limit=0.6), gate("new", "skipped", "no")]
    }
    runs = [made(tmp_path, "a"), made(tmp_path, "b", gates=other), made(tmp_path, "c", gates=None)]
    rows = dict(gate_rows(runs))
    assert list(rows) == ["ttft_p50", "ttft_p95", "tps_p50", "ttfa_p95", "f1", "new"]
    assert [cell.status for cell in rows["f1"]] == ["skipped", "passed", ""]
    assert (rows["f1"][1].numbers, rows["f1"][1].short) == ("0.7, limit 0.6", "rose")
    assert rows["new"][0].reason == "Its gates.json has not this gate."
    assert rows["f1"][2].reason.startswith("No gates.json")


def test_only_keys_that_differ(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, "a", config=config(io__run_dir="runs/a")),
        made(tmp_path, "b", config=config(io__run_dir="runs/b", train__seed=7, data__shapes=[128, 512])),
        made(tmp_path, "c", config=config(io__run_dir="runs/c", train__seed=7)),
    ]
    assert [(one.key, list(one.values)) for one in differences(runs)] == [
        ("data.shapes", [("[128, 256, 512]", True), ("[128, 512]", True), ("[128, 256, 512]", True)]),
        ("train.seed", [("0", False), ("7", True), ("7", True)]),
    ]
    assert differences(runs[:1] * 2) == []


# The page


def test_the_page_says_what_differs(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, "first"),
        made(
            tmp_path, "second", {"data.validation": "others"}, config=config(kd__kl_weight=0.75), speed=None
        ),
    ]
    document, told = render_comparison(runs)
    text = Page(document).text()
    assert "2 runs compared" in text
    assert "Not every curve can be compared with every other." in text
    assert any(
        line.startswith("Held-out loss, the weighted sum: cannot be compared. Other ") for line in told
    )
    assert "kd.kl_weight 0.5 the default 0.75" in text
    assert "No speed.json" in text
    links = {link["href"] for link in Page(document).all("a")}
    notes = {f"#{item['id']}" for item in Page(document).all("li") if "id" in item}
    assert links == notes
    assert links


def test_the_page_of_ten_runs(tmp_path: Path) -> None:
    runs = [made(tmp_path, f"run{number}", metrics=metrics(number + 3)) for number in range(10)]
    document, _ = render_comparison(runs)
    looks = {path["class"] for path in Page(document).all("path")}
    assert {style(index) for index in range(10)} <= looks
    assert "run c1 d1" in looks
    assert document.count("</th>") == document.count("<th ") + document.count("<th>")


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = made(
        tmp_path,
        "evil",
        speed=speed() | {"hardware": {"key": EVIL}, "absent": {"x": EVIL}, "fingerprints": {"prompts": EVIL}},
        gates=gates() | {"results": [gate(EVIL, "failed", EVIL, unit=EVIL, value=1.0)]},
        evaluation_after=asked(evaluation(8, AFTER), prompts=EVIL),
        config=config(data__train=EVIL, data__validation=f"{EVIL}2"),
    )
    runs = [made(tmp_path, "a"), Run(label=EVIL, files=evil.files, saved=Saved(parameters=3, inputs={}))]
    page = Page(render_comparison(runs)[0])
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
    assert "{{ 7 * 7 }}" in page.text()
    assert "49" not in [text for _, text in page.texts]


def test_a_damaged_value_names_its_file(tmp_path: Path) -> None:
    broken = evaluation(8, AFTER)
    broken["table"]["parsed"]["count"] = "3"
    path = write_run(tmp_path / "b", evaluation_after=json.dumps(broken))
    runs = [made(tmp_path, "a"), Run(label="b", files=read_run(path), saved=read_saved(path))]
    with pytest.raises(DataError, match=r"b/evaluation_after\.json: table\.parsed\.count must be a number"):
        render_comparison(runs)
