"""`kdfast measure`, `eval`, `bless` and `gate` on exports, beside the model that they are of."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import exit_code
from model_commands import fails, run_on_model
from tiny_export import write_export
from tiny_run import write_config

from kdfast.gates import GateReport
from kdfast.speed import read_speed_report

RUN = ("--threads=1", "--max-new-tokens=4", "--template=hermes")
FEW = ("gates.min_pairs=20", "gates.max_pairs=20")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("measure_export")
    write_config(directory)
    write_export(directory / "f32", directory / "teacher")
    write_export(directory / "f16", directory / "teacher", half=True)
    return directory


measure = partial(run_on_model, "measure")
evaluate = partial(run_on_model, "eval")


EQUAL = {name: {"status": "passed"} for name in ("weights", "logits", "prompt", "calls")}


def with_parity(export: Path, folder: Path, **statuses: str) -> Path:
    """A copy of an export, whose checks ended so."""
    copy = shutil.copytree(export, folder)
    parity = EQUAL | {name: {"status": status} for name, status in statuses.items()}
    document = read(copy / "manifest.json") | {"parity": parity}
    (copy / "manifest.json").write_text(json.dumps(document))
    return copy


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def gate(folder: Path, candidate: str, blessed: str, *arguments: str | Path) -> int:
    models = ("--candidate", folder / candidate, "--blessed", folder / blessed)
    return exit_code("gate", *models, "--prompts", folder / "validation.jsonl", *RUN, *arguments)


def test_a_report_says_that_an_export_ran(folder: Path, tmp_path: Path) -> None:
    torch, export = tmp_path / "torch.json", tmp_path / "export.json"
    assert measure(folder, torch, "--limit=3") == 0
    assert measure(folder, export, "--limit=3", model=folder / "f32") == 0
    one, other = read_speed_report(torch), read_speed_report(export)
    assert (one["export"], other["export"]) == (False, True)
    assert other["hardware"]["key"].endswith("/ 1 threads / cpu / gguf / llama.cpp")
    assert "xllamacpp" in other["hardware"]["versions"]
    assert [prompt["text"] for prompt in one["prompts"]] == [prompt["text"] for prompt in other["prompts"]]
    assert one["decoding"] == other["decoding"]
    assert one["fingerprints"]["prompts"] == other["fingerprints"]["prompts"]
    assert one["fingerprints"]["model"] != other["fingerprints"]["model"]


def test_a_measurement_in_pytorch_is_never_compared_with_one_of_an_export(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [tmp_path / "torch.json", tmp_path / "export.json"]
    assert measure(folder, reports[0], "--limit=3") == 0
    assert measure(folder, reports[1], "--limit=3", model=folder / "f32") == 0
    for further, reason in (((), "hardware_mismatch"), (("--allow-cross-hardware",), "export_mismatch")):
        result = tmp_path / "gates.json"
        sides = ("--candidate-report", reports[1], "--baseline", reports[0])
        exit_code("gate", *sides, "--json", result, "gates.enabled=[ttft_p50]", *further)
        decision = GateReport.from_json(read(result))["ttft_p50"]
        assert (decision.status, decision.reason.partition(":")[0]) == ("skipped", reason)
    for model in (
        ("--candidate", "f32", "--blessed", "teacher"),
        ("--candidate", "teacher", "--blessed", "f32"),
    ):
        capsys.readouterr()
        fails(capsys, gate(folder, model[1], model[3]), "do not compare", "kdfast export", "teacher")


@pytest.mark.slow  # a model against itself and another: 1 s
def test_an_export_takes_the_place_of_another(folder: Path, tmp_path: Path) -> None:
    baseline, result = tmp_path / "baseline.json", tmp_path / "gates.json"
    prompts = ("--prompts", folder / "validation.jsonl")
    assert exit_code("bless", folder / "f32", *prompts, "--out", baseline, *RUN, *FEW) == 0
    assert read(baseline)["hardware"]["key"].endswith("gguf / llama.cpp")
    enabled = "gates.enabled=[ttft_p50,tps_p50,false_call_rate]"
    options = ("--json", result, "--baseline", baseline, "--reports", tmp_path / "reports", enabled, *FEW)
    assert gate(folder, "f16", "f32", *options) in (0, 3)  # the noise decides which
    decided = GateReport.from_json(read(result))
    assert decided["false_call_rate"].status == "passed"
    for name in ("ttft_p50", "tps_p50"):
        assert decided[name].status != "skipped"
        assert decided[name].reason.startswith("paired: ")
    reports = [read_speed_report(tmp_path / "reports" / f"{side}.json") for side in ("candidate", "blessed")]
    assert [report["export"] for report in reports] == [True, True]


def test_an_evaluation_of_an_export_is_that_of_its_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "torch.json", tmp_path / "export.json"
    assert evaluate(folder, one) == 0
    assert evaluate(folder, other, model=folder / "f32") == 0
    torch, export = read(one), read(other)
    assert (torch["export"], export["export"]) == (False, True)
    assert (export["decoding"]["batch_size"], export["decoding"]["dtype"]) == (1, "gguf")
    own = {"evaluated_at", "export", "model", "fingerprints", "generation_s", "decoding"}
    assert {key: value for key, value in torch.items() if key not in own} == {
        key: value for key, value in export.items() if key not in own
    }
    fails(
        capsys,
        evaluate(folder, other, "--constrained", model=folder / "f32"),
        "--constrained: an export answers",
    )


def test_what_users_get_wrong(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export, out = folder / "f32", tmp_path / "report.json"
    refused = partial(fails, capsys)
    named = export / "student-f32.gguf"
    refused(measure(folder, out, model=named), "this is a file of an export; name the folder", str(export))
    refused(exit_code("measure", named, "--out", out), "this is a file of an export; name the folder")
    refused(exit_code("measure", export, "--out", out), "Missing option '--prompts'")
    refused(
        measure(folder, out, "--dtype=bf16", model=export),
        "--dtype: an export runs with the numbers of its file",
    )
    refused(
        measure(folder, out, "--max-new-tokens=5000", model=export),
        "validation.jsonl:1: the prompt has",
        "1024",
    )
    broken = shutil.copytree(export, tmp_path / "broken")
    (broken / "manifest.json").write_text((broken / "manifest.json").read_text()[:60])
    refused(
        measure(folder, out, model=broken), "manifest.json: not a readable export manifest", "kdfast export"
    )
    bare = shutil.copytree(export, tmp_path / "bare")
    (bare / "manifest.json").unlink()
    refused(
        measure(folder, out, model=bare), "has a .gguf file and no manifest.json", "kdfast export", "bare"
    )
    cut = shutil.copytree(export, tmp_path / "cut")
    (cut / "student-f32.gguf").write_bytes((cut / "student-f32.gguf").read_bytes()[:5000])
    refused(measure(folder, out, model=cut), "student-f32.gguf: not as it was exported", "got 5000")
    assert not out.exists()


def test_an_export_that_failed_takes_nobodys_place(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = with_parity(folder / "f32", tmp_path / "f32.failed", prompt="failed")
    named = "this export differs from what was trained: prompt; mend the cause and export again"
    prompts = ("--prompts", folder / "validation.jsonl")
    out = tmp_path / "out.json"
    fails(capsys, exit_code("bless", failed, *prompts, "--out", out, *RUN), named, str(failed))
    fails(capsys, gate(folder, str(failed), "f16"), f"candidate: {named}", str(failed))
    fails(capsys, gate(folder, "f16", str(failed)), f"blessed: {named}", str(failed))
    assert not out.exists()


def test_an_export_that_failed_or_was_not_compared_says_so_when_it_runs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = with_parity(folder / "f32", tmp_path / "f32.failed", prompt="failed")
    equal = with_parity(folder / "f32", tmp_path / "f32")
    told = {
        failed: ["this export differs from what was trained: prompt; do not ship it"],
        folder / "f32": [
            "this export was not compared with what was trained: weights, logits, prompt, calls"
        ],
        equal: [],
        folder / "teacher": [],
    }
    for model, lines in told.items():
        for number, run in enumerate((measure, evaluate)):
            capsys.readouterr()
            assert run(folder, tmp_path / f"{number}.json", "--limit=1", model=model) == 0
            out = capsys.readouterr().out
            found = [line.split(maxsplit=1) for line in out.splitlines() if "warning" in line]
            assert found == [["warning", line] for line in lines]


def test_an_export_for_hugging_face_runs_in_pytorch(folder: Path, tmp_path: Path) -> None:
    export = shutil.copytree(folder / "teacher", tmp_path / "hf")
    manifest = {"schema_version": "1.0", "kind": "kdfast.export", "target": "hf"}
    (export / "manifest.json").write_text(json.dumps(manifest))
    assert measure(folder, tmp_path / "hf.json", "--limit=1", "--dtype=bf16", model=export) == 0
    report = read_speed_report(tmp_path / "hf.json")
    assert (report["export"], report["hardware"]["dtype"]) == (False, "bf16")


def test_text_of_special_tokens_has_room(folder: Path, tmp_path: Path) -> None:
    """In the row of a record such text is many tokens, in the text that is measured it is one each."""
    record = json.loads((folder / "validation.jsonl").read_text().splitlines()[0])
    record["messages"][0]["content"] = "<|im_end|>" * 30
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps(record))
    for run, name in ((measure, "measured.json"), (evaluate, "evaluated.json")):
        assert run(folder, tmp_path / name, model=folder / "f32", prompts=prompts) == 0
    assert read(tmp_path / "evaluated.json")["answers"][0]["tokens"] == 4
