"""The objective: weights by step, counts from masks, the length loss's hinge, and rows without a loss's inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_batches import batch, double, model, settings

from kdfast.losses import plan_batch
from kdfast.recipes.train.objective import Objective, StepWeights


def objective(**changes: Any) -> Objective:
    return Objective(settings=settings(**changes), num_steps=11, early_tool_warmup_steps=5)


def test_weights_run_in_a_straight_line_to_their_final_values() -> None:
    some = objective(kl_weight=0.5, kl_final_weight=0.1, ce_truth_weight=0.2, ce_truth_final_weight=0.6)
    assert [some.weights(step)["kl"] for step in (0, 5, 10)] == pytest.approx([0.5, 0.3, 0.1])
    assert [some.weights(step)["ce_truth"] for step in (0, 5, 10)] == pytest.approx([0.2, 0.4, 0.6])
    assert some.weights(99) == some.weights(10) == some.final_weights
    constant = objective()
    assert constant.weights(5)["kl"] == constant.weights(10)["kl"] == 0.5


def test_early_tool_weights_grow_over_the_warm_up_and_no_other_does() -> None:
    some = objective(early_tool_ce_weight=0.01)
    early = [name for name in some.final_weights if name.startswith("early_tool")]
    assert len(early) == 4
    for name in early:
        whole = some.final_weights[name]
        assert [some.weights(step)[name] for step in (0, 1, 5, 10)] == pytest.approx(
            [0, whole / 5, whole, whole]
        )
    assert some.weights(0)["length"] == some.final_weights["length"]


def test_a_term_of_weight_0_is_neither_counted_nor_computed() -> None:
    some = objective(sampled_kl_weight=0.0, length_weight=0.0, early_tool_prior_weight=0.0)
    counts = some.counts(batch())
    assert set(counts) == {
        "kl", "ce_teacher", "ce_truth", "early_tool_ce", "early_tool_preamble", "early_tool_negative",
    }  # fmt: skip
    hidden, weight = model()
    loss = some.loss(hidden, weight, double(batch()), StepWeights(some.final_weights, counts))
    assert set(loss.terms) == set(counts)


def test_the_hinge_opens_by_the_average_of_earlier_steps_or_row_by_row() -> None:
    assert objective(length_aggregate="row").hinge_open(5.0) is None
    average = objective(length_aggregate="ema")
    assert [average.hinge_open(value) for value in (None, -0.1, 0.0, 0.1)] == [False, False, False, True]


def test_the_step_s_counts_are_the_divisors() -> None:
    some, given, (hidden, weight) = objective(), double(batch()), model()
    counts = some.counts(given)
    doubled = {name: 2 * count for name, count in counts.items()}
    one = some.loss(hidden, weight, given, StepWeights(some.final_weights, counts)).total
    half = some.loss(hidden, weight, given, StepWeights(some.final_weights, doubled)).total
    torch.testing.assert_close(half, one / 2)


def test_counts_against_a_loop() -> None:
    some, given = objective(), batch()
    expected = dict.fromkeys(some.final_weights, 0.0)
    for row in range(6):
        first = int(given["response_start"][row]) - 1
        last = first + int(given["response_length"][row]) - 1
        due, call = bool(given["tool_should_be_used"][row]), given["tool_call_mask"][row]
        source = "ce_truth" if row % 2 else "ce_teacher"
        for t in range(first, last + 1):
            name, args = (bool(given[f"tool_{span}_mask"][row, t]) for span in ("name", "args"))
            expected[source] += 1 + 0.15 * name + 0.15 * args
            expected["kl"] += bool(given["teacher_topk_mask"][row, t])
            expected["sampled_kl"] += bool((given["teacher_sample_counts"][row, t] > 0).any())
        expected["length"] += bool(given["required_fields_present"][row]) or not due
        prefix = int((given["teacher_prefix_ids"][row] != -100).sum())
        expected["early_tool_ce"] += due * prefix
        expected["early_tool_prior"] += due and prefix == 0
        expected["early_tool_preamble"] += due and bool(call.any()) and not bool(call[first])
        expected["early_tool_negative"] += not due
    assert plan_batch(given, some.settings).counts == pytest.approx(expected)
