"""The objective: weights by step, counts from masks, and what terms remember from step to step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_batches import batch, double, model, settings

from kdfast.losses import PendingLoss, StepWeights, StudentOutput, plan_batch
from kdfast.recipes.train.objective import Objective


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


def loss(some: Objective, doubled: bool = False) -> PendingLoss:
    given, (hidden, weight) = double(batch()), model()
    plan = plan_batch(given, some.settings, vocab_size=len(weight), dtype=torch.float64)
    counts = {name: (1 + doubled) * count for name, count in plan.counts.items()}
    return some.loss(StudentOutput(hidden, weight), plan, StepWeights(some.final_weights, counts))


def test_a_term_of_weight_0_is_neither_counted_nor_computed() -> None:
    some = objective(sampled_kl_weight=0.0, length_weight=0.0, early_tool_prior_weight=0.0)
    wanted = {
        "kl", "ce_teacher", "ce_truth", "early_tool_ce", "early_tool_preamble", "early_tool_negative",
    }  # fmt: skip
    assert set(plan_batch(batch(), some.settings).counts) == wanted
    assert set(loss(some).terms) == wanted
    assert set(some.states()) == {"kl", "cross_entropy", "early_tool"}


def test_the_step_s_counts_are_the_divisors() -> None:
    some = objective()
    torch.testing.assert_close(loss(some, doubled=True).total, loss(some).total / 2)


def test_the_average_starts_with_the_first_value_and_is_kept_over_steps_without_rows() -> None:
    some = objective(length_aggregate="ema", length_ema_decay=0.75)
    states = some.states()
    assert states["length"] == {"average": None}
    for observed, average in (
        ({"excess": 0.0, "rows": 0.0}, None),
        ({"excess": 3.0, "rows": 2.0}, 1.5),
        ({"excess": 0.0, "rows": 0.0}, 1.5),
        ({"excess": 1.0, "rows": 2.0}, 0.75 * 1.5 + 0.25 * 0.5),
    ):
        states = some.next_states(states, {"length": observed})
        assert states["length"] == {"average": average}
        assert set(states) == set(some.states())


def test_a_checkpoint_s_states_are_taken_up_those_of_older_versions_too() -> None:
    some = objective()
    assert some.states({"terms": {"length": {"average": 0.25}}})["length"] == {"average": 0.25}
    assert some.states({"length_average": 0.5})["length"] == {"average": 0.5}
    assert some.states({"length_average": None})["length"] == {"average": None}
    assert "length" not in objective(length_weight=0.0).states({"length_average": 0.5})


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
