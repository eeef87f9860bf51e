"""The report document: AIPerf's metric objects, null beside a count of infinities, read back as it was written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from kdfast.errors import DataError
from kdfast.gates import evaluate_speed_gates, load_baseline_speed_metrics
from kdfast.scoring import quality
from kdfast.speed import (
    Metric,
    Provenance,
    SpeedMetrics,
    SpeedOptions,
    SpeedPrompt,
    SpeedSample,
    absences,
    aggregate_speed_metrics,
    describe_hardware,
    headline,
    prompts_fingerprint,
    read_speed_report,
    speed_report,
    write_speed_report,
)

OPTIONS = SpeedOptions(max_new_tokens=64, warmup=2, eos_ids=(7, 3))
AIPERF = [
    "unit",
    "avg",
    "p1",
    "p5",
    "p10",
    "p25",
    "p50",
    "p75",
    "p90",
    "p95",
    "p99",
    "min",
    "max",
    "std",
    "count",
]


def sample(number: int, ttfa: float | None = 20.0, **changes) -> SpeedSample:
    prompt = SpeedPrompt(
        text=f"question {number}",
        needs_call=ttfa is not None,
        shortest_call_tokens=None if ttfa is None else 15,
        shape=64 if number % 2 else 128,
        line=number,
    )
    values = {
        "prompt": prompt, "prompt_tokens": 10 + number, "ids": (1, 2, 3), "text": "<b>", "ended": True,
        "tokenise_ms": 1.0, "prefill_ms": 20.0 + number, "first_token_ms": 2.0, "itl_ms": (8.0, 12.0),
        "ttfa_tokens": ttfa, "ttfa_name_tokens": ttfa, "ttfa_ms": ttfa,
    }  # fmt: skip
    return SpeedSample(**{**values, **changes})


def provenance(**changes) -> Provenance:
    hardware = describe_hardware(torch.device("cpu"), torch.float32)
    prints = {"prompts": "p", "model": "m"}
    return Provenance(**{"hardware": hardware, "measured_at": 12.5, "fingerprints": prints, **changes})


@pytest.fixture
def samples() -> list[SpeedSample]:
    return [sample(1), sample(2, math.inf), sample(3, None), sample(4, 30.0)]


def test_the_shape_of_a_report(samples) -> None:
    report = speed_report(samples, OPTIONS, provenance())
    json.dumps(report, allow_nan=False)
    assert (report["schema_version"], report["kind"]) == ("1.0", "kdfast.speed_report")
    assert (report["export"], report["measured_at"]) == (False, 12.5)
    assert report["hardware"]["key"] == provenance().hardware.key
    assert report["fingerprints"] == {"prompts": "p", "model": "m"}
    assert report["decoding"] == {
        "mode": "free", "sampling": "greedy", "batch_size": 1, "max_new_tokens": 64, "warmup": 2,
        "formats": ["hermes"], "eos_ids": [3, 7],
    }  # fmt: skip
    for name, metric in report["metrics"].items():
        cut = ["cut"] if name.startswith("ttfa") else []
        assert list(metric) == [*AIPERF, "infinite", *cut, "samples"]
    assert report["metrics"]["ttft_ms"]["samples"] == [24.0, 25.0, 26.0, 27.0]
    assert report["metrics"]["tps"]["p50"] == 100.0
    ttfa = report["metrics"]["ttfa_tokens"]
    assert (ttfa["p50"], ttfa["p95"], ttfa["count"], ttfa["infinite"]) == (30.0, None, 3, 1)
    assert ttfa["samples"] == [20.0, None, 30.0]
    assert report["metrics"]["ttfa_overhead_tokens"]["samples"] == [5.0, None, 15.0]
    assert (report["shortest_call_tokens"]["p95"], report["shortest_call_tokens"]["count"]) == (15.0, 3)
    assert report["absent"] == {"quality": "not measured with the speed"}


def test_raw_samples_are_kept_prompt_by_prompt(samples) -> None:
    report = speed_report(samples, OPTIONS, provenance())
    first, second, third, _ = report["prompts"]
    assert (first["line"], first["shape"], first["ttft_ms"], first["tpot_ms"]) == (1, 64, 24.0, 10.0)
    assert first["fingerprint"] == prompts_fingerprint([samples[0].prompt])
    assert (first["ttfa_tokens"], second["ttfa_tokens"], third["needs_call"]) == (20.0, None, False)
    assert "ttfa_tokens" not in third
    # the latencies of one prompt are found in the metric's: each prompt has one fewer than it has tokens
    counts = [int(prompt["output_tokens"]) - 1 for prompt in report["prompts"]]
    assert report["metrics"]["itl_ms"]["samples"] == [8.0, 12.0] * 4
    assert counts == [2, 2, 2, 2]


def test_what_was_cut_is_counted() -> None:
    never, cut = sample(1, math.inf), sample(2, math.inf, ended=False)
    acted, silent = sample(3, 20.0, ended=False), sample(4, None, ended=False)
    assert [one.cut for one in (never, cut, acted, silent)] == [False, True, False, False]
    report = speed_report([never, cut, acted, silent], OPTIONS, provenance())
    for name in ("ttfa_tokens", "ttfa_name_tokens", "ttfa_overhead_tokens", "ttfa_ms"):
        found = report["metrics"][name]
        assert (found["count"], found["infinite"], found["cut"], found["p95"]) == (3, 2, 1, None)
    assert report["shapes"]["128"]["metrics"]["ttfa_tokens"]["cut"] == 1
    assert report["shapes"]["64"]["metrics"]["ttfa_tokens"]["cut"] == 0


@pytest.mark.parametrize(
    ("infinite", "cut", "never", "word"),
    [
        (2, 0, 2, "never"),
        (2, 2, 0, "cut"),
        (2, 1, 1, "no call"),
        (2, None, 2, "never"),
        (0, 0, 0, "never"),
    ],
)
def test_never_and_cut(infinite: int, cut: int | None, never: int, word: str) -> None:
    metric = Metric("tokens", [1.0] + [math.inf] * infinite, cut)
    assert (metric.never, metric.infinite_word) == (never, word)
    with pytest.raises(ValueError, match="cut must be from 0 to the infinite samples"):
        Metric("tokens", [1.0] + [math.inf] * infinite, infinite + 1)


def test_mappings_do_not_say_what_was_cut() -> None:
    assert aggregate_speed_metrics([sample(1, math.inf, ended=False)])["ttfa_tokens"].cut == 1
    assert aggregate_speed_metrics([sample(1), {"ttfa_tokens": math.inf}])["ttfa_tokens"].cut is None
    assert "cut" not in aggregate_speed_metrics([{"ttfa_tokens": math.inf}])["ttfa_tokens"].to_json()


def test_slices_by_shape(samples) -> None:
    shapes = speed_report(samples, OPTIONS, provenance())["shapes"]
    assert list(shapes) == ["64", "128"]
    assert shapes["64"]["metrics"]["ttft_ms"]["avg"] == 25.0
    assert shapes["128"]["metrics"]["ttfa_tokens"]["infinite"] == 1
    assert "samples" not in shapes["64"]["metrics"]["ttft_ms"]


def test_quality_and_failure(samples) -> None:
    quality = {"f1": {"value": 0.5}}
    report = speed_report(samples, OPTIONS, provenance(export=True, step=7), quality=quality)
    assert (report["quality"], report["absent"], report["export"], report["step"]) == (quality, {}, True, 7)
    failed = speed_report([], OPTIONS, provenance(), failure="RuntimeError: no memory")
    assert failed["metrics"] == {}
    assert failed["absent"]["quality"] == "RuntimeError: no memory"
    assert failed["absent"]["ttft_ms"] == "RuntimeError: no memory"
    assert "shortest_call_tokens" not in failed


def test_what_is_absent_from_the_quality_is_absent_from_the_report_for_the_same_reason(samples) -> None:
    section = quality([one.score() for one in samples[:2]])
    assert section["absent"] == {
        "precision": "no call was made",
        "false_call_rate": "every prompt needs a call",
    }
    report = speed_report(samples, OPTIONS, provenance(), quality=section)
    assert report["absent"] == section["absent"]
    assert set(report["quality"]) == {"f1", "recall", "missed_call_rate", "broken_call_rate"}
    gate = evaluate_speed_gates(report, None)["false_call_rate"]
    assert gate.reason.startswith("missing: false_call_rate (every prompt needs a call)")


def test_an_answer_is_scored_against_the_prompt(samples) -> None:
    call = '<tool_call>{"name": "f", "arguments": {"n": 2}}</tool_call>'
    accepted = [{"f": {"n": [1, 2]}}]

    def scored(**prompt):
        return sample(1, text=call, prompt=SpeedPrompt(text="x", needs_call=True, **prompt)).score()

    assert scored(accepted=accepted).exact_match
    assert scored(reference=call).exact_match
    assert not scored(reference=call.replace("2", "1")).exact_match
    assert scored(reference=call.replace("2", "1"), accepted=accepted).calls_right == 1
    assert not scored(accepted=accepted, tools='[{"name": "g", "parameters": {}}]').schema_valid


def test_a_report_is_read_back_as_it_was_written(samples, tmp_path: Path) -> None:
    report = speed_report(samples, OPTIONS, provenance())
    file = tmp_path / "new" / "report.json"
    write_speed_report(file, report)
    assert read_speed_report(file) == json.loads(json.dumps(report))
    assert [path.name for path in file.parent.iterdir()] == ["report.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_speed_report(file, {"metrics": {"tps": math.nan}})
    assert read_speed_report(file)["kind"] == "kdfast.speed_report"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"kind": "kdfast.speed_report", "metr', "not a readable speed report"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"\xff\xfe", "utf-8"),
        (b"[]", "must be an object, got list"),
        (b"{}", "kind must be 'kdfast.speed_report', got None"),
        (
            b'{"kind": "kdfast.speed_report", "schema_version": "2.0"}',
            "schema_version must be '1.0', got '2.0'",
        ),
        (
            b'{"kind": "kdfast.speed_report", "schema_version": "1.3"}',
            "'metrics' must be an object, got None",
        ),
    ],
    ids=["empty", "truncated", "NaN", "not UTF-8", "list", "another", "version", "no metrics"],
)
def test_damaged_reports(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"report\.json: .*measure again") as caught:
        read_speed_report(file)
    assert reason in str(caught.value)


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_speed_report(tmp_path / "none.json")


def test_the_gates_read_it(samples, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    write_speed_report(file, speed_report(samples, OPTIONS, provenance()))
    baseline = load_baseline_speed_metrics(file)
    gates = evaluate_speed_gates(read_speed_report(file), baseline)
    assert gates["ttft_p50"].value == 25.0
    assert gates["ttft_p50"].status == "report_only"  # one run a side decides nothing
    assert gates["ttfa_p95"].reason == "ttfa_tokens p95 is infinite; prompts without a valid call: 1"
    assert gates["f1"].reason.startswith("missing: f1 (not measured with the speed)")
    failed = speed_report([], OPTIONS, provenance(), failure="RuntimeError: no memory")
    gate = evaluate_speed_gates(failed, baseline)["ttft_p50"]
    assert (gate.status, gate.reason) == ("failed", "missing: ttft_ms (RuntimeError: no memory)")


# for people and logs


def test_headline_has_the_slow_tail_of_each_metric(samples) -> None:
    values = headline(aggregate_speed_metrics(samples))
    assert (values["ttft_ms.p50"], values["ttft_ms.p90"], values["ttft_ms.p95"]) == (25.0, 27.0, 27.0)
    assert "tps.p5" in values
    assert "tps.p95" not in values
    assert (values["ttfa_tokens.p95"], values["ttfa_tokens.infinite"], values["ttfa_tokens.count"]) == (
        math.inf,
        1,
        3,
    )


def test_absences_are_told_by_reason() -> None:
    assert absences(SpeedMetrics(metrics={}, absent={"tps": "a [b]", "itl_ms": "a [b]", "ttfa_ms": "c"})) == [
        "not measured: tps, itl_ms: a \\[b]",
        "not measured: ttfa_ms: c",
    ]
