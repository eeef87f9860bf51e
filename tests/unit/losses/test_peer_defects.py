"""Known defects of respected peers: a peer's formula gives one number, the definition another, and ours is that."""

import math

import numpy as np
import pytest
import tiny_store
import torch
from loss_forms import FORMS, student_logits, teacher_logits, top_k
from torch.nn.functional import kl_div

from kdfast import _rust
from kdfast.losses import (
    FORWARD_KL,
    LOSSES,
    DenseTeacher,
    RowTargets,
    SparseTeacher,
    cross_entropy,
    forward_kl,
    generalized_jsd,
    linear_kd,
    reverse_kl,
    supervised_mask,
)

INF = math.inf
EOS = 2  # of the tiny store
EVERY = pytest.mark.parametrize("form", FORMS, ids=str)


def value(term):
    return float(term.total.detach())


def full_kl(student, teacher):
    logp, logq = teacher.log_softmax(-1), student.log_softmax(-1)
    return float((logp.exp() * (logp - logq)).sum().detach())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store.build(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def batch(store):
    """Four rows, padded with the id that ends a turn."""
    collated = _rust.collate(store, np.arange(4), 512, EOS, threads=0)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in collated.items()}


def test_mask_one_position_off_against_shifted_logits(batch):
    # DistillKit's trainer shifts the logits and not the mask
    ids, labels = batch["input_ids"], batch["labels"]
    logits = torch.randn(*ids.shape, 500, generator=torch.Generator().manual_seed(0))
    mask = supervised_mask(batch)
    ours = cross_entropy(logits[mask], labels[mask])
    starts, lengths = batch["response_start"].tolist(), batch["response_length"].tolist()
    by_hand = 0.0
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for position in range(start, start + length):  # the token at a position is predicted one before
            by_hand -= float(logits[row, position - 1].log_softmax(0)[ids[row, position]])
    assert value(ours) == pytest.approx(by_hand, rel=1e-5)
    assert ours.count == sum(lengths)
    shifted = torch.zeros_like(mask)
    shifted[:, 1:] = mask[:, :-1]
    wrong = -logits[shifted].log_softmax(1).gather(1, labels[mask][:, None]).sum()
    assert float(wrong) != pytest.approx(by_hand, rel=1e-3)


def test_eos_masked_as_padding_when_pad_is_eos(batch):
    ends = batch["response_start"] + batch["response_length"] - 2
    rows = torch.arange(len(ends))
    assert batch["labels"][rows, ends].tolist() == [EOS] * len(ends)
    wrong = batch["labels"].masked_fill(batch["labels"] == EOS, -100)
    assert int((wrong != -100).sum()) < int((batch["labels"] != -100).sum())
    padding = batch["attention_mask"] == 0
    assert bool((batch["input_ids"][padding] == EOS).all())
    assert bool((batch["labels"][padding] == -100).all())


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.temperature], ids=lambda loss: loss.name)
def test_temperature_set_but_never_used(loss):
    student, logits = student_logits(4, 9, 0, torch.float64), DenseTeacher(teacher_logits(4, 9, 0))
    cold, hot = (loss.function(student, logits, temperature=t).total for t in (1.0, 4.0))
    assert float(cold.detach()) != pytest.approx(float(hot.detach()), rel=0.05)


def test_truncated_kl_clamped_at_0():
    # verl sums over the top-k only and clamps: no loss and no gradient while the student is above the teacher there
    student = torch.tensor([[3.0, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    logp = torch.tensor([[0.5]], dtype=torch.float64).log()
    truncated = float((logp.exp() * (logp - student.log_softmax(1)[:, :1])).sum().detach())
    assert truncated < 0
    term = forward_kl(student, SparseTeacher(torch.tensor([[0]]), logp, logp[0]))
    assert value(term) > 0.1
    term.total.backward()
    assert float(student.grad[0, 0]) == pytest.approx(float(student.softmax(1)[0, 0].detach()) - 0.5)


def test_student_renormalised_over_the_top_k():
    # ms-swift, NeMo-RL, MaxText: a student with the right shape inside and the wrong mass outside sees no loss
    student = torch.tensor([[1.0, 0.0, 5.0, 5.0]], dtype=torch.float64)
    logp = torch.tensor([[1.0, 0.0]], dtype=torch.float64).log_softmax(1) + math.log(0.9)
    renormalised = kl_div(
        student[:, :2].log_softmax(1), logp.log_softmax(1), reduction="sum", log_target=True
    )
    assert float(renormalised) == pytest.approx(0.0, abs=1e-12)
    teacher = SparseTeacher(torch.tensor([[0, 1]]), logp, torch.tensor([0.1]).double().log())
    assert value(forward_kl(student, teacher)) > 2


def test_gradient_blind_to_the_mass_outside_the_top_k():
    student = torch.tensor([[1.0, 0.0, 5.0, 5.0]], dtype=torch.float64, requires_grad=True)
    logp = torch.tensor([[1.0, 0.0]], dtype=torch.float64).log_softmax(1) + math.log(0.9)
    teacher = SparseTeacher(torch.tensor([[0, 1]]), logp, torch.tensor([0.1]).double().log())
    forward_kl(student, teacher).total.backward()
    outside = float(student.detach().softmax(1)[0, 2:].sum())
    assert student.grad[0, 2:].tolist() == pytest.approx([0.5 * (outside - 0.1)] * 2)


def test_missing_vocabulary_filled_with_the_other_models_logits():
    # ms-swift; Qwen's 151936 against 152064: a teacher has no mass at ids it lacks, whatever the student says there
    student, logits = student_logits(2, 152064, 0, torch.float64), teacher_logits(2, 151936, 0)
    filled = torch.cat([logits, student.detach()[:, 151936:]], 1)
    expected = full_kl(student, torch.cat([logits, torch.full((2, 128), -500.0)], 1))
    assert value(forward_kl(student, DenseTeacher(logits))) == pytest.approx(expected, abs=1e-9)
    assert full_kl(student, filled) != pytest.approx(expected, rel=1e-4)


def test_student_padded_with_0():
    # Liger pads the student's logits with 0 where the teacher has more ids: mass that the student cannot give
    student, logits = student_logits(2, 151936, 0, torch.float64), teacher_logits(2, 152064, 0)
    expected = full_kl(student, logits[:, :151936])
    assert value(forward_kl(student, DenseTeacher(logits))) == pytest.approx(expected, abs=1e-9)
    padded = torch.nn.functional.pad(student.detach(), (0, 128))
    assert full_kl(padded, logits) != pytest.approx(expected, rel=1e-4)


@EVERY
def test_nan_from_an_all_masked_batch(form):
    # a mean over no row is 0/0; torchtune's reverse and symmetric KL are NaN there
    x, inputs = student_logits(3, 9, 0), form.inputs(3, 9, 4)
    if form.kind == "labels":
        term = form.term(x, {**inputs, "labels": torch.full((3,), -100)})
    else:
        term = form.term(x, inputs, mask=torch.zeros(3, dtype=torch.bool))
    assert (value(term), float(term.mean().detach()), term.count) == (0.0, 0.0, 0)
    term.mean().backward()
    assert torch.equal(x.grad, torch.zeros(3, 9))


@EVERY
def test_infinite_loss_on_near_one_hot_rows(form):
    # DistillKit takes the student's tail as log1p(-sum of q), which is -inf where the q add up to 1 in fp32
    x = torch.zeros(2, 9)
    x[:, 3] = 60.0
    assert float(torch.log1p(-x.softmax(1)[:, :6].sum(1)).max()) == -INF
    x.requires_grad_()
    term = form.term(x, form.inputs(2, 9, 5))
    term.total.backward()
    assert math.isfinite(value(term))
    assert bool(x.grad.isfinite().all())


def test_tail_taken_as_one_minus_the_sum_of_half_precision_masses():
    made = top_k(teacher_logits(200, 50, 0, scale=9.0), 20)
    masses = made["logp"].half().float().exp().sum(1)
    assert bool((masses > 1).any())  # the log of a negative mass is NaN
    teacher = SparseTeacher(made["ids"], made["logp"].half(), made["tail_logp"].half())
    assert math.isfinite(value(forward_kl(student_logits(200, 50, 0), teacher)))


def test_gradient_lacks_the_square_of_the_temperature():
    # axolotl multiplies the value by T^2 and not the gradient: 4 times too small at T = 2
    temperature = 2.0
    x, logits = student_logits(3, 9, 0, torch.float64), teacher_logits(3, 9, 0)
    teacher = SparseTeacher(*top_k(logits / temperature, 9).values(), temperature)
    plain = temperature**2 * kl_div(
        (x / temperature).log_softmax(1),
        (logits / temperature).log_softmax(1),
        reduction="sum",
        log_target=True,
    )
    for given in (teacher, DenseTeacher(logits)):
        term = forward_kl(x, given, temperature=temperature)
        assert value(term) == pytest.approx(float(plain.detach()), abs=1e-12)
        gradients = [torch.autograd.grad(t, x, retain_graph=True)[0] for t in (term.total, plain)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_mean_that_divides_by_the_vocabulary():
    # modelopt's default, kl_div's "mean"
    x, logits = student_logits(4, 9, 0, torch.float64), teacher_logits(4, 9, 0)
    mean = float(forward_kl(x, DenseTeacher(logits)).mean().detach())
    assert mean == pytest.approx(full_kl(x, logits) / 4)
    wrong = kl_div(x.log_softmax(1), logits.log_softmax(1), reduction="none", log_target=True).mean()
    assert float(wrong.detach()) == pytest.approx(mean / 9)


@pytest.mark.parametrize("form", [form for form in FORMS if form.kind == "dense"], ids=str)
def test_nan_where_both_models_mask_their_padding_with_minus_infinity(form):
    # VeOmni and the plain formula: exp(-inf) * (-inf - -inf)
    x, logits = student_logits(3, 9, 0).detach(), teacher_logits(3, 9, 0)
    short = form.term(x[:, :7], {"logits": logits[:, :7]})
    x[:, 7:], logits[:, 7:] = -INF, -INF
    logp, logq = logits.log_softmax(1), x.log_softmax(1)
    assert math.isnan(float((logp.exp() * (logp - logq)).sum()))
    x.requires_grad_()
    term = form.term(x, {"logits": logits})
    assert value(term) == pytest.approx(value(short), abs=1e-6)
    term.total.backward()
    assert bool(x.grad.isfinite().all())
    assert torch.equal(x.grad[:, 7:], torch.zeros(3, 2))


def test_kl_maths_in_half_precision():
    # the maths of the same bf16 logits in bf16 is off by percents
    logits = teacher_logits(64, 4000, 0).bfloat16()
    x = (logits + 0.2 * student_logits(64, 4000, 0).detach()).bfloat16()
    exact = full_kl(x.double(), logits.double())
    rounded = kl_div(x.log_softmax(1), logits.log_softmax(1), reduction="none", log_target=True).float().sum()
    assert abs(float(rounded) / exact - 1) > 2e-3
    for loss in (
        forward_kl(x, DenseTeacher(logits)),
        forward_kl(x, SparseTeacher(*top_k(logits, 4000).values())),
    ):
        assert value(loss) == pytest.approx(exact, rel=1e-6)


def test_loss_scale_under_gradient_accumulation():
    # a mean of micro-batches' means weighs a short answer's tokens more
    x, labels = student_logits(8, 9, 0, torch.float64), torch.arange(8)
    parts = [slice(0, 1), slice(1, 8)]
    terms = [cross_entropy(x[rows], labels[rows]) for rows in parts]
    count = sum(term.count for term in terms)  # known before the forward
    whole = cross_entropy(x, labels)
    accumulated = sum(float(term.scaled(1 / count).detach()) for term in terms)
    assert accumulated == pytest.approx(float(whole.mean().detach()), abs=1e-12)
    wrong = sum(float(term.mean().detach()) for term in terms) / 2
    assert wrong != pytest.approx(accumulated, rel=1e-2)


@pytest.mark.parametrize("loss", [reverse_kl, generalized_jsd])
def test_symmetric_losses_of_a_teacher_that_is_known_nowhere(loss):
    x = student_logits(2, 9, 0)
    nothing = SparseTeacher(torch.zeros(2, 3).int(), torch.full((2, 3), -INF), torch.zeros(2))
    term = loss(x, nothing)
    assert value(term) == 0.0
    term.total.backward()
    assert float(x.grad.abs().max()) < 1e-7


def test_a_tensor_of_all_positions_for_a_few_supervised_ones():
    # peers project every position of the batch; only the supervised rows are handed over here
    hidden, weight = torch.randn(4 * 32, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    mask = torch.zeros(4 * 32, dtype=torch.bool)
    mask[[5, 40, 41]] = True
    logits = (hidden @ weight.T).detach()
    teacher = DenseTeacher(logits[mask] * 2)
    result = linear_kd(hidden[mask], weight, RowTargets(teacher=teacher, divergence=FORWARD_KL))
    assert float(result.total.detach()) == pytest.approx(value(forward_kl(logits[mask], teacher)), rel=1e-5)
    result.total.backward()
    assert torch.equal(hidden.grad[~mask], torch.zeros(125, 8))
    assert bool((hidden.grad[mask].abs().amax(1) > 0).all())
