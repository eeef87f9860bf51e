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


TITLE = "gguf q4_0, with the codes and scales of training"


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
        "schema_version": "1.0",
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


def for_transformers(**statuses: str) -> dict[str, Any]:
    """The manifest of an export of which nobody can compare logits and calls."""
    made = manifest(**{"logits": "not_measured", "calls": "not_measured"} | statuses)
    del made["gguf"]
    return made | {"target": "hf"}


def answer(folder: Path, **exports: Any) -> tuple[str, str]:
    """The verdict on the exports of a run, and its reason."""
    files = run(folder, **exports)
    check = export_check(section(files), files)
    assert check is not None
    return check.answer, check.because


def test_an_export_that_passed(tmp_path: Path) -> None:
    files = run(tmp_path, gguf=manifest())
    (shown,) = section(files)
    assert shown.title == "gguf q4_0, with the codes and scales of training"
    assert (shown.file, shown.size, shown.failed, shown.verified) == ("export/gguf", "91.7 MB", (), True)
    assert [(check.name, check.status) for check in shown.checks] == [
        ("weights", "passed"),
        ("logits", "passed"),
        ("prompt", "passed"),
        ("calls", "passed"),
    ]
    assert shown.checks[1].measured == (
        "mean KL 0.00082 nats at 88 positions; the likeliest token equal at 100.0% of 143"
    )
    assert shown.checks[3].measured == "12 of 12 right answers parsed alike; 11 of 11 answers end rightly"
    check = export_check([shown], files)
    assert check is not None
    assert (check.answer, check.because) == ("good", f"{TITLE}: equal to what was trained")
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


def test_a_difference_that_was_accepted_is_not_called_equal(tmp_path: Path) -> None:
    because = f"{TITLE}: differs in prompt, which was accepted by name"
    assert answer(tmp_path / "one", gguf=manifest(prompt="waived")) == ("look", because)
    (shown,) = section(run(tmp_path / "two", gguf=manifest(prompt="waived")))
    assert (shown.checks[2].status, shown.checks[2].style) == ("waived", "inconclusive")
    both = manifest(prompt="waived", logits="not_measured")
    assert answer(tmp_path / "three", gguf=both) == ("look", f"{because}; not compared: logits")


def test_what_was_compared_in_part_is_not_called_equal(tmp_path: Path) -> None:
    some = manifest(logits="not_measured", calls="not_measured")
    assert answer(tmp_path / "some", gguf=some) == ("look", f"{TITLE}: not compared: logits, calls")
    part = manifest()
    part["parity"]["calls"]["reason"] = "right answers are not measured: the server refuses them"
    assert answer(tmp_path / "part", gguf=part) == ("look", f"{TITLE}: not compared: calls")
    gone = manifest()
    del gone["parity"]["prompt"]
    assert answer(tmp_path / "gone", gguf=gone) == ("look", f"{TITLE}: not compared: prompt")


def test_an_export_for_transformers_says_only_what_is_true(tmp_path: Path) -> None:
    told = "hf: weights and prompts equal; logits and calls are not measured"
    assert answer(tmp_path / "good", hf=for_transformers()) == ("good", told)
    assert answer(tmp_path / "both", gguf=manifest(), hf=for_transformers()) == (
        "good",
        f"{TITLE}: equal to what was trained; {told}",
    )
    part = for_transformers(prompt="not_measured")
    assert answer(tmp_path / "part", gguf=manifest(), hf=part) == ("look", "hf: not compared: prompt")
    assert answer(tmp_path / "none", hf=for_transformers(weights="not_measured", prompt="not_measured")) == (
        "look",
        "hf was not compared",
    )
    assert answer(tmp_path / "bad", hf=for_transformers(weights="failed"))[0] == "bad"


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
        ("{", "not a readable export manifest"),
        ("[]", "must be an object, got list"),
        ({key: value for key, value in manifest().items() if key != "parity"}, "parity is missing"),
        (manifest(calls="perhaps"), r"parity\.calls\.status must be one of"),
        (manifest() | {"kind": "web_app"}, "kind must be 'kdfast.export'"),
        (manifest() | {"schema_version": "2.0"}, "schema_version must be '1.0'"),
        (
            {key: value for key, value in manifest().items() if key != "schema_version"},
            "schema_version must be",
        ),
    ],
)
def test_a_damaged_manifest_names_file_and_remedy(tmp_path: Path, damaged: Any, named: str) -> None:
    files = run(tmp_path, gguf=damaged)
    with pytest.raises(DataError, match=rf"manifest\.json: .*{named}.*export again") as caught:
        section(files)
    assert str(tmp_path / "run" / "export" / "gguf") in str(caught.value)


def test_a_damaged_manifest_does_not_keep_its_successor_from_being_made(tmp_path: Path) -> None:
    """`kdfast export` reads the run for the model card, while the old export is still there."""
    assert list(run(tmp_path, gguf="{").exports) == ["export/gguf"]


def test_what_is_no_export_is_passed_over(tmp_path: Path) -> None:
    path = run(tmp_path).name
    folder = tmp_path / path / "export"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes.txt").touch()
    assert read_run(tmp_path / path).exports == {}


def test_a_figure_without_its_companion_names_file_and_key(tmp_path: Path) -> None:
    made = manifest()
    made["parity"]["logits"] |= {"figures": {"mean_kl": 0.001}}
    files = run(tmp_path, gguf=made)
    with pytest.raises(DataError, match=r"manifest\.json: parity\.logits\.figures\.positions is missing"):
        section(files)


@pytest.mark.parametrize("figures", [{}, {"mean_kl": None, "top1_equal": None}, {"positions": 88}])
def test_a_figure_that_is_absent_is_left_out(tmp_path: Path, figures: dict[str, Any]) -> None:
    made = manifest()
    made["parity"]["logits"] |= {"figures": figures}
    assert section(run(tmp_path, gguf=made))[0].checks[1].measured == ""
