"""A whole small run with every speed feature on: a teacher's server with faults, the loop, QAT, checkpoints, gates.

The numbers are compared with slow twins: from weights that a callback kept, transformers in float64 gives the logits.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from qat_runs import Fault, assert_same_run, lines, not_a_number, stop_at, too_large_for_fp16, weights
from safetensors.torch import load_file
from speed_feature_runs import (
    FAULTS,
    KD,
    KEY,
    LOST,
    QAT_FROM,
    STEPS,
    TERMS,
    Project,
    Recorder,
    Said,
    Whole,
    faults,
    lowest_cosine,
    question,
    teach,
    write_prompts,
)

import kdfast
from kdfast.errors import DivergedError
from kdfast.gates import GateReport
from kdfast.gates.baseline import baseline_bundle, write_baseline
from kdfast.quantized import quantize, read_table
from kdfast.recipes.train.result import TrainResult
from kdfast.runs.checkpoint import load_checkpoint, read_state
from kdfast.student import load_student
from kdfast.teacher.api.fake_server import FakeServer, by_index
from kdfast.teacher.api.journal import Verdict

pytestmark = pytest.mark.slow

VALIDATED = [0, 3, 6, 9, 12]
TIMES = ("ttft_p50", "ttft_p95", "tps_p50", "tps_p95")
RATES = ("false_call_rate", "missed_call_rate")


@dataclass(frozen=True)
class Taught:
    """The first and the second time that a teacher was asked: what it said, wrote and how often the server was asked."""

    project: Project
    said: tuple[Said, Said]
    written: tuple[bytes, bytes]
    seen: tuple[Counter[str], Counter[str]]
    texts: Counter[str]
    behaviours: Counter[str]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Answers fetched from a server that fails most first tries, and then scored by a local teacher."""
    project = Project.write(tmp_path_factory.mktemp("features"), prompts=15)
    chosen, asked = faults(FAULTS, {LOST: "truncated_json"}), []
    with pytest.MonkeyPatch.context() as patch, FakeServer(chosen, wait_s=0.01) as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        for _ in range(2):
            asked.append((teach(project.asking(server)), project.out.read_bytes(), Counter(server.seen)))
    scored = teach(project.config())
    assert scored.code == 0, scored.text
    said, written, seen = zip(*asked, strict=True)
    return Taught(project, said, written, seen, server.texts, server.behaviours)


@pytest.fixture(scope="module")
def whole(taught: Taught) -> Whole:
    recorder, config = Recorder(), taught.project.config()
    return Whole(
        taught.project, config.io.run_dir, kdfast.train(config, callbacks=[recorder]), recorder=recorder
    )


@pytest.fixture(scope="module")
def resumed(whole: Whole) -> tuple[Path, TrainResult]:
    """The same run, stopped before and in the phase under quantisation; at its end it knows a blessed student."""
    path, blessed = whole.project.path / "resumed", whole.project.path / "blessed.json"
    own = f"io.run_dir={path}"
    for number, step in enumerate((4, 8)):
        stopped = kdfast.train(whole.project.config(own), resume=number > 0, callbacks=[stop_at(step)])
        assert (stopped.exit_code, stopped.step) == (130, step)
    report = json.loads((whole.path / "speed.json").read_text())
    report["fingerprints"]["model"] = "blessed"
    write_baseline(blessed, baseline_bundle([report]))
    gated = whole.project.config(own, f"gates.baseline={blessed}", "train.fail_on_gate=true")
    return path, kdfast.train(gated, resume=True)


@dataclass(frozen=True)
class Disturbed:
    """A run into which NaN came after step 4, infinity after step 5, and after step 8 what 4 bits cannot hold."""

    path: Path
    errors: list[str]
    result: TrainResult


def infinite(student: Any) -> None:
    student.model.norm.weight[0] = math.inf


@pytest.fixture(scope="module")
def disturbed(whole: Whole) -> Disturbed:
    path = whole.project.path / "disturbed"
    config, errors = whole.project.config(f"io.run_dir={path}"), []
    for number, fault in enumerate((Fault(4, not_a_number), Fault(5, infinite))):
        with pytest.raises(DivergedError) as caught:
            kdfast.train(config, resume=number > 0, callbacks=[fault])
        errors.append(str(caught.value))
        assert [line["step"] for line in lines(path, "train")] == list(range(1, fault.step + 1))
    return Disturbed(
        path, errors, kdfast.train(config, resume=True, callbacks=[Fault(8, too_large_for_fp16)])
    )


# ------------------------------------------------------------------------------------ the teacher's answers


def test_every_answer_comes_through_faults_and_is_paid_once(taught: Taught) -> None:
    assert [one.code for one in taught.said] == [0, 0], taught.said[0].text
    for number in range(15):
        whole_at_once = FAULTS.get(number, "ok") in ("ok", "gzip", "reset_after_body")
        tries = sum(count for text, count in taught.texts.items() if text.endswith(question(number)))
        assert tries == (1 if whole_at_once else 2), number
    assert all(taught.behaviours[name] == 1 for name in (*FAULTS.values(), "truncated_json"))
    # what the server saw is what the journal has: 9 of these 11 are tried again, and nothing else
    ledger, seen = taught.project.ledger, taught.seen[0]
    assert seen.total() == ledger.states.total() == 15 + 9
    assert (len(seen), len(ledger.answers)) == (15, 15)
    assert ledger.states["unknown"] == 4  # reset, truncated_body, close, cut_chunks
    # an answer costs its tokens; an unknown outcome and an answer that is cut cost their worst case, a refusal nothing
    costs = []
    for one in ledger.answers:
        if one.order == LOST:
            assert (one.cost_micro, one.verdict) == (None, Verdict("failed", "invalid_json"))
            continue
        usage = json.loads(one.body)["usage"]
        costs.append(usage["prompt_tokens"] + 2 * usage["completion_tokens"])
        assert one.cost_micro == costs[-1]
    assert len(costs) == 14
    assert ledger.charged == sum(costs) + ledger.worst
    # asked again, nobody is
    assert taught.seen[1] == seen
    assert taught.written[1] == taught.written[0]
    kept = b"".join(path.read_bytes() for path in taught.project.path.rglob("*") if path.is_file())
    assert KEY.encode() not in kept
    assert KEY not in taught.said[0].text + taught.said[1].text


def test_the_answers_are_those_of_the_server(taught: Taught) -> None:
    prompts = [json.loads(line) for line in taught.project.prompts.read_text().splitlines()]
    for record, prompt in zip(taught.project.records(), prompts[:14], strict=True):
        asked, message = prompt["messages"][-1]["content"], record["teacher_message"]
        if "tools" in prompt:
            (call,) = message["tool_calls"]
            assert call["function"] == {"name": "get_weather", "arguments": {"city": asked}}
        else:
            assert message["content"] == f"echo: {asked}"
        assert record["truth_message"] == prompt["truth_message"]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose teacher was not asked yet: 8 prompts."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return Project.write(tmp_path, prompts=8)


def test_teacher_api_failures_server_down(fresh: Project) -> None:
    with FakeServer() as server:
        pass
    nobody = teach(fresh.asking(server))  # nobody listens on its port any more
    assert (nobody.code, fresh.out.exists()) == (5, False)
    assert "no server takes connections" in nobody.text
    assert "api.base_url" in nobody.text
    overloaded = threading.Event()
    with FakeServer(lambda _: "error_503" if overloaded.is_set() else "ok") as server:
        assert teach(fresh.asking(server), limit=3).code == 0
        before = fresh.records()
        assert (server.seen.total(), len(before)) == (3, 3)
        overloaded.set()
        failed = teach(fresh.asking(server, "teacher.max_retries=0"))
        assert (failed.code, server.seen.total()) == (5, 3 + 5)
        assert "5 requests have no answer (HTTP status 503" in failed.text
        assert fresh.records() == before
        overloaded.clear()
        assert teach(fresh.asking(server)).code == 0
        assert server.seen.total() == 3 + 5 + 5
    assert [one for one in fresh.records() if one in before] == before
    answers = fresh.out.read_bytes()
    assert teach(fresh.asking(server)).code == 0  # without a server, all are answered
    write_prompts(fresh.prompts, range(9))
    assert teach(fresh.asking(server)).code == 5  # and one more prompt costs none of them
    assert fresh.out.read_bytes() == answers


def test_teacher_api_failures_key_refused(fresh: Project) -> None:
    with FakeServer(by_index(["unauthorised"] * 9)) as server:
        refused = teach(fresh.asking(server, "api.concurrency=1"))
        assert (refused.code, server.seen.total()) == (5, 1)
    assert "Incorrect API key" in refused.text
    assert KEY not in refused.text  # the server repeats it
    assert KEY.encode() not in b"".join(path.read_bytes() for path in fresh.path.glob("answers*"))
    assert fresh.ledger.charged == 0
    with FakeServer() as mended:
        assert teach(fresh.asking(mended)).code == 0
    assert len(fresh.records()) == 8


def test_teacher_api_failures_budget_reached(fresh: Project) -> None:
    with FakeServer() as server:
        poor = fresh.asking(server, "teacher.budget=0.002", "api.concurrency=1")
        reached = teach(poor)
        asked = server.seen.total()
        assert reached.code == 5
        assert "raise teacher.budget, then go on with" in reached.text
        assert 0 < asked == len(fresh.records()) < 8
        assert 0 < fresh.ledger.charged <= 2000
        assert (teach(poor).code, server.seen.total()) == (5, asked)
        assert teach(fresh.asking(server, "teacher.budget=1")).code == 0
        assert server.seen.total() == len(server.seen) == 8
    assert fresh.ledger.charged == sum(one.cost_micro or 0 for one in fresh.ledger.answers)


# ------------------------------------------------------------------------------------------------ the losses


def assert_values(line: dict[str, Any], slow: dict[str, float]) -> None:
    """The line of a step has exactly these terms, with these values."""
    assert {name for name in (*TERMS, "self_kl") if name in line} == set(slow)
    assert {name: line[name] for name in slow} == pytest.approx(slow, rel=2e-5, abs=1e-7)


def test_losses_of_the_first_step(whole: Whole) -> None:
    slow, excess = whole.slow_step(0, whole.model(whole.recorder.weights[0]), hinge_open=False)
    assert_values(whole.train[0], slow)
    assert set(slow) == set(TERMS) - {"early_tool_prior", "early_tool_negative"}  # no row of these kinds
    # answers would be too long, but the length loss waits until the average of a step is known
    assert (slow["length"], excess > 1) == (0, True)
    # a random student knows nothing: each token costs about log V
    assert whole.train[0]["ce_truth"] == pytest.approx(math.log(len(whole.data.pieces())), rel=0.03)


def test_losses_of_the_float_steps(whole: Whole) -> None:
    """From the weights before each update; the average of the length loss is known from the steps before."""
    average, seen = None, set()
    for step in range(QAT_FROM):
        hinge_open = average is not None and average > 0
        slow, excess = whole.slow_step(step, whole.model(whole.recorder.weights[step]), hinge_open=hinge_open)
        assert_values(whole.train[step], slow)
        average = excess if average is None else 0.9 * average + 0.1 * excess
        seen |= {name for name, value in slow.items() if value > 0}
        if step + 1 in whole.recorder.paths:
            state = read_state(whole.recorder.paths[step + 1])
            assert state["terms"]["length"]["average"] == pytest.approx(average, rel=1e-5)
    assert seen == set(TERMS)


def test_losses_under_quantisation(whole: Whole) -> None:
    """The weights are rounded, and the float student of the phase's beginning teaches beside the teacher."""
    later = whole.recorder.weights[QAT_FROM + 3]
    later = later | {name: quantize(later[name], one).dequantize() for name, one in whole.formats.items()}
    earlier = whole.model(whole.recorder.weights[QAT_FROM])
    for step, student in ((QAT_FROM, whole.rounded(QAT_FROM)), (QAT_FROM + 3, later)):
        slow, _ = whole.slow_step(step, whole.model(student), hinge_open=True, earlier=earlier)
        assert slow["self_kl"] > 1e-6
        assert_values(whole.train[step], slow)


def test_weights_of_terms_at_each_step(whole: Whole) -> None:
    for step, line in enumerate(whole.train):
        ramp = min(1.0, step / 4)
        given = {name: KD[f"{name}_weight"] * (ramp if "early" in name else 1) for name in TERMS}
        given |= {"kl": 0.5 + (0.1 - 0.5) * step / (STEPS - 1), "self_kl": 0.25}
        summed = sum(weight * line[name] for name, weight in given.items() if name in line)
        assert line["loss"] == pytest.approx(summed, rel=1e-6), step
    assert [("self_kl" in line) for line in whole.train] == [step >= QAT_FROM for step in range(STEPS)]


# --------------------------------------------------------------------------------------------------- the run


def test_small_run_of_16_records(whole: Whole) -> None:
    rows = list(map(whole.data.store.row, whole.data.rows.tolist()))
    assert Counter(row["source"] for row in rows) == {0: 16, 1: 14}  # two records have no truth
    assert (whole.result.exit_code, whole.result.step, whole.result.qat) == (0, STEPS, "done")
    assert [line["step"] for line in whole.train if line["length"] > 0] == list(range(2, STEPS + 1))
    assert sum(line.get("early_tool_ce", 0) > 0 for line in whole.train) >= 6
    assert {line["shape"] for line in whole.train} == {128, 320, 384}


def test_metrics_logged(whole: Whole) -> None:
    assert [line["step"] for line in whole.train] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines(whole.path, "validation")] == VALIDATED
    assert [line["step"] for line in lines(whole.path, "speed")] == [0, 6, 12]
    assert not [line for line in (*whole.train, *lines(whole.path, "validation")) if "not_finite" in line]
    for step, line in enumerate(whole.train):
        shape, rows = whole.plan(step)
        assert (line["shape"], line["tokens"]) == (shape, sum(int(whole.data.lengths[row]) for row in rows))
        smaller = max((one for one in (128, 320) if one < shape), default=0)
        assert all(smaller < whole.data.lengths[row] <= shape for row in rows)
        assert line["learning_rate"] == pytest.approx(expected_rate(step), rel=1e-9), step
        assert 0 < line["grad_norm"] < 100


def expected_rate(step: int) -> float:
    """The schedule by hand: two steps of warm-up and a cosine to a tenth; under quantisation a cosine to 0."""
    if step < 2:
        return 3e-3 * (step + 1) / 2
    if step < QAT_FROM:
        return 3e-4 + (3e-3 - 3e-4) * (1 + math.cos(math.pi * (step - 2) / (STEPS - 3))) / 2
    done = step - QAT_FROM
    return 1e-3 * (done + 1) / 2 if done < 2 else 1e-3 * (1 + math.cos(math.pi * (done - 2) / 4)) / 2


def test_checkpoints_saved(whole: Whole) -> None:
    assert {path.name for path in (whole.path / "checkpoints").iterdir()} == {
        "step_3", "step_6", "step_9", "step_12",
    }  # fmt: skip
    for step, path in whole.recorder.paths.items():
        student, kept = load_student(path), whole.recorder.weights[step]
        loaded = student.state_dict()
        assert loaded.keys() == kept.keys()
        assert all(torch.equal(loaded[name], kept[name]) for name in kept), step
        optimizer = torch.optim.AdamW(student.parameters())
        state = load_checkpoint(path, student, optimizer)
        assert {int(one["step"]) for one in optimizer.state.values()} == {step}
        drawn = Counter(whole.plan(earlier)[0] for earlier in range(step))
        assert state["sampler"]["cursors"] == [4 * drawn[shape] for shape in (128, 320, 384)]
        assert (state["step"], state["tokens"]) == (step, sum(one["tokens"] for one in whole.train[:step]))


def test_stopped_and_resumed_it_is_the_same_run(whole: Whole, resumed: tuple[Path, TrainResult]) -> None:
    path, result = resumed
    assert (result.step, result.qat) == (STEPS, "done")
    assert_same_run(path, whole.path)
    for file in ("model", "optimizer", "qat"):
        ours, theirs = (
            load_file(one / "checkpoints" / "step_12" / f"{file}.safetensors") for one in (path, whole.path)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), file


# --------------------------------------------------------------------------------------------- quantisation


def test_qat_begins_at_its_step(whole: Whole) -> None:
    events = [(line["step"], line["event"]) for line in lines(whole.path, "qat")]
    assert events == [(6, "start"), (9, "check"), (12, "check")]
    assert Counter(whole.formats.values()) == {"q4_0": 14, "q8_0": 2}  # seven matrices a layer, in and out
    first = {step: path / "qat.safetensors" for step, path in whole.recorder.paths.items()}
    assert [step for step in sorted(first) if first[step].exists()] == [6, 9, 12]
    # the codes that changes are counted from are those of the float weights of that very step
    codes = load_file(first[QAT_FROM])
    for name, one in whole.formats.items():
        assert torch.equal(
            codes[f"codes.{name}.first"], quantize(whole.recorder.weights[QAT_FROM][name], one).codes
        )


def test_qat_cosine_is_watched(whole: Whole) -> None:
    """In each validation of the phase; by hand at its beginning and for the student that ships."""
    watched = {line["step"]: line for line in lines(whole.path, "qat")}
    assert sorted(watched) == [step for step in VALIDATED if step >= QAT_FROM]
    assert all(0.95 <= line["cosine"] < 1 and line["kl"] >= 0 for line in watched.values())
    assert all(line["passed"] for line in watched.values() if line["event"] == "check")
    for step, student in ((QAT_FROM, whole.rounded(QAT_FROM)), (STEPS, weights(whole.path))):
        floats = whole.model(whole.recorder.weights[step])
        lowest = lowest_cosine(floats, whole.model(student), whole.probe)
        assert watched[step]["cosine"] == pytest.approx(lowest, abs=1e-6), step


def test_shipped_weights_are_codes_times_scales(whole: Whole) -> None:
    shipped, by_hand = weights(whole.path), whole.rounded(STEPS)
    for name, one in read_table(whole.path / "student").tensors.items():
        product = one.codes.double().view(-1, 32) * one.scales.double().view(-1, 1)
        assert torch.equal(shipped[name].double(), product.view_as(shipped[name])), name
    assert all(torch.equal(one.double(), by_hand[name].double()) for name, one in shipped.items())
    assert {name for name in shipped if name not in whole.formats} == {
        name for name in shipped if "norm" in name
    }


# ------------------------------------------------------------------------------------------ speed and gates


def test_speed_metrics_logged(whole: Whole) -> None:
    report = json.loads((whole.path / "speed.json").read_text())
    (line,) = (one for one in lines(whole.path, "speed") if one["step"] == STEPS)
    assert (report["step"], len(report["prompts"])) == (STEPS, 6)
    samples = {name: metric["samples"] for name, metric in report["metrics"].items()}
    for name, metric in report["metrics"].items():
        ordered = sorted(math.inf if one is None else one for one in samples[name])
        median = ordered[math.ceil(len(ordered) / 2) - 1]
        assert (metric["p50"], metric["count"]) == (None if math.isinf(median) else median, len(ordered))
        assert line.get(f"{name}.p50", metric["p50"]) == metric["p50"], name
    assert line["ttft_ms.p50"] == report["metrics"]["ttft_ms"]["p50"]
    parts = zip(*(samples[f"ttft_{part}_ms"] for part in ("tokenise", "prefill", "first_token")), strict=True)
    assert samples["ttft_ms"] == pytest.approx([sum(part) for part in parts])
    assert max(samples["output_tokens"]) == 8  # train.eval_max_new_tokens
    # a student that has seen 48 rows calls nothing: that is never written as a number of tokens
    assert samples["ttfa_tokens"] == [None] * 5
    assert (line["ttfa_tokens.infinite"], line["ttfa_tokens.count"]) == (5, 5)


def test_gates_judged(whole: Whole, resumed: tuple[Path, TrainResult]) -> None:
    alone, against = (
        GateReport.from_json(json.loads((path / "gates.json").read_text()))
        for path in (whole.path, resumed[0])
    )
    assert {one.name: (one.status, one.reason) for one in alone.results} == {
        **dict.fromkeys((*TIMES, *RATES), ("skipped", "no_baseline")),
        "ttfa_p95": ("failed", "ttfa_tokens p95 is infinite; prompts without a valid call: 5"),
        "f1": ("failed", "f1 is 0: no call was right"),
    }
    assert (alone["ttfa_p95"].value, alone["ttfa_p95"].limit) == (math.inf, 40.0)
    assert (whole.result.exit_code, resumed[1].exit_code) == (0, 3)  # train.fail_on_gate
    # the blessed student is this very student: its answers are the same, and one run of each cannot judge the times
    statuses = {one.name: one.status for one in against.results}
    assert statuses == {
        **dict.fromkeys(TIMES, "report_only"), **dict.fromkeys(RATES, "passed"),
        "ttfa_p95": "failed", "f1": "failed",
    }  # fmt: skip
    assert [against[name].value for name in RATES] == [against[name].baseline for name in RATES] == [0, 1]
    assert [against[name].limit for name in RATES] == pytest.approx([0.01, 1.01])
    assert (alone.passed, against.passed) == (False, False)


# ------------------------------------------------------------------------------------------------ monitoring


@pytest.mark.parametrize(("number", "step"), [(0, 4), (1, 5)], ids=["nan", "infinite"])
def test_monitoring_nan(whole: Whole, disturbed: Disturbed, number: int, step: int) -> None:
    """The message says where and what to do, and nothing broken is kept."""
    message = disturbed.errors[number]
    assert message.startswith("training diverged: ")
    assert "go back to a checkpoint or lower optimizer.learning_rate" in message
    assert f"the micro-batch held dataset rows {sorted(whole.plan(step)[1][:2])}" in message
    kept = load_file(disturbed.path / "checkpoints" / "step_3" / "model.safetensors")
    assert all(torch.equal(one, whole.recorder.weights[3][name]) for name, one in kept.items())


def test_monitoring_nan_under_quantisation_goes_back(whole: Whole, disturbed: Disturbed) -> None:
    assert (disturbed.result.exit_code, disturbed.result.qat) == (0, "done")
    (back,) = (line for line in lines(disturbed.path, "qat") if line["event"] == "rolled_back")
    assert (back["step"], back["rate_factor"]) == (QAT_FROM, 0.5)
    assert "not finite" in back["reason"]
    # resumed after both errors it is the whole run, up to the fault; then the same steps come at half the rate
    ours = lines(disturbed.path, "train")
    assert ours[:QAT_FROM] == whole.train[:QAT_FROM]
    for one, other in zip(ours[QAT_FROM:], whole.train[QAT_FROM:], strict=True):
        assert (one["step"], one["shape"]) == (other["step"], other["shape"])
        assert one["learning_rate"] == pytest.approx(other["learning_rate"] / 2)
    assert not [line for line in ours if "not_finite" in line]
    assert all(bool(one.isfinite().all()) for one in weights(disturbed.path).values())


def test_monitoring_trends(whole: Whole) -> None:
    held = lines(whole.path, "validation")
    losses = [line["loss"] for line in held]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.2
    for name in ("kl", "ce_teacher", "ce_truth", "length", "early_tool_ce"):
        assert held[-1][name] < held[0][name], name
    assert held[-1]["token_accuracy"] > held[0]["token_accuracy"]
    assert (whole.result.best_step, whole.result.validation["loss"]) == (STEPS, losses[-1])
