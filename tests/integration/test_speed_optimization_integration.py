"""The latency losses and enumerated shapes in real training steps of a small model."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import record, write_teacher
from torch import Tensor

from kdfast.config import KDConfig
from kdfast.config.quant import FormatName, QuantConfig
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.distributed.ranks import Ranks
from kdfast.losses import (
    LossSettings,
    combined_kd_loss,
    early_tool_plan,
    early_tool_ramp,
    length_plan,
    linear_log_odds,
    plan_batch,
    term_weights,
)
from kdfast.losses.latency.length_aware_kd_loss import expected_length
from kdfast.pretrained import load_causal_lm
from kdfast.qat import apply_qat_to_model, convert_qat, is_qat_applied, remove_qat, should_enable_qat
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.shapes import StepSampler, sample_enumerated_shape
from kdfast.speed import SpeedOptions, aggregate_speed_metrics, measure_proxy, speed_prompts
from kdfast.student import hidden_and_head
from kdfast.teacher.local.scores import call_opening_ids

SHAPES = (192, 256, 512)
ONLY = {
    "kl_weight": 0.0, "ce_teacher_weight": 0.0, "ce_truth_weight": 1e-30, "length_weight": 0.0,
    "early_tool_ce_weight": 0.0, "early_tool_prior_weight": 0.0, "length_aggregate": "row",
}  # fmt: skip
"""Nothing of any size: tests switch on what they look at."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records, half of them with a preamble or without the call that is due, and a model of two layers."""
    directory = tmp_path_factory.mktemp("speed")
    write_teacher(directory / "model")
    rng = random.Random(0)
    lines = []
    for number in range(24):
        one = record(number)
        if number % 4 == 2:  # a call is due, the teacher only talks
            one = {name: one[name] for name in ("messages", "tools")}
            one |= {
                "teacher_text": "Let me see." + " I think." * rng.randint(1, 4),
                "tool_should_be_used": True,
            }
            one |= {"required_fields_present": True}
        lines.append(json.dumps(one) + "\n")
    (directory / "data.jsonl").write_text("".join(lines), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def data(folder: Path) -> KDDataset:
    return KDDataset(folder / "data.jsonl", folder / "model", shapes=SHAPES, threads=1)


@pytest.fixture
def student(folder: Path) -> Any:
    return load_causal_lm(folder / "model", dtype=torch.float32, error=ValueError, name="model").train()


def settings(data: KDDataset, **changes: Any) -> LossSettings:
    return LossSettings(
        kd=KDConfig(**{**ONLY, **changes}),
        eos_ids=tuple(data.turn_end_ids[-1:]),
        opening_ids=call_opening_ids(data.pieces(), data.call_openings),
    )


def runner(student: Any, given: LossSettings, warmup_steps: int = 0) -> Runner:
    objective = Objective(settings=given, num_steps=10, early_tool_warmup_steps=warmup_steps)
    return Runner(StudentLoss(student, objective), objective, torch.device("cpu"), False, Ranks())


def batch(data: KDDataset, rows: Sequence[int]) -> dict[str, Tensor]:
    return collate_kd_batch(data.__getitems__(list(rows)))


def step(
    some: Runner, optimizer: torch.optim.Optimizer, batches: Sequence[Any], number: int = 9
) -> dict[str, float]:
    report = some.step(batches, number, None)
    optimizer.step()
    optimizer.zero_grad()
    return report.values


def expected_lengths(student: Any, some: dict[str, Tensor], given: LossSettings) -> Tensor:
    """E of every counted row, from a forward of its own."""
    plan = length_plan(some, given.eos_ids)
    with torch.no_grad():
        hidden, head = hidden_and_head(student, some["input_ids"], some["attention_mask"])
        odds = linear_log_odds(hidden[plan.gate[:, : hidden.shape[1]]], head, given.eos_ids)
    return expected_length(odds, plan, given.kd.max_new_tokens)


def opening_mass(student: Any, some: dict[str, Tensor], given: LossSettings, part: str) -> Tensor:
    """Q of opening a call at the planned positions of one part."""
    opening = early_tool_plan(some, parts=(part,)).opening
    with torch.no_grad():
        hidden, head = hidden_and_head(student, some["input_ids"], some["attention_mask"])
        return linear_log_odds(hidden[opening[:, : hidden.shape[1]]], head, given.opening_ids).sigmoid()


def test_shape_sampling_in_training_loop(data: KDDataset, student: Any) -> None:
    sampler = StepSampler(data.lengths, SHAPES, rows_per_step=4, seed=3, probs="production")
    given = settings(data, ce_truth_weight=1.0)
    some, seen = runner(student, given), []
    for number in range(12):
        shape, rows = sampler.plan(number)
        batches = [batch(data, rows[:2]), batch(data, rows[2:])]
        assert all(one["input_ids"].shape[1] in SHAPES for one in batches)
        assert max(one["input_ids"].shape[1] for one in batches) == shape
        values = some.step(batches, number, None).values
        student.zero_grad()
        assert values["ce_truth"] > 0
        seen.append(shape)
    held = {min(shape for shape in SHAPES if shape >= length) for length in data.lengths}
    assert set(seen) == held
    assert sample_enumerated_shape(SHAPES, seed=3, step=0) in SHAPES


@pytest.mark.slow
def test_length_aware_loss_in_training_step(data: KDDataset, student: Any) -> None:
    given = settings(data, length_weight=1.0)
    some, rows = runner(student, given), batch(data, range(8))
    before = expected_lengths(student, rows, given)
    plan = length_plan(rows, given.eos_ids)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    first = step(some, optimizer, [rows])
    # the value is the mean over rows of relu(log(E/L) - log 1.15), of the model before the step
    ratio = (before / plan.counted_lengths).log() - torch.tensor(1.15).log()
    assert first["length"] == pytest.approx(float(ratio.relu().mean()), rel=1e-4)
    assert first["len_kd.median_rel_excess"] == pytest.approx(
        float((before / plan.counted_lengths - 1).quantile(0.5)), rel=0.2
    )
    for _ in range(20):
        last = step(some, optimizer, [rows])
    assert last["length"] < 0.7 * first["length"]
    assert float(expected_lengths(student, rows, given).mean()) < 0.7 * float(before.mean())


@pytest.mark.slow
def test_early_tool_loss_in_training_step(data: KDDataset, student: Any) -> None:
    given = settings(data, early_tool_ce_weight=1.0, early_tool_prior_weight=1.0)
    rows = batch(data, [row for row in range(len(data)) if row < 12])
    plan = early_tool_plan(rows)
    assert plan.counts["early_tool_ce"] > 0
    assert plan.counts["early_tool_prior"] > 0
    some = runner(student, given)
    before = opening_mass(student, rows, given, "early_tool_prior")
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    first = step(some, optimizer, [rows])
    assert first["early_tool_prior"] == pytest.approx(float(-before.log().mean()), rel=1e-4)
    assert first["early_tool.mean_json_prior_nll0"] == pytest.approx(first["early_tool_prior"], rel=1e-5)
    assert first["early_tool.frac_should_use"] == pytest.approx(
        float(rows["tool_should_be_used"].float().mean())
    )
    for _ in range(20):
        last = step(some, optimizer, [rows])
    assert last["early_tool_ce"] < first["early_tool_ce"]
    assert float(opening_mass(student, rows, given, "early_tool_prior").mean()) > 2 * float(before.mean())


def test_latency_losses_with_combined_kd(data: KDDataset, student: Any) -> None:
    rows = batch(data, range(12))
    on = settings(data, ce_teacher_weight=0.3, ce_truth_weight=0.2, length_weight=0.05,
                  early_tool_ce_weight=0.01, early_tool_prior_weight=0.001)  # fmt: skip
    hidden, head = hidden_and_head(student, rows["input_ids"], rows["attention_mask"])
    loss = combined_kd_loss(hidden, head, rows, on)
    assert set(loss.terms) == {"ce_teacher", "ce_truth", "length", "early_tool_ce", "early_tool_prior"}
    counts, weights = plan_batch(rows, on).counts, term_weights(on.kd)
    parts = {name: float(term.total.detach()) / counts[name] for name, term in loss.terms.items()}
    assert float(loss.total.detach()) == pytest.approx(
        sum(weights[name] * parts[name] for name in parts), rel=1e-5
    )
    assert all(value > 0 for value in parts.values())
    # a row whose call lacks required fields is excused from the length loss, and no other is
    excused = rows | {"required_fields_present": torch.arange(len(rows["labels"])) != 0}
    due = bool(rows["tool_should_be_used"][0])
    assert plan_batch(excused, on).counts["length"] == counts["length"] - due


def test_qat_enablement_timing(data: KDDataset, student: Any) -> None:
    """In a loop with all latency losses quantisation begins exactly at its step, whatever the number of steps."""
    on = {"ce_truth_weight": 0.2, "length_weight": 0.5, "early_tool_ce_weight": 0.5}
    some, rows = runner(student, settings(data, **on)), batch(data, range(4))
    config = QuantConfig(enabled=True, start_fraction=0.8, format="q4_0")
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    for total, first in ((5, 4), (10, 8), (7, 6)):
        remove_qat(student)
        seen = []
        for number in range(total):
            if should_enable_qat(number, total, config):
                apply_qat_to_model(student, config)
            seen.append(is_qat_applied(student))
            some.step([rows], number, None)
            optimizer.step()
            optimizer.zero_grad()
        assert seen == [False] * first + [True] * (total - first)


class TestTrainingStepWithSpeedOptimizations:
    """One optimiser step with each feature: the gradient reaches the parameters, and only through it."""

    def gradient(self, student: Any, some: Runner, batches: Sequence[Any], number: int = 9) -> Tensor:
        some.step(batches, number, None)
        found = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
        student.zero_grad()
        return found

    def test_training_step_with_length_loss(self, data: KDDataset, student: Any) -> None:
        rows = batch(data, range(6))
        with_loss = self.gradient(student, runner(student, settings(data, length_weight=0.5)), [rows])
        without = self.gradient(student, runner(student, settings(data)), [rows])
        assert float(with_loss.norm()) > 1e-3
        assert float(without.norm()) < 1e-20
        # closed by the average of earlier steps, it does nothing
        closed = runner(student, settings(data, length_weight=0.5, length_aggregate="ema"))
        assert float(self.gradient(student, closed, [rows]).norm()) < 1e-20

    def test_training_step_with_early_tool_loss(self, data: KDDataset, student: Any) -> None:
        on = {"early_tool_ce_weight": 0.5, "early_tool_prior_weight": 0.5}
        due = [row for row in range(len(data)) if data[row]["tool_should_be_used"]]
        other = [row for row in range(len(data)) if not data[row]["tool_should_be_used"]]
        some = runner(student, settings(data, **on), warmup_steps=4)
        whole = self.gradient(student, some, [batch(data, due)], 4)
        half = self.gradient(student, some, [batch(data, due)], 2)
        none = self.gradient(student, some, [batch(data, due)], 0)
        assert float(whole.norm()) > 1e-3
        torch.testing.assert_close(half, whole * early_tool_ramp(2, 4), rtol=1e-4, atol=1e-7)
        assert float(none.norm()) < 1e-20
        assert float(self.gradient(student, some, [batch(data, other)], 4).norm()) < 1e-20

    def test_training_step_with_both_losses(self, data: KDDataset, student: Any) -> None:
        rows = batch(data, range(8))
        length, early = {"length_weight": 0.5}, {"early_tool_ce_weight": 0.5, "early_tool_prior_weight": 0.5}
        both, one, other = (
            self.gradient(student, runner(student, settings(data, **on)), [rows])
            for on in ({**length, **early}, length, early)
        )
        torch.testing.assert_close(both, one + other, rtol=1e-4, atol=1e-6)
        # and split into micro-batches it is the same step
        halves = [batch(data, range(4)), batch(data, range(4, 8))]
        split = self.gradient(student, runner(student, settings(data, **length, **early)), halves)
        torch.testing.assert_close(split, both, rtol=1e-4, atol=1e-6)

    def test_training_step_with_enumerated_shapes(self, data: KDDataset, student: Any) -> None:
        on = {"ce_truth_weight": 0.2, "length_weight": 0.5, "early_tool_ce_weight": 0.5}
        some = runner(student, settings(data, **on))
        rows = data.__getitems__([0, 1])
        steps = [
            self.gradient(student, some, [collate_kd_batch(rows, shapes=[shape])]) for shape in (320, 512)
        ]
        # padding to another shape changes nothing
        torch.testing.assert_close(steps[0], steps[1], rtol=1e-4, atol=1e-7)
        assert float(steps[0].norm()) > 1e-3

    @pytest.mark.parametrize("format_name", ["int8_channel", "q4_0"])
    def test_training_step_with_qat(self, data: KDDataset, student: Any, format_name: FormatName) -> None:
        """The step of a float model with the weights q * s, in every loss, the latency losses' second product too."""
        on = {"ce_truth_weight": 0.2, "length_weight": 0.5, "early_tool_ce_weight": 0.5}
        on["early_tool_prior_weight"] = 0.5
        config, given = QuantConfig(format=format_name), settings(data, **on)
        halves = [batch(data, range(4)), batch(data, range(4, 8))]
        twin = copy.deepcopy(student)
        convert_qat(apply_qat_to_model(twin, config))
        apply_qat_to_model(student, config)
        quantised = self.gradient(student, runner(student, given), halves)
        expected = self.gradient(twin, runner(twin, given), halves)
        assert torch.equal(quantised, expected)
        assert not torch.equal(quantised, self.gradient(*self.float_step(student, given), halves))

    @staticmethod
    def float_step(student: Any, given: LossSettings) -> tuple[Any, Runner]:
        plain = remove_qat(student)
        return plain, runner(plain, given)


@pytest.mark.slow
def test_speed_metrics_with_model(data: KDDataset, student: Any) -> None:
    """A student that knows one answer by heart acts at the token that the answer says."""
    prompt = next(
        prompt for prompt in speed_prompts(data) if prompt.needs_call and prompt.shortest_call_tokens
    )
    candidates = (row for row in map(data.store.row, data.rows.tolist()) if row["line"] == prompt.line)
    row = next(row for row in candidates if row["source"] == 1)
    start, answer = int(row["response_start"]), row["ids"][int(row["response_start"]) :].tolist()
    rows = torch.from_numpy(row["ids"]).long()[None]
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
    for _ in range(400):
        logits = student(input_ids=rows).logits[0, start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, rows[0, start:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    assert data.tokenizer.encode(prompt.text) == row["ids"][:start].tolist()
    options = SpeedOptions(eos_ids=data.turn_end_ids[-1:], max_new_tokens=len(answer) + 5)
    (sample,) = measure_proxy(student, [prompt], data.tokenizer, options)
    assert list(sample.ids) == answer
    assert sample.ended
    assert student.training

    def tokens_until(text: str) -> int:
        """The slow twin: the shortest beginning of the answer that holds the text."""
        return next(n for n in range(len(answer) + 1) if text in data.tokenizer.decode(answer[:n]))

    arguments = json.loads(row["validated_arguments"])
    call = f'{{"name": "get_weather", "arguments": {json.dumps(arguments)}}}'
    assert sample.ttfa_tokens == tokens_until(call)
    assert sample.ttfa_name_tokens == tokens_until('"name": "get_weather"')
    compact = json.dumps({"name": "get_weather", "arguments": arguments}, separators=(",", ":"))
    shortest = min(tokens_until(call), len(data.tokenizer.encode("<tool_call>" + compact)))
    assert sample.ttfa_overhead_tokens == tokens_until(call) - shortest
    assert sample.ttft_ms < sample.ttfa_ms < sample.ttft_ms + sum(sample.itl_ms)
    speed = aggregate_speed_metrics([sample])
    assert speed["itl_ms"].count == len(answer) - 1
    assert speed["tps"].percentile(50) == pytest.approx(1000 / speed["tpot_ms"].percentile(50))
    assert speed.absent == {}
