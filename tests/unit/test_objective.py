"""The objective: terms by source, counts from masks, and a sum that does not depend on how a step is split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdfast.config import KDConfig
from kdfast.losses.term import supervised_mask
from kdfast.train.objective import Objective

VOCAB = 7


def batch(rows: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, VOCAB, (rows, 6), generator=generator)
    mask = torch.rand(rows, 6, generator=generator) < 0.6
    logp = torch.randn(rows, 6, 4, generator=generator).log_softmax(-1)
    ids = torch.stack([torch.randperm(VOCAB, generator=generator)[:3] for _ in range(rows * 6)])
    return {
        "labels": labels.where(mask, torch.tensor(-100)),
        "response_mask": mask,
        "tool_name_mask": mask & (torch.rand(rows, 6, generator=generator) < 0.3),
        "tool_args_mask": mask & (torch.rand(rows, 6, generator=generator) < 0.3),
        "source": torch.arange(rows, dtype=torch.int8) % 2,
        "teacher_topk_ids": ids.view(rows, 6, 3).int(),
        "teacher_topk_logp": logp[..., :3],
        "teacher_tail_logp": logp[..., 3],
        "teacher_topk_mask": mask & (torch.arange(rows) < rows - 1)[:, None],
    }


def part(whole: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in whole.items()}


def loss(objective: Objective, logits: Tensor, some: dict[str, Tensor], counts: dict[str, float]) -> Tensor:
    mask = supervised_mask(some)
    return objective.loss(objective.terms(logits[mask], some, mask), counts)


def test_the_loss_is_the_weighted_sum_of_the_terms_means() -> None:
    objective = Objective(KDConfig(kl_weight=0.5, ce_teacher_weight=0.25, ce_truth_weight=2.0))
    whole, logits = batch(4), torch.randn(4, 6, VOCAB)
    mask = supervised_mask(whole)
    counts = objective.counts(whole)
    terms = objective.terms(logits[mask], whole, mask)
    assert {name: term.count for name, term in terms.items()} == pytest.approx(counts)
    means = {name: float(term.total) / counts[name] for name, term in terms.items()}
    expected = 0.5 * means["kl"] + 0.25 * means["ce_teacher"] + 2.0 * means["ce_truth"]
    assert float(loss(objective, logits, whole, counts)) == pytest.approx(expected, rel=1e-6)


def test_cross_entropies_by_source_and_span_against_a_loop() -> None:
    objective = Objective(KDConfig(kl_weight=0, name_weight=0.5, args_weight=0.25))
    whole, logits = batch(4), torch.randn(4, 6, VOCAB)
    logp = logits.log_softmax(-1)
    totals, counts = [0.0, 0.0], [0.0, 0.0]
    for row in range(4):
        for t in range(6):
            label = int(whole["labels"][row, t])
            if label == -100:
                continue
            weight = (
                1 + 0.5 * bool(whole["tool_name_mask"][row, t]) + 0.25 * bool(whole["tool_args_mask"][row, t])
            )
            totals[row % 2] -= weight * float(logp[row, t, label])
            counts[row % 2] += weight
    mask = supervised_mask(whole)
    terms = objective.terms(logits[mask], whole, mask)
    assert set(terms) == {"ce_teacher", "ce_truth"}
    for number, name in enumerate(("ce_teacher", "ce_truth")):
        assert float(terms[name].total) == pytest.approx(totals[number], rel=1e-5)
        assert objective.counts(whole)[name] == pytest.approx(counts[number])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_split_into_micro_batches_it_gives_the_same_loss_and_gradient(size: int) -> None:
    objective = Objective(KDConfig())
    whole = batch(6)
    logits = torch.randn(6, 6, VOCAB, dtype=torch.float64, requires_grad=True)
    counts = objective.counts(whole)
    together = loss(objective, logits, whole, counts)
    (expected,) = torch.autograd.grad(together, logits)
    parts = [slice(start, start + size) for start in range(0, 6, size)]
    local = [objective.counts(part(whole, rows)) for rows in parts]
    assert {name: sum(count[name] for count in local) for name in counts} == pytest.approx(counts)
    total = sum(loss(objective, logits[rows], part(whole, rows), counts) for rows in parts)
    assert isinstance(total, Tensor)
    (gradient,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(total, together, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)


def test_no_gradient_outside_the_supervised_positions() -> None:
    objective = Objective(KDConfig())
    whole = batch(4)
    logits = torch.randn(4, 6, VOCAB, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(objective, logits, whole, objective.counts(whole)), logits)
    outside = ~supervised_mask(whole)
    assert outside.any()
    assert not gradient[outside].any()
    assert gradient[~outside].any()


def test_a_batch_without_a_teacher_has_no_kl() -> None:
    objective = Objective(KDConfig())
    whole = {name: value for name, value in batch(4).items() if not name.startswith("teacher")}
    mask = supervised_mask(whole)
    assert objective.counts(whole)["kl"] == 0
    assert "kl" not in objective.terms(torch.randn(4, 6, VOCAB)[mask], whole, mask)
