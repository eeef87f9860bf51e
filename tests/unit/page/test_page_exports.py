"""The section of exports, against manifests made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_run import EVIL, config, write_run

from kdfast.errors import DataError
from kdfast.page import render_page
from kdfast.page.exports import Export, export_check, export_section
from kdfast.runs.reading import RunFiles, read_run

FIGURES: dict[str, dict[str, Any]] = {
    "weights": {"tensors": 39, "by_format": {"Q4_0": {"tensors": 28}}},
    "logits": {"positions": 88, "mean_kl": 0.00082, "top1_equal": 1.0, "top1_positions": 143},
    "prompt": {"compared": 32, "equal": 32, "differences": {}},
    "calls": {"forced_answers": 12, "forced_equal": 12, "ended": 11, "stopped_right": 11},
}


def manifest(**statuses: str) -> dict[str, Any]:
    parity: dict[str, Any] = {
        name: {"status": statuses.get(name, "passed"), "figures": figures, "problems": []}
        for name, figures in FIGURES.items()
    }
    for name, check in parity.items():
        if check["status"] == "failed":
            check["problems"] = [f"{name} differs {EVIL}"]
        if check["status"] == "not_measured":
            check |= {"reason": "--no-verify", "figures": {}}
    return {
        "kind": "kdfast.export",
        "target": "gguf",
        "gguf": {"file": "run-q4_0.gguf", "type": "q4_0", "origin": "trained"},
        "files": [{"file": "README.md", "bytes": 900}, {"file": "run-q4_0.gguf", "bytes": 91_728_800}],
        "parity": parity,
    }


def run(folder: Path, **exports: Any) -> RunFiles:
    path = write_run(folder / "run", config=config(export__targets=["gguf"]))
    for name, document in exports.items():
        (path / "export" / name).mkdir(parents=True)
        text = document if isinstance(document, str) else json.dumps(document)
        (path / "export" / name / "manifest.json").write_text(text)
    return read_run(path)


def section(files: RunFiles) -> list[Export]:
    return export_section(files)


def test_an_export_that_passed(tmp_path: Path) -> None:
    files = run(tmp_path, gguf=manifest(prompt="waived"))
    (shown,) = section(files)
    assert shown.title == "gguf q4_0, with the codes and scales of training"
    assert (shown.file, shown.size, shown.failed, shown.verified) == ("export/gguf", "91.7 MB", False, True)
    assert [(check.name, check.status) for check in shown.checks] == [
        ("weights", "passed"),
        ("logits", "passed"),
        ("prompt", "waived"),
        ("calls", "passed"),
    ]
    assert shown.checks[1].measured == (
        "mean KL 0.00082 nats at 88 positions; the likeliest token equal at 100.0% of 143"
    )
    assert shown.checks[3].measured == "12 of 12 right answers parsed alike; 11 of 11 answers end rightly"
    check = export_check([shown], files)
    assert check is not None
    assert check.answer == "good"
    assert 'href="#exports"' in render_page(files)[0]


def test_one_that_failed_is_bad_and_its_words_can_do_nothing(tmp_path: Path) -> None:
    files = run(tmp_path, **{"gguf.failed": manifest(logits="failed", calls="failed")})
    (shown,) = section(files)
    check = export_check([shown], files)
    assert check is not None
    assert (check.answer, check.because) == (
        "bad",
        "gguf q4_0, with the codes and scales of training differs: logits, calls",
    )
    document, _ = render_page(files)
    assert "Do not ship it." in document
    assert EVIL not in document


def test_one_that_was_not_compared_is_worth_a_look(tmp_path: Path) -> None:
    files = run(tmp_path, gguf=manifest(**dict.fromkeys(FIGURES, "not_measured")))
    check = export_check(section(files), files)
    assert check is not None
    assert (check.answer, section(files)[0].verified) == ("look", False)
    assert section(files)[0].checks[0].notes == ["--no-verify"]


def test_a_run_that_exports_nothing_has_no_section(tmp_path: Path) -> None:
    files = read_run(write_run(tmp_path / "run"))
    assert section(files) == []
    assert export_check([], files) is None
    assert "#exports" not in render_page(files)[0]
    waiting = run(tmp_path / "other")
    check = export_check(section(waiting), waiting)
    assert check is not None
    assert check.answer == "unknown"


@pytest.mark.parametrize(
    ("damaged", "named"),
    [
        ("{", "not readable JSON"),
        ({"target": "gguf"}, "parity"),
        (manifest(calls="perhaps"), "status"),
    ],
)
def test_a_damaged_manifest_names_file_and_remedy(tmp_path: Path, damaged: Any, named: str) -> None:
    with pytest.raises(DataError, match=rf"manifest\.json.*{named}.*export again|{named}"):
        section(run(tmp_path, gguf=damaged))
