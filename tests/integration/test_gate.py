"""`kdfast gate` and `kdfast bless` on models, runs, files, and on what users get wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from commands import exit_code
from model_commands import fails, write_nan_model
from tiny import write_tokenizer
from tiny_run import write_config

from kdfast.gates import GateReport, load_baseline_speed_metrics
from kdfast.speed import read_speed_report

pytestmark = pytest.mark.slow  # a model is run for each case: 13 s

FEW = ("gates.min_pairs=20", "gates.max_pairs=20")
QUALITY = "gates.enabled=[false_call_rate]"  # a random student calls nothing: its F1 is 0
RUN = ("--device=cpu", "--threads=1", "--max-new-tokens=4", "--template=hermes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gate")
    write_config(directory)
    return directory


@pytest.fixture(scope="module")
def blessed(folder: Path) -> Path:
    """The baseline bundle of the tiny teacher."""
    out = folder / "made" / "baseline.json"
    prompts = folder / "validation.jsonl"
    assert exit_code("bless", folder / "teacher", "--prompts", prompts, "--out", out, *RUN, *FEW) == 0
    return out


def gate(folder: Path, *arguments: str | Path, candidate: Path | None = None) -> int:
    model = ("--candidate", candidate or folder / "teacher")
    prompts = ("--prompts", folder / "validation.jsonl")
    return exit_code("gate", *model, *prompts, *RUN, *arguments)


def changed(report: Path, out: Path, **changes: Any) -> Path:
    """A copy of a JSON file; `changes` are `section__key=value`."""
    document = json.loads(report.read_text())
    for name, value in changes.items():
        section, key = name.split("__")
        document[section][key] = value
    out.write_text(json.dumps(document))
    return out


# ------------------------------------------------------------------ two models


def test_a_model_against_itself(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = gate(
        folder,
        "--blessed",
        folder / "teacher",
        *("--json", tmp_path / "new" / "gates.json"),
        *("--junit", tmp_path / "new" / "gates.xml"),
        *("--reports", tmp_path / "reports"),
        "gates.enabled=[ttft_p50,ttft_p95,tps_p50,tps_p95,ttfa_p95,f1,false_call_rate]",
        *FEW,
    )
    shown = capsys.readouterr().out
    assert "pairs 20/20" in shown
    assert "Gates: failed" in shown
    document = json.loads((tmp_path / "new" / "gates.json").read_text())
    report = GateReport.from_json(document)
    assert code == report.exit_code == 3
    assert report["f1"].reason == "f1 is 0: no call was right"
    assert (report["false_call_rate"].status, report["false_call_rate"].value) == ("passed", 0.0)
    for name in ("ttft_p50", "tps_p50"):
        assert report[name].reason.startswith("paired: ")
        assert report[name].status in ("passed", "inconclusive")
        assert report[name].value > 0
    assert (
        report["ttft_p95"].status == report["tps_p95"].status == "report_only"
    )  # 20 pairs say nothing of a tail
    assert document["context"]["paired"]["ttft"]["pairs"] in (20, 40)
    names = [case.get("name") for case in ET.parse(tmp_path / "new" / "gates.xml").iter("testcase")]  # noqa: S314
    assert names == [result.name for result in report.results]
    candidate, old = (
        read_speed_report(tmp_path / "reports" / f"{name}.json") for name in ("candidate", "blessed")
    )
    assert (
        candidate["fingerprints"] == old["fingerprints"] == document["context"]["candidate"]["fingerprints"]
    )
    assert [prompt["text"] for prompt in candidate["prompts"]] == [
        prompt["text"] for prompt in old["prompts"]
    ]
    assert len(candidate["prompts"]) == 12
    assert candidate["quality"]["f1"]["value"] == 0.0


def test_without_a_gate_of_time_no_pair_is_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(folder, "--blessed", folder / "teacher", "--limit=12", QUALITY) == 0
    shown = capsys.readouterr().out
    assert "answers 12/12" in shown
    assert "pairs" not in shown
    assert "Gates: passed" in shown


def test_limits_from_a_config_file(folder: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("gates:\n  enabled: [false_call_rate]\n")
    assert gate(folder, "--blessed", folder / "teacher", "--config", limits) == 0
    assert gate(folder, "--blessed", folder / "teacher", "--config", limits, "gates.enabled=[f1]") == 3


def test_fewer_than_ten_prompts_are_refused_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--blessed", folder / "teacher", "--limit=9")
    code = gate(folder, *few, "gates.enabled=[ttft_p50]")
    fails(capsys, code, "validation.jsonl: times are judged on at least 10 prompts", "got 9")
    out = ("--prompts", folder / "validation.jsonl", "--out", tmp_path / "b.json")
    code = exit_code("bless", folder / "teacher", *out, *RUN, "--limit=9")
    fails(capsys, code, "times are judged on at least 10 prompts", "got 9")
    # where no pair is run they are enough
    assert gate(folder, *few, QUALITY) == 0
    assert gate(folder, "--limit=9", "gates.enabled=[ttft_p50]") == 0


def test_a_run_folder_as_candidate(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copyfile(folder / "config.yaml", run / "config.yaml")
    (run / "student").symlink_to(folder / "teacher", target_is_directory=True)
    models = ("--candidate", run, "--blessed", folder / "teacher")
    kept = ("--reports", tmp_path / "reports")
    assert exit_code("gate", *models, *RUN, *kept, QUALITY) == 0  # on the run's own data.validation
    own = read_speed_report(tmp_path / "reports" / "candidate.json")
    assert gate(folder, "--blessed", folder / "teacher", *kept, QUALITY, candidate=run) == 0
    named = read_speed_report(tmp_path / "reports" / "candidate.json")
    assert own["fingerprints"] == named["fingerprints"]


# ------------------------------------------------------------------ a baseline


def test_the_bundle_of_a_blessed_model(folder: Path, blessed: Path) -> None:
    bundle = load_baseline_speed_metrics(blessed)
    assert bundle is not None
    (report,) = bundle["reports"]
    assert len(report["metrics"]["ttft_ms"]["samples"]) == 12
    known = {"prompts", "truth", "dataset", "model", "tokenizer", "template", "config"}
    assert set(report["fingerprints"]) == known
    assert bundle["fingerprints"] == report["fingerprints"]
    assert bundle["hardware"]["torch_threads"] == 1
    assert report["quality"]["false_call_rate"]["value"] == 0.0
    for name in ("ttft", "tps"):
        noise = bundle["noise_floor"][name]
        assert noise["pairs"] in (20, 40)
        assert noise["prompts"] == 12
        assert noise["sd_log_ratio"] > 0
        assert noise["planned_pairs"] >= 20


def test_bless_shows_the_noise(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b.json"
    prompts = folder / "validation.jsonl"
    code = exit_code(
        "bless", folder / "teacher", "--prompts", prompts, "--out", out, "--limit=11", *RUN, *FEW
    )
    assert code == 0
    shown = capsys.readouterr().out
    assert "noise (A/A)  time to the first token: " in shown
    assert "noise (A/A)  time of a token: " in shown
    # whether the machine was steady just then: what is shown is what the file says
    bundle = load_baseline_speed_metrics(out)
    assert bundle is not None
    for name, label in (("ttft", "time to the first token"), ("tps", "time of a token")):
        told = f"unsteady: in the {label} the model did not pass against itself ("
        assert (told in shown) == (name in bundle["unsteady"])
        assert bundle["unsteady"].get(name, "") in shown
    assert str(out) in shown


def test_a_candidate_alone_against_a_baseline(
    folder: Path, blessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = "gates.enabled=[ttft_p50,tps_p95,false_call_rate]"
    assert gate(folder, "--baseline", blessed, "--json", tmp_path / "gates.json", some) == 0
    assert "its times decide nothing" in capsys.readouterr().out
    report = GateReport.from_json(json.loads((tmp_path / "gates.json").read_text()))
    assert report["ttft_p50"].status == report["tps_p95"].status == "report_only"
    assert report["false_call_rate"].status == "passed"
    # the same by the config's key
    assert gate(folder, some, f"gates.baseline={blessed}") == 0


def test_no_baseline_at_all_skips(folder: Path, tmp_path: Path) -> None:
    some = ("gates.enabled=[ttft_p50,false_call_rate]", "--json", tmp_path / "gates.json")
    assert gate(folder, *some) == 0
    report = GateReport.from_json(json.loads((tmp_path / "gates.json").read_text()))
    assert [(one.status, one.reason) for one in report.results] == [("skipped", "no_baseline")] * 2
    assert gate(folder, *some, "--strict") == 3


def test_other_hardware_is_skipped_unless_allowed(folder: Path, blessed: Path, tmp_path: Path) -> None:
    document = json.loads(blessed.read_text())
    document["reports"][0]["hardware"]["key"] = "another machine"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    some = ("--baseline", other, "gates.enabled=[ttft_p50]", "--json", tmp_path / "gates.json")
    for extra, status in (
        ((), "skipped"),
        (("--allow-cross-hardware",), "report_only"),
        (("--strict",), "failed"),
    ):
        assert gate(folder, *some, *extra) == (3 if status == "failed" else 0)
        result = GateReport.from_json(json.loads((tmp_path / "gates.json").read_text()))["ttft_p50"]
        assert result.status == status
        assert ("hardware_mismatch" in result.reason) == (status != "report_only")


def test_answers_cut_elsewhere_do_not_compare(folder: Path, blessed: Path, tmp_path: Path) -> None:
    some = ("--baseline", blessed, QUALITY, "--json", tmp_path / "gates.json", "--max-new-tokens=5")
    assert gate(folder, *some) == 0
    result = GateReport.from_json(json.loads((tmp_path / "gates.json").read_text()))["false_call_rate"]
    assert (result.status, result.reason) == ("skipped", "decoding_mismatch: max_new_tokens 5 against 4")


def test_the_blessed_model_must_be_the_baselines(
    folder: Path, blessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(folder, "--blessed", folder / "teacher", "--baseline", blessed, QUALITY) == 0
    document = json.loads(blessed.read_text())
    document["reports"][0]["fingerprints"]["model"] = "0" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    code = gate(folder, "--blessed", folder / "teacher", "--baseline", other, QUALITY)
    fails(capsys, code, "blessed: is not the model that the baseline is of", str(folder / "teacher"))


# ------------------------------------------------------------------ reports alone


def test_reports_alone(
    folder: Path, blessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(folder, "--reports", tmp_path, QUALITY)
    report = tmp_path / "candidate.json"
    some = ("gates.enabled=[ttft_p50,false_call_rate]", "--json", tmp_path / "gates.json")
    capsys.readouterr()
    assert exit_code("gate", "--candidate-report", report, "--baseline", blessed, *some) == 0
    assert "report_only" in capsys.readouterr().out
    # six runs a side, taken by turns, decide
    many = six_runs(report, "--candidate-report")
    baselines = six_runs(report, "--baseline")
    assert exit_code("gate", *many, *baselines, *some) == 0
    result = GateReport.from_json(json.loads((tmp_path / "gates.json").read_text()))
    assert result["ttft_p50"].status == "passed"
    slower = six_runs(report, "--candidate-report", by=2.0)
    assert exit_code("gate", *slower, *baselines, *some) == 3


def six_runs(report: Path, option: str, by: float = 1.0) -> list[str | Path]:
    """Arguments that name six reports, each of another moment, `by` times as slow."""
    arguments: list[str | Path] = []
    for number in range(6):
        document = json.loads(report.read_text())
        document["measured_at"] += number
        document["metrics"]["ttft_ms"]["p50"] *= by
        file = report.with_name(f"{option.strip('-')}-{by}-{number}.json")
        file.write_text(json.dumps(document))
        arguments += [option, file]
    return arguments


def test_a_run_counts_once(
    folder: Path, blessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(folder, "--reports", tmp_path, QUALITY)
    report, copy = tmp_path / "candidate.json", tmp_path / "copy.json"
    shutil.copyfile(report, copy)
    other = changed(report, tmp_path / "other.json", fingerprints__model="m")
    later = json.loads(other.read_text()) | {"measured_at": 1.0}
    other.write_text(json.dumps(later))
    some = ("gates.enabled=[ttft_p50]",)
    for files, words in (
        ((report, report), "the same run as in another file; name each run once"),
        ((report, copy), "copy.json: "),
        ((report, other), "fingerprints.model must be the same in all of them"),
    ):
        for one, many, side in (
            ("--baseline", "--candidate-report", "candidate"),
            ("--candidate-report", "--baseline", "baseline"),
        ):
            named = [part for file in files for part in (many, file)]
            capsys.readouterr()
            fails(capsys, exit_code("gate", one, report, *named, *some), side, words)


def test_reports_that_are_none(
    folder: Path, blessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def judged(*files: Path) -> int:
        reports = [part for file in files for part in ("--candidate-report", file)]
        return exit_code("gate", *reports, "--baseline", blessed)

    gate(folder, "--reports", tmp_path, QUALITY)
    report = tmp_path / "candidate.json"
    cut = tmp_path / "cut.json"
    cut.write_text(report.read_text()[:1000])
    nan = tmp_path / "nan.json"
    nan.write_text(report.read_text().replace('"p50":', '"p50": NaN, "was":', 1))
    capsys.readouterr()
    fails(capsys, judged(tmp_path / "none.json"), "none.json", "check the path")
    fails(capsys, judged(cut), "cut.json", "not a readable speed report", "kdfast measure")
    fails(capsys, judged(nan), "nan.json", "NaN is not JSON")
    fails(capsys, judged(blessed), "baseline.json", "kdfast.speed_report")
    against = ("gate", "--candidate-report", report, "--baseline")
    fails(capsys, exit_code(*against, cut), "cut.json", "bless")
    fails(capsys, exit_code(*against, tmp_path / "lost.json"), "lost.json", "check the path")


# ------------------------------------------------------------------ mistakes


def test_models_that_are_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    fails(capsys, gate(folder, candidate=tmp_path / "none"), "candidate: no such directory", "none")
    fails(capsys, gate(folder, candidate=tmp_path / "empty"), "candidate: no readable config.json", "empty")
    fails(capsys, gate(folder, "--blessed", tmp_path / "none"), "blessed: no such directory")
    fails(capsys, gate(folder, "--json", tmp_path), "is a directory", str(tmp_path))
    fails(capsys, gate(folder, "--config", tmp_path / "no.yaml"), "no such config file", "no.yaml")
    fails(capsys, gate(folder, "gates.f1_dorp=0.1"), "gates.f1_dorp: unknown key, did you mean 'f1_drop'?")
    fails(capsys, gate(folder, "gates.enabled=[]"), "gates.enabled: must name at least one gate")
    fails(capsys, gate(folder, "train.seed=1"), "train.seed: only keys of 'gates' mean something here")


def test_nan_logits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nan_model(folder / "teacher", tmp_path / "nan")
    out = ("--json", tmp_path / "gates.json")
    for extra in ((), ("--blessed", folder / "teacher")):
        code = gate(folder, *extra, *out, "--warmup=0", candidate=tmp_path / "nan")
        fails(capsys, code, "cannot be measured", "NaN", str(tmp_path / "nan"))
    code = gate(folder, "--blessed", tmp_path / "nan", *out)
    fails(capsys, code, "cannot be measured", "NaN", str(tmp_path / "nan"))
    assert not (tmp_path / "gates.json").exists()


def test_other_prompts_and_other_tokens(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = (
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'user' %}MARK{% endif %}{{ m.content or '' }}"
        "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    for name, mark in (("one", ""), ("other", "> ")):
        shutil.copytree(folder / "teacher", tmp_path / name)
        settings = json.loads((tmp_path / name / "tokenizer_config.json").read_text())
        settings["chat_template"] = template.replace("MARK", mark)
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(settings))
    pair = ("--blessed", tmp_path / "other")
    code = gate(folder, *pair, "--template=tokenizer", candidate=tmp_path / "one")
    fails(capsys, code, "template: the models' own chat templates", "--template", "line 1 of")
    write_tokenizer(tmp_path / "other", 400)
    code = gate(folder, *pair, candidate=tmp_path / "one")
    fails(capsys, code, "gates.enabled: the tokenizers differ", "leave tps_p50 and tps_p95 out")
    assert gate(folder, *pair, QUALITY, candidate=tmp_path / "one") == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Missing option '--candidate' (or '--candidate-report')."),
        (["--candidate", "."], "Missing option '--prompts' (only a run folder has its own)."),
        (
            ["--candidate-report", "r", "--candidate", "m"],
            "--candidate: means nothing beside --candidate-report, which runs no model",
        ),
        (
            ["--candidate-report", "r", "--prompts", "p"],
            "--prompts: means nothing beside --candidate-report, which runs no model",
        ),
    ],
)
def test_the_form_of_the_command(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("gate", *arguments) == 2
    assert capsys.readouterr().err == f"error: {line} (see kdfast gate --help)\n"
