"""Divergences from a model beside the student: `kl` with a live teacher, `prompt_kl`, `self_kl`; plain loops decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import loss_batches
import naive
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_batches import DIM, VOCAB, T
from torch import Tensor

from kdfast.config import KDConfig
from kdfast.errors import DataError
from kdfast.losses import (
    DIVERGENCES,
    BatchPlan,
    LossSettings,
    PendingLoss,
    StepWeights,
    StudentOutput,
    TeacherOutput,
    plan_batch,
    planned_loss,
    supervised_mask,
    term_weights,
)

TERMS = ("kl", "prompt_kl", "self_kl")
KEYS = {"kl_weight": 0.5, "prompt_kl_weight": 0.25, "ce_teacher_weight": 0.3, "ce_truth_weight": 0.2}


def settings(**changes: Any) -> LossSettings:
    kd = KDConfig(**{**KEYS, "jsd_beta": 0.3, "chunk_rows": 5, **changes})
    return LossSettings(kd=kd, live_teacher=True, self_kl_weight=0.75)


def batch(rows: int = 4) -> dict[str, Tensor]:
    some = loss_batches.double(loss_batches.batch(rows))
    length = some["response_start"] + some["response_length"]
    return some | {"attention_mask": (torch.arange(T) < length[:, None]).long()}


def other_model(seed: int, *, vocab: int, width: int = 7, rows: int = 4) -> TeacherOutput:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, T, width, generator=g, dtype=torch.float64)
    return TeacherOutput(hidden, torch.randn(vocab, width, generator=g, dtype=torch.float64))


LIVE, SELF = other_model(5, vocab=VOCAB - 3), other_model(6, vocab=VOCAB, width=DIM)


def planned(some: dict[str, Tensor], given: LossSettings) -> BatchPlan:
    return plan_batch(some, given, vocab_size=VOCAB, dtype=torch.float64, width=T)


def run(hidden: Tensor, head: Tensor, some: dict[str, Tensor], given: LossSettings, **of: Any) -> PendingLoss:
    plan = planned(some, given)
    weights = {**term_weights(given.kd), "self_kl": given.self_kl_weight}
    output = StudentOutput(hidden, head, **{"teacher": LIVE, "self_teacher": SELF, **of})
    step = StepWeights(weights, plan.counts)
    return planned_loss(output, plan, step, given, want_best=True)


def places(some: dict[str, Tensor], term: str) -> list[tuple[int, int]]:
    """The positions of a term, found one by one."""
    found, mask = [], supervised_mask(some)
    for row in range(len(mask)):
        tokens = int(some["attention_mask"][row].sum())
        for t in range(tokens):
            prompt = not mask[row, t] and t + 1 < tokens
            if prompt if term == "prompt_kl" else mask[row, t]:
                found.append((row, t))
    return found


def plain(hidden: Tensor, head: Tensor, some: dict[str, Tensor], given: LossSettings) -> dict[str, Tensor]:
    """Each term's mean on the graph, from whole logits and the public divergences."""
    kd = given.kd
    options = {"generalized_jsd": {"beta": kd.jsd_beta}, "skew_kl": {"alpha": kd.skew_alpha}}
    means = {}
    for term, other in zip(TERMS, (LIVE, LIVE, SELF), strict=True):
        rows, columns = zip(*places(some, term), strict=True)
        mine = torch.log_softmax(hidden[rows, columns] @ head.T / kd.temperature, 1)
        theirs = torch.full_like(mine, -60.0).detach()
        logits = other.hidden[rows, columns] @ other.head.T / kd.temperature
        theirs = torch.cat([logits, logits.amax(1, keepdim=True) + theirs[:, logits.shape[1] :]], 1)
        power = naive.TEMPERATURE_POWER.get(kd.divergence, 2)
        values = formula(kd.divergence, torch.log_softmax(theirs, 1), mine, **options.get(kd.divergence, {}))
        means[term] = kd.temperature**power * values.mean()
    return means


def formula(name: str, logp: Tensor, logq: Tensor, *, beta: float = 0.0, alpha: float = 0.0) -> Tensor:
    """The divergences of rows by their textbook formulas."""
    p, q = logp.exp(), logq.exp()
    if name == "forward_kl":
        return (p * (logp - logq)).sum(1)
    if name == "reverse_kl":
        return (q * (logq - logp)).sum(1)
    if name == "tvd":
        return (p - q).abs().sum(1) / 2
    if name == "skew_kl":
        return (p * (logp - (alpha * p + (1 - alpha) * q).log())).sum(1)
    middle = (beta * p + (1 - beta) * q).log()
    return beta * (p * (logp - middle)).sum(1) + (1 - beta) * (q * (logq - middle)).sum(1)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_values_counts_and_gradients_are_those_of_the_formulas(divergence: str, temperature: float) -> None:
    some, (hidden, head) = batch(), loss_batches.model(4)
    given = settings(divergence=divergence, temperature=temperature)
    loss = run(hidden, head, some, given)
    means = plain(hidden, head, some, given)
    read = loss.read()
    for term in TERMS:
        assert read.terms[term].count == len(places(some, term)), term
        torch.testing.assert_close(read.terms[term].mean(), means[term], rtol=1e-8, atol=1e-12)
    weighted = sum(weight * means[name] for name, weight in zip(TERMS, (0.5, 0.25, 0.75), strict=True))
    only = replace(given, kd=replace(given.kd, kl_weight=0.0, prompt_kl_weight=0.0), self_kl_weight=0.0)
    labels = planned_loss(
        StudentOutput(hidden, head),
        planned(some, only),
        StepWeights(term_weights(only.kd), planned(some, only).counts),
        only,
    ).total
    for of in (hidden, head):
        (one,) = torch.autograd.grad(loss.total, of, retain_graph=True)
        (other,) = torch.autograd.grad(weighted + labels, of, retain_graph=True)
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_a_value_at_a_single_position_is_that_of_the_slow_oracle() -> None:
    some, (hidden, head) = batch(1), loss_batches.model(1)
    live = replace(LIVE, hidden=LIVE.hidden[:1])
    read = run(
        hidden, head, some, settings(), teacher=live, self_teacher=replace(SELF, hidden=SELF.hidden[:1])
    ).read()
    rows = [
        naive.dense_row(
            "forward_kl", (hidden[row, t] @ head.T).tolist(), (live.hidden[row, t] @ live.head.T).tolist()
        )
        for row, t in places(some, "prompt_kl")
    ]
    assert float(read.terms["prompt_kl"].total.detach()) == pytest.approx(sum(rows), rel=1e-9)


@pytest.mark.parametrize("term", TERMS)
def test_gradcheck(term: str) -> None:
    some = batch(1)
    off = {"kl_weight": 0.0, "prompt_kl_weight": 0.0, "ce_teacher_weight": 1e-30, "ce_truth_weight": 0.0}
    on = {f"{term}_weight": 1.0} if term != "self_kl" else {}
    given = settings(**off | on, divergence="skew_kl")
    given = replace(given, self_kl_weight=float(term == "self_kl"))
    live, earlier = (replace(one, hidden=one.hidden[:1]) for one in (LIVE, SELF))
    plan = planned(some, given)
    weights = {name: float(name == term) for name in plan.counts}

    def total(hidden: Tensor, head: Tensor) -> Tensor:
        output = StudentOutput(hidden, head, teacher=live, self_teacher=earlier)
        return planned_loss(output, plan, StepWeights(weights, plan.counts), given).total

    assert torch.autograd.gradcheck(total, loss_batches.model(1))


@given(st.integers(1, 5).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(0, 10**6))), st.booleans())
def test_the_prompt_s_positions_are_those_of_a_loop(of: tuple[int, int], packed: bool) -> None:
    rows, seed = of
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (rows,), generator=g)
    token = torch.arange(8) < lengths[:, None]
    labels = torch.where(token & (torch.rand(rows, 8, generator=g) < 0.4), 3, -100)
    some = {
        "labels": labels,
        "attention_mask": token.long(),
        "source": torch.ones(rows),
        "row": torch.arange(rows),
    }
    segments = torch.arange(8).remainder(3).expand(rows, 8)
    if packed:
        some["position_ids"] = segments
    plan = plan_batch(some, LossSettings(kd=KDConfig(prompt_kl_weight=1.0), live_teacher=True))
    width = plan.width
    expected = [
        row * width + t
        for row in range(rows)
        for t in range(int(lengths[row]) - 1)
        if labels[row, t] == -100 and not (packed and segments[row, t + 1] == 0)
    ]
    assert plan.entries["prompt_kl"].detail.index.tolist() == expected
    assert plan.counts["prompt_kl"] == len(expected)
    assert plan.counts["kl"] == int((labels != -100).sum())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_batch_without_any_position_costs_0_on_the_graph(temperature: float) -> None:
    some, (hidden, head) = batch(), loss_batches.model(4)
    some = {name: torch.zeros_like(value) for name, value in some.items()} | {
        "labels": torch.full((4, T), -100)
    }
    loss = run(hidden, head, some, settings(temperature=temperature))
    assert {name: term.count for name, term in loss.read().terms.items() if name in TERMS} == dict.fromkeys(
        TERMS, 0.0
    )
    assert float(loss.total.detach()) == 0.0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss.total, (hidden, head)))


def test_a_term_of_weight_0_at_this_step_is_still_measured() -> None:
    """As at the end of a run with `kl_final_weight: 0`, and under `task_factor` 0."""
    some, (hidden, head) = batch(), loss_batches.model(4)
    given = settings()
    plan = planned(some, given)
    output = StudentOutput(hidden, head, teacher=LIVE, self_teacher=SELF)
    loss = planned_loss(output, plan, StepWeights(dict.fromkeys(plan.counts, 0.0), plan.counts), given)
    for term in TERMS:
        assert float(loss.terms[term].total.detach()) == pytest.approx(
            float(run(hidden, head, some, given).terms[term].total.detach())
        )
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss.total, (hidden, head)))


def test_the_teacher_s_favourites_are_those_of_its_whole_logits() -> None:
    some, (hidden, head) = batch(), loss_batches.model(4)
    loss = run(hidden, head, some, settings())
    assert loss.teacher_best is not None
    logits = (LIVE.hidden @ LIVE.head.T)[supervised_mask(some)]
    assert torch.equal(loss.teacher_best, logits.argmax(1))


@pytest.mark.parametrize("term", TERMS)
def test_a_teacher_that_gives_nan_is_refused_by_the_term_and_the_row(term: str) -> None:
    some, (hidden, head) = batch(), loss_batches.model(4)
    row, t = places(some, term)[-1]
    which = "self_teacher" if term == "self_kl" else "teacher"
    broken = (SELF if term == "self_kl" else LIVE).hidden.clone()
    broken[row, t] = torch.nan
    with pytest.raises(
        DataError, match=rf"^{term}: the logits of the model beside .* row\(s\): {100 + row}$"
    ):
        run(
            hidden,
            head,
            some,
            settings(),
            **{which: replace(SELF if term == "self_kl" else LIVE, hidden=broken)},
        ).read()


@pytest.mark.parametrize("term", TERMS)
def test_a_student_that_gives_nan_is_named_by_the_term_or_left_out(term: str) -> None:
    some, (hidden, head) = batch(), loss_batches.model(4)
    row, t = places(some, term)[0]
    broken = hidden.detach().clone()
    broken[row, t] = 1.7e308
    broken.requires_grad_()
    with pytest.raises(FloatingPointError, match=rf"logits are not finite in 1 row\(s\): {100 + row}"):
        run(broken, head, some, settings()).read()
    loss = run(broken, head, some, settings(on_nan="skip_row"))
    assert loss.read().terms[term].skipped == 1
    assert all(bool(one.isfinite().all()) for one in torch.autograd.grad(loss.total, (broken, head)))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("teacher", "kd.kl_weight: the batch was planned for a live teacher"),
        ("self_teacher", "self_kl: needs"),
    ],
)
def test_a_plan_for_a_model_that_is_not_there_is_refused(missing: str, message: str) -> None:
    hidden, head = loss_batches.model(4)
    with pytest.raises(ValueError, match=f"^{message}"):
        run(hidden, head, batch(), settings(), **{missing: None})
    if missing == "teacher":
        with pytest.raises(ValueError, match=r"^kd.prompt_kl_weight: needs the output of a live teacher"):
            run(hidden, head, batch(), settings(kl_weight=0.0), teacher=None)
