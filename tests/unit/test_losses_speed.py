"""The latency losses by hand: the student's logits are all equal, so that every probability is a fraction."""

import math

import pytest
import torch
from latency_batches import EOS, OPENING, VOCAB, batch_of

from kdfast import compute_required_fields_present
from kdfast.losses.latency.early_tool_call_loss import EarlyToolOptions, early_tool_call_loss, early_tool_ramp
from kdfast.losses.latency.length_aware_kd_loss import LengthOptions, length_aware_kd_loss

RATIO = LengthOptions(form="ratio", max_new_tokens=4)
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"n": {}}, "required": ["n"]}}


def length_loss(batch, p, options, **more):
    """The length loss of a student that ends with probability p everywhere, and the gradient of its logits."""
    logits = torch.zeros(*batch["labels"].shape, VOCAB, dtype=torch.float64)
    logits[..., EOS] = math.log(p / (1 - p)) + math.log(VOCAB - 1)
    logits.requires_grad_()
    mask = batch["response_mask"]
    out = length_aware_kd_loss(logits[mask], mask, batch, eos_ids=[EOS], options=options, **more)
    out.term.total.backward()
    return out, logits.grad


def early_loss(batch, **options):
    """The early tool-call loss of a student that gives every id the same probability, and the gradient."""
    logits = torch.zeros(*batch["labels"].shape, VOCAB, dtype=torch.float64, requires_grad=True)
    mask = batch["response_mask"]
    options = EarlyToolOptions(**options)
    out = early_tool_call_loss(logits[mask], mask, batch, opening_ids=OPENING, options=options)
    out.total.backward()
    return out, logits.grad


def test_length_kd_completeness_exemption():
    call = '<tool_call>{"name": "f", "arguments": %s}</tool_call>'
    texts = [call % '{"n": 1}', call % "{}", "Sorry, no.", f'{call % "{}"}{call % """{"n": 1}"""}']
    exempt = torch.tensor(compute_required_fields_present(texts, [[TOOL]] * 4))
    assert exempt.tolist() == [True, False, False, False]
    batch = batch_of("x.", "x.", "x.", "x.")
    out, grad = length_loss(batch, 0.5, RATIO, exempt=exempt)
    # E = 1 + 1 + 1/2 + 1/4 = 2.75 for L = 2: each of the three other rows costs 2.75/2 - 1 - 0.15
    assert out.term.count == 3
    assert out.term.total.item() == pytest.approx(3 * 0.225)
    assert bool((grad[0] == 0).all())
    assert bool((grad[1:].abs().sum((1, 2)) > 0).all())
    everything, grad = length_loss(batch, 0.5, RATIO, exempt=torch.ones(4, dtype=torch.bool))
    assert (everything.term.total.item(), everything.term.count) == (0.0, 0)
    assert torch.equal(grad, torch.zeros_like(grad))


def test_length_kd_no_excess():
    # a student that ends with p = 1 where the teacher does: E = L; one that ends before, behind the call: E < L
    for answer, p in (("xxx.", 1 - 1e-12), ("cc.", 1 - 1e-12), ("ccxxxxxx.", 0.5)):
        for form in ("log", "ratio", "quantile"):
            out, grad = length_loss(batch_of(answer), p, LengthOptions(form=form))
            assert out.term.total.item() == 0.0
            assert out.term.count == 1
            assert torch.equal(grad, torch.zeros_like(grad))


def test_length_kd_hinge():
    # L = 2, p = 1/2, R = 2: E = 2.75, so E/L - 1 = 0.375
    batch = batch_of("x.")
    free, grad = length_loss(batch, 0.5, LengthOptions(form="ratio", max_new_tokens=4, hinge=0.375 + 1e-9))
    assert free.term.total.item() == 0.0
    assert torch.equal(grad, torch.zeros_like(grad))
    assert float(free.relative_excess) == pytest.approx(0.375)
    for hinge in (0.0, 0.15, 0.3):
        above, _ = length_loss(
            batch, 0.5, LengthOptions(form="ratio", max_new_tokens=4, hinge=hinge, slope=3.0)
        )
        assert above.term.total.item() == pytest.approx(3 * (0.375 - hinge))
        above, _ = length_loss(
            batch, 0.5, LengthOptions(form="log", max_new_tokens=4, hinge=hinge, slope=3.0)
        )
        assert above.term.total.item() == pytest.approx(3 * (math.log(1.375) - math.log(1 + hinge)))
    # quantile: ends within 2 + floor(0.5 * 2) = 3 tokens with 1/2 + 1/4, and 0.9 is asked for
    quantile, _ = length_loss(batch, 0.5, LengthOptions(form="quantile", hinge=0.5))
    assert quantile.term.total.item() == pytest.approx(math.log(0.9 / 0.75))


def test_early_tool_ce_only_when_needed():
    # rows: a call of 3 tokens behind 1 of text; no call due; the same call, but none is due
    batch = batch_of("xccc.", "xx.", "xccc.", should=[True, False, False])
    out, grad = early_loss(batch, ce_weight=1.0)
    term = out.terms["early_tool_ce"]
    assert (term.count, term.total.item()) == (3, pytest.approx(3 * math.log(VOCAB)))
    assert out.total.item() == pytest.approx(math.log(VOCAB))
    # pulled on: the positions of the call, and their targets 6, 7, 8
    assert grad.abs().sum(2).nonzero().tolist() == [[0, 3], [0, 4], [0, 5]]
    assert [grad[0, t].argmin().item() for t in (3, 4, 5)] == [6, 7, 8]
    short, _ = early_loss(batch, max_tokens=2)
    assert short.terms["early_tool_ce"].count == 2


def test_early_tool_json_prior_fallback():
    # a call is due and the teacher's answer has none: the chance of opening one at the answer's start counts
    batch = batch_of("xx.", "ccc.", should=[True, True])
    out, grad = early_loss(batch, ce_weight=0.0, prior_weight=1.0)
    term = out.terms["early_tool_prior"]
    q = len(OPENING) / VOCAB
    assert (term.count, term.total.item()) == (1, pytest.approx(-math.log(q)))
    assert float(out.diagnostics["mean_json_prior_nll0"].mean()) == pytest.approx(-math.log(q))
    assert float(out.diagnostics["frac_target_available"].mean()) == 0.5
    assert grad.abs().sum(2).nonzero().tolist() == [[0, 2]]
    # both ids of the set are pulled up alike, by (1 - q) / 2 each
    assert [grad[0, 2, token].item() for token in OPENING] == [pytest.approx(-(1 - q) / 2)] * 2


def test_early_tool_masked_when_not_needed():
    batch = batch_of("xx.", "ccc.", "x.", should=[False, False, False])
    out, grad = early_loss(batch, ce_weight=1.0, prior_weight=1.0, preamble_weight=1.0)
    assert {part: (term.total.item(), term.count) for part, term in out.terms.items()} == dict.fromkeys(
        ("early_tool_ce", "early_tool_prior", "early_tool_preamble"), (0.0, 0)
    )
    assert out.total.item() == 0.0
    assert torch.equal(grad, torch.zeros_like(grad))
    assert float(out.diagnostics["frac_should_use"].mean()) == 0.0
    # only the negative, when asked for, acts on such rows: -log(1 - 1/8) at their start
    out, grad = early_loss(batch, negative_weight=1.0)
    term = out.terms["early_tool_negative"]
    assert (term.count, term.total.item()) == (3, pytest.approx(3 * math.log(8 / 7)))
    assert grad.abs().sum(2).nonzero().tolist() == [[0, 2], [1, 2], [2, 2]]


def test_early_tool_ramp():
    assert [early_tool_ramp(step, 10) for step in (0, 1, 5, 10, 11, 10**6)] == [0.0, 0.1, 0.5, 1.0, 1.0, 1.0]
    assert early_tool_ramp(0, 0) == 1.0
    for step, warmup in ((-1, 10), (1, -1)):
        with pytest.raises(ValueError, match="must not be negative"):
            early_tool_ramp(step, warmup)
    batch = batch_of("ccc.")
    whole, grad = early_loss(batch)
    half, half_grad = early_loss(batch, ramp=early_tool_ramp(5, 10))
    assert half.total.item() == pytest.approx(0.5 * whole.total.item())
    torch.testing.assert_close(half_grad, 0.5 * grad)
    none, no_grad = early_loss(batch, ramp=early_tool_ramp(0, 10))
    assert none.total.item() == 0.0
    assert torch.equal(no_grad, torch.zeros_like(no_grad))
