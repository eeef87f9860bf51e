"""The section of quantisation, against files made by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from made_run import EVIL, config, metrics, qat_line, qat_lines, quantization, write_run

from kdfast.errors import DataError
from kdfast.page import render_page
from kdfast.page.quantization import QuantizationSection, quantization_check, quantization_section
from kdfast.runs.reading import read_run

QAT = config(quant__enabled=True, quant__format="q4_0", quant__min_steps=1, quant__start_fraction=0.5)


def section(folder: Path, **files: Any) -> QuantizationSection:
    whole = {"config": QAT, "metrics": [*metrics(), *qat_lines()], "quantization": quantization()}
    return quantization_section(read_run(write_run(folder / "run", **(whole | files))))


def page(folder: Path, **files: Any) -> tuple[str, str]:
    whole = {"config": QAT, "metrics": [*metrics(), *qat_lines()], "quantization": quantization()}
    return render_page(read_run(write_run(folder / "run", **(whole | files))))


def test_the_students_side_by_side(tmp_path: Path) -> None:
    shown = section(tmp_path)
    assert list(shown.arms) == [
        "float, at the start",
        "step 6, quantised after training",
        "trained under quantisation",
    ]
    rows = {label: list(cells) for label, cells in shown.rows}
    assert rows["held-out loss"] == [("0.2113", ""), ("0.2342", ""), ("0.2155", "")]
    assert rows["KL to the float student"] == [("", ""), ("0.0517", ""), ("0.0312", "")]
    assert rows["worst layer's cosine"] == [("", ""), ("0.9802", "layer 3"), ("0.9876", "layer 3")]
    assert rows["same likeliest token"][2] == ("98 % (364 of 372)", "")
    assert rows["exact calls"][2] == ("80 % (16 of 20)", "60 to 100 %")
    assert rows["size"][:2] == [("4 MiB", ""), ("0.668 MiB", "")]
    assert shown.format == "q4_0, embeddings q8_0"
    assert shown.judgement[0].endswith("QAT is closer to it")


def test_what_no_student_has_is_no_row(tmp_path: Path) -> None:
    bare = quantization()
    for arm in bare["arms"]:
        for name in ("calls", "nll_names", "cosines", "kl", "top1"):
            arm.pop(name, None)
    bare["arms"][1]["notes"] = ["no held-out loss: it is not a finite number"]
    shown = section(tmp_path, quantization=bare)
    assert [label for label, _ in shown.rows] == ["held-out loss", "NLL of arguments", "size"]
    assert shown.cosines is None
    assert shown.notes == [
        ("step 6, quantised after training", "no held-out loss: it is not a finite number")
    ]


def test_a_layer_without_a_cosine_is_a_worst_layer_that_is_not_known(tmp_path: Path) -> None:
    changed = quantization()
    changed["arms"][1]["cosines"][2] = None
    shown = section(tmp_path, quantization=changed)
    assert dict(shown.rows)["worst layer's cosine"] == [("", ""), ("", ""), ("0.9876", "layer 3")]
    assert shown.cosines is not None


def test_the_cosines_are_a_line_for_each_student(tmp_path: Path) -> None:
    chart = section(tmp_path).cosines
    assert chart is not None
    assert chart.count("<path") == 2
    assert "trained under quantisation from 0.9999 to 0.9876" in chart


def test_the_phase_over_its_steps(tmp_path: Path) -> None:
    phase = section(tmp_path).phase
    assert len(phase.charts) == 3
    assert [(step, told.partition(":")[0], bad) for step, told, bad in phase.events] == [
        (4, "quantisation began", False),
        (5, "went back to the last good state, at half the learning rate", True),
        (7, "scales were frozen", False),
    ]
    assert phase.events[1][1].endswith("loss above 2.0 times its mean of the first tenth")
    assert phase.facts == [
        ("codes changed by step 8", "1.4 %"),
        ("scales that turned their sign", "3 blocks"),
        ("changed since the check before", "410 codes, 55 of them back again"),
        ("rollbacks", "1"),
    ]


def test_a_line_may_lack_any_number(tmp_path: Path) -> None:
    lines = [
        qat_line(4, "start"),
        qat_line(6, "check", passed=False, reason="cosine or KL is not a number", not_finite=["kl"]),
        {"step": 7, "kind": "qat"},
    ]
    phase = section(tmp_path, metrics=[*metrics(), *lines]).phase
    assert (phase.charts, phase.facts, phase.gave_up) == ([], [], "")
    assert [told for _, told, _ in phase.events] == [
        "quantisation began",
        "check failed: cosine or KL is not a number",
    ]


def test_giving_up_is_said_loudly(tmp_path: Path) -> None:
    lines = [*qat_lines(), qat_line(6, "gave_up", reason="cosine 0.91")]
    for number, files in enumerate(
        (
            {"quantization": quantization(failed=True)},
            {"quantization": None, "metrics": [*metrics(), *lines]},
        )
    ):
        document, told = page(tmp_path / str(number), **files)
        assert "QAT failed and was given up." in Page(document).text()
        assert told.startswith("Not good: ")
        assert "2 bad" in told  # the gates that failed, and this
        shown = section(tmp_path / str(number), **files)
        check = quantization_check(shown)
        assert check is not None
        assert check.answer == "bad"
        assert "cosine 0.91" in check.because


@pytest.mark.parametrize(
    ("says", "answer"), [("lower", "good"), ("not_shown", "good"), ("too_few", "good"), ("higher", "look")]
)
def test_the_check_of_a_comparison(tmp_path: Path, says: str, answer: str) -> None:
    changed = quantization()
    changed["differences"][0]["nll_names"]["says"] = says
    check = quantization_check(section(tmp_path, quantization=changed))
    assert check is not None
    assert (check.answer, check.because) == (answer, changed["judgement"][0])


def test_a_run_without_quantisation_has_no_section(tmp_path: Path) -> None:
    files = {"config": config(), "metrics": metrics(), "quantization": None}
    document, told = page(tmp_path, **files)
    assert 'id="quantization"' not in document
    assert "Quantis" not in Page(document).text()
    assert told == "Not good: 4 good, 1 worth a look, 1 bad"


def test_a_run_that_has_not_reached_its_end_says_so(tmp_path: Path) -> None:
    shown = section(tmp_path, quantization=None)
    assert shown.missing is not None
    assert "the run has not reached its end" in shown.missing.reason
    check = quantization_check(shown)
    assert check is not None
    assert check.answer == "unknown"
    assert shown.phase.charts


def test_lines_without_a_section_in_the_config_show_the_phase(tmp_path: Path) -> None:
    shown = section(tmp_path, config=config(), quantization=None)
    assert shown.shown
    assert shown.missing is not None
    assert "quant.enabled is false" in shown.missing.reason


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("kind",), "kdfast.evaluation", "kind must be 'kdfast.quantization'"),
        (("status",), "fine", "status must be one of kept, failed"),
        (("arms", 1, "kl"), "low", "arms.1.kl must be a number"),
        (("arms", 1, "cosines", 2), 7.0, "arms.1.cosines.2 must be a number in [-1, 1]"),
        (("arms", 1, "top1", "count"), 999, "arms.1.top1.count must be at most the total (372)"),
        (("arms", 0, "bytes"), -1, "arms.0.bytes must be an integer of at least 0"),
        (
            ("differences", 0, "kl", "says"),
            "better",
            "differences.0.kl.says must be one of lower, higher, not_shown, too_few",
        ),
        (("judgement",), "good", "judgement must be a list"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_key(
    tmp_path: Path, path: tuple[str | int, ...], value: Any, told: str
) -> None:
    changed: Any = quantization()
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match=re.escape(told)) as error:
        section(tmp_path, quantization=changed)
    assert "quantization.json" in str(error.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"cosine": 2.0}, "cosine must be a number in [-1, 1]"),
        ({"kl": -1.0}, "kl must be at least 0"),
        ({"changed_fraction": "all"}, "changed_fraction must be a number"),
        ({"reason": 3}, "reason must be a text"),
        ({"passed": 1}, "passed must be true or false"),
    ],
)
def test_a_damaged_line_is_an_error_that_names_line_and_key(
    tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(DataError, match=re.escape(told)) as error:
        section(tmp_path, metrics=[qat_line(4, "check", **values)])
    assert "metrics.jsonl:1" in str(error.value)


def test_whatever_stands_in_the_files_is_text(tmp_path: Path) -> None:
    changed = quantization(failed=True) | {"reasons": [EVIL], "format": EVIL, "judgement": [EVIL]}
    for arm in changed["arms"]:
        arm |= {"title": EVIL, "notes": [EVIL]}
    lines = [*metrics(), qat_line(4, EVIL, reason=EVIL), *qat_lines(), qat_line(6, "gave_up", reason=EVIL)]
    document, _ = page(tmp_path, quantization=changed, metrics=lines)
    assert not {"script", "img"} & {tag for tag, _ in Page(document).elements}
    assert "alert('owned')" in Page(document).text()
    assert not re.search(r"https?://", document)
