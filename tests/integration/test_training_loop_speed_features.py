"""A whole small run with every speed feature on: a teacher's server with faults, the loop, QAT, checkpoints, gates.

The numbers are compared with slow twins: from weights that a callback kept, transformers in float64 gives the logits.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import speed_feature_runs as features
import torch
from qat_runs import Fault, assert_same_run, lines, not_a_number, stop_at, too_large_for_fp16, weights
from safetensors.torch import load_file
from speed_feature_runs import KEY, QAT_FROM, STEPS, TERMS, Project, Recorder, Whole, lowest_cosine, teach

import kdfast
from kdfast.errors import DivergedError
from kdfast.gates import GateReport
from kdfast.gates.baseline import baseline_bundle, write_baseline
from kdfast.quantized import quantize, read_table
from kdfast.recipes.train.result import TrainResult
from kdfast.runs.checkpoint import load_checkpoint, read_state
from kdfast.student import load_student
from kdfast.teacher.api.fake_server import FakeServer, by_index

pytestmark = pytest.mark.slow

VALIDATED = [0, 3, 6, 9, 12]
TIMES = ("ttft_p50", "ttft_p95", "tps_p50", "tps_p95")
RATES = ("false_call_rate", "missed_call_rate")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with pytest.MonkeyPatch.context() as patch, features.faulty_server() as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        yield server


@pytest.fixture(scope="module")
def project(server: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Answers fetched from a server that fails most first tries, and then scored by a local teacher."""
    project = Project.write(tmp_path_factory.mktemp("features"), prompts=15)
    for config in (project.asking(server), project.config()):
        code, said = teach(config)
        assert code == 0, said
        assert KEY not in said
    return project


@pytest.fixture(scope="module")
def whole(project: Project) -> Whole:
    recorder, config = Recorder(), project.config()
    return Whole(project, config.io.run_dir, kdfast.train(config, callbacks=[recorder]), recorder)


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


@pytest.fixture(scope="module")
def disturbed(whole: Whole) -> tuple[Path, list[str], TrainResult]:
    """A run into which NaN came after step 4, infinity after step 5, and after step 8 what 4 bits cannot hold."""
    path = whole.project.path / "disturbed"
    config, errors = whole.project.config(f"io.run_dir={path}"), []
    infinite = Fault(5, lambda student: student.model.norm.weight.fill_(math.inf))
    for number, fault in enumerate((Fault(4, not_a_number), infinite)):
        with pytest.raises(DivergedError) as caught:
            kdfast.train(config, resume=number > 0, callbacks=[fault])
        errors.append(str(caught.value))
        assert [line["step"] for line in lines(path, "train")] == list(range(1, fault.step + 1))
    return path, errors, kdfast.train(config, resume=True, callbacks=[Fault(8, too_large_for_fp16)])


def test_every_answer_comes_through_faults_and_is_paid_once(project: Project, server: FakeServer) -> None:
    for number in range(15):
        whole_at_once = features.FAULTS.get(number, "ok") in ("ok", "gzip", "reset_after_body")
        tries = sum(count for text, count in server.texts.items() if text.endswith(f"({number})"))
        assert tries == (1 if whole_at_once else 2), number
    assert all(server.behaviours[name] == 1 for name in (*features.FAULTS.values(), "truncated_json"))
    # what the server saw is what the journal has: 9 of these 11 are tried again, and nothing else
    ledger = project.ledger
    assert (server.seen.total(), len(server.seen), len(ledger.answers)) == (15 + 9, 15, 15)
    assert ledger.states == {"answered": 20, "unknown": 4}  # reset, truncated_body, close, cut_chunks
    # an answer costs its tokens; an unknown outcome and an answer that is cut cost their worst case, a refusal nothing
    costs = []
    for one in ledger.answers:
        if one.order == features.LOST:
            assert (one.cost_micro, one.verdict and one.verdict.reason) == (None, "invalid_json")
            continue
        usage = json.loads(one.body)["usage"]
        costs.append(usage["prompt_tokens"] + 2 * usage["completion_tokens"])
        assert one.cost_micro == costs[-1]
    assert ledger.charged == sum(costs) + ledger.worst
    written, code = project.out.read_bytes(), teach(project.asking(server))[0]
    assert (code, server.seen.total(), project.out.read_bytes()) == (0, 15 + 9, written)
    assert KEY.encode() not in b"".join(path.read_bytes() for path in project.path.glob("answers*"))


def test_the_answers_are_those_of_the_server(project: Project) -> None:
    prompts = [json.loads(line) for line in project.prompts.read_text().splitlines()]
    for record, prompt in zip(project.records(), prompts[:14], strict=True):
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
    code, said = teach(fresh.asking(server))  # nobody listens on its port any more
    assert (code, fresh.out.exists()) == (5, False)
    assert re.search(r"no server takes connections .*correct api.base_url", said)
    overloaded = threading.Event()
    with FakeServer(lambda _: "error_503" if overloaded.is_set() else "ok") as server:
        assert teach(fresh.asking(server), limit=3)[0] == 0
        before = fresh.records()
        assert (server.seen.total(), len(before)) == (3, 3)
        overloaded.set()
        code, said = teach(fresh.asking(server, "teacher.max_retries=0"))
        assert (code, server.seen.total()) == (5, 3 + 5)
        assert "5 requests have no answer (HTTP status 503" in said
        assert fresh.records() == before
        overloaded.clear()
        assert teach(fresh.asking(server))[0] == 0
        assert server.seen.total() == 3 + 5 + 5
    assert [one for one in fresh.records() if one in before] == before
    answers, code = fresh.out.read_bytes(), teach(fresh.asking(server))[0]
    assert code == 0  # without a server, all are answered
    features.write_prompts(fresh.prompts, range(9))
    assert teach(fresh.asking(server))[0] == 5  # and one more prompt costs none of them
    assert fresh.out.read_bytes() == answers


def test_teacher_api_failures_key_refused(fresh: Project) -> None:
    with FakeServer(by_index(["unauthorised"] * 9)) as server:
        code, said = teach(fresh.asking(server, "api.concurrency=1"))
        assert (code, server.seen.total()) == (5, 1)
    assert "Incorrect API key" in said
    assert KEY not in said  # the server repeats it
    assert KEY.encode() not in b"".join(path.read_bytes() for path in fresh.path.glob("answers*"))
    assert fresh.ledger.charged == 0
    with FakeServer() as mended:
        assert teach(fresh.asking(mended))[0] == 0
    assert len(fresh.records()) == 8


def test_teacher_api_failures_budget_reached(fresh: Project) -> None:
    with FakeServer() as server:
        poor = fresh.asking(server, "teacher.budget=0.002", "api.concurrency=1")
        code, said = teach(poor)
        asked = server.seen.total()
        assert (code, teach(poor)[0], server.seen.total()) == (5, 5, asked)
        assert "raise teacher.budget, then go on with" in said
        assert 0 < asked == len(fresh.records()) < 8
        assert 0 < fresh.ledger.charged <= 2000
        assert teach(fresh.asking(server, "teacher.budget=1"))[0] == 0
        assert server.seen.total() == len(server.seen) == 8
    assert fresh.ledger.charged == sum(one.cost_micro or 0 for one in fresh.ledger.answers)


def assert_values(line: dict[str, Any], slow: dict[str, float]) -> None:
    """The line of a step has exactly these terms, with these values."""
    assert {name for name in (*TERMS, "self_kl") if name in line} == set(slow)
    assert {name: line[name] for name in slow} == pytest.approx(slow, rel=1e-5, abs=5e-8)


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
    average, seen = 0.0, set()
    for step in range(QAT_FROM):
        model = whole.model(whole.recorder.weights[step])
        slow, excess = whole.slow_step(step, model, hinge_open=average > 0)
        assert_values(whole.train[step], slow)
        average = excess if step == 0 else 0.9 * average + 0.1 * excess
        seen |= {name for name, value in slow.items() if value > 0}
        if step + 1 in whole.recorder.paths:
            kept = read_state(whole.recorder.paths[step + 1])["terms"]["length"]["average"]
            assert kept == pytest.approx(average, rel=1e-5)
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
        given = {name: features.KD[f"{name}_weight"] * (ramp if "early" in name else 1) for name in TERMS}
        given |= {"kl": 0.5 + (0.1 - 0.5) * step / (STEPS - 1), "self_kl": 0.25}
        summed = sum(weight * line[name] for name, weight in given.items() if name in line)
        assert line["loss"] == pytest.approx(summed, rel=1e-6), step
    assert [("self_kl" in line) for line in whole.train] == [step >= QAT_FROM for step in range(STEPS)]


def test_small_run_of_16_records(whole: Whole) -> None:
    rows = list(map(whole.data.store.row, whole.data.rows.tolist()))
    assert Counter(row["source"] for row in rows) == {0: 16, 1: 14}  # two records have no truth
    assert (whole.result.exit_code, whole.result.step, whole.result.qat) == (0, STEPS, "done")
    assert [line["step"] for line in whole.train if line["length"] > 0] == list(range(2, STEPS + 1))
    assert [line["step"] for line in whole.train if "early_tool_ce" in line] == [1, 4, 5, 6, 7, 8, 9, 12]
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
        assert line["learning_rate"] == pytest.approx(features.expected_rate(step), rel=1e-9), step
        assert 0 < line["grad_norm"] < 100


def test_checkpoints_saved(whole: Whole) -> None:
    assert sorted(whole.recorder.paths) == [3, 6, 9, 12]
    assert set((whole.path / "checkpoints").iterdir()) == set(whole.recorder.paths.values())
    for step, path in whole.recorder.paths.items():
        student = load_student(path)
        loaded, kept = student.state_dict(), whole.recorder.weights[step]
        assert loaded.keys() == kept.keys() == {n for n in kept if torch.equal(loaded[n], kept[n])}, step
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
        place = f"checkpoints/step_12/{file}.safetensors"
        ours, theirs = load_file(path / place), load_file(whole.path / place)
        assert ours.keys() == theirs.keys() == {n for n in ours if torch.equal(ours[n], theirs[n])}, file


def test_qat_begins_at_its_step(whole: Whole) -> None:
    events = [(line["step"], line["event"]) for line in lines(whole.path, "qat")]
    assert events == [(6, "start"), (9, "check"), (12, "check")]
    assert Counter(whole.formats.values()) == {"q4_0": 14, "q8_0": 2}  # seven matrices a layer, in and out
    first = {step: path / "qat.safetensors" for step, path in whole.recorder.paths.items()}
    assert [step for step in sorted(first) if first[step].exists()] == [6, 9, 12]
    # the codes that changes are counted from are those of the float weights of that very step, but for a block's sign
    codes = load_file(first[QAT_FROM])
    for name, one in whole.formats.items():
        expected = quantize(whole.recorder.weights[QAT_FROM][name], one).codes
        assert torch.equal(codes[f"codes.{name}.first"].abs(), expected.abs()), name


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
    assert whole.formats.keys() == {name for name in shipped if "norm" not in name}


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
    alone = GateReport.from_json(json.loads((whole.path / "gates.json").read_text()))
    against = GateReport.from_json(json.loads((resumed[0] / "gates.json").read_text()))
    assert {one.name: (one.status, one.reason) for one in alone.results} == {
        **dict.fromkeys((*TIMES, *RATES), ("skipped", "no_baseline")),
        "ttfa_p95": ("failed", "ttfa_tokens p95 is infinite; prompts without a valid call: 5"),
        "f1": ("failed", "f1 is 0: no call was right"),
    }
    assert (alone["ttfa_p95"].value, alone["ttfa_p95"].limit) == (math.inf, 40.0)
    # the blessed student is this very student: its answers are the same, and one run of each cannot judge the times
    assert {one.name: one.status for one in against.results} == {
        **dict.fromkeys(TIMES, "report_only"), **dict.fromkeys(RATES, "passed"),
        "ttfa_p95": "failed", "f1": "failed",
    }  # fmt: skip
    assert [against[name].value for name in RATES] == [against[name].baseline for name in RATES] == [0, 1]
    assert [against[name].limit for name in RATES] == pytest.approx([0.01, 1.01])
    assert (alone.passed, whole.result.exit_code) == (False, 0)
    assert (against.passed, resumed[1].exit_code) == (False, 3)  # train.fail_on_gate


def test_monitoring_nan(whole: Whole, disturbed: tuple[Path, list[str], TrainResult]) -> None:
    """NaN, and infinity: the message says where and what to do, and nothing broken is kept."""
    path, errors, _ = disturbed
    for step, message in enumerate(errors, 4):
        assert message.startswith("training diverged: ")
        assert "go back to a checkpoint or lower optimizer.learning_rate" in message
        assert f"the micro-batch held dataset rows {sorted(whole.plan(step)[1][:2])}" in message
    kept = load_file(path / "checkpoints" / "step_3" / "model.safetensors")
    assert all(torch.equal(one, whole.recorder.weights[3][name]) for name, one in kept.items())


def test_monitoring_nan_under_qat(whole: Whole, disturbed: tuple[Path, list[str], TrainResult]) -> None:
    path, _, result = disturbed
    assert (result.exit_code, result.qat) == (0, "done")
    (back,) = (line for line in lines(path, "qat") if line["event"] == "rolled_back")
    assert (back["step"], back["rate_factor"]) == (QAT_FROM, 0.5)
    assert "not finite" in back["reason"]
    # resumed after both errors it is the whole run, up to the fault; then the same steps come at half the rate
    ours = lines(path, "train")
    assert ours[:QAT_FROM] == whole.train[:QAT_FROM]
    for one, other in zip(ours[QAT_FROM:], whole.train[QAT_FROM:], strict=True):
        assert (one["step"], one["shape"]) == (other["step"], other["shape"])
        assert one["learning_rate"] == pytest.approx(other["learning_rate"] / 2)
    assert not [line for line in ours if "not_finite" in line]
    assert all(bool(one.isfinite().all()) for one in weights(path).values())


def test_monitoring_trends(whole: Whole) -> None:
    held = lines(whole.path, "validation")
    losses = [line["loss"] for line in held]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.2
    for name in ("kl", "ce_teacher", "ce_truth", "length", "early_tool_ce"):
        assert held[-1][name] < held[0][name], name
    assert held[-1]["token_accuracy"] > held[0]["token_accuracy"]
    assert (whole.result.best_step, whole.result.validation["loss"]) == (STEPS, losses[-1])
