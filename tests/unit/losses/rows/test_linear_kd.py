import copy
import math

import pytest
import torch
from linear_kd_cases import (
    DIVERGENCES,
    EVERY_DIVERGENCE,
    TEACHERS,
    D,
    N,
    Tied,
    V,
    assert_same_gradients,
    coefficients,
    labels,
    model,
    plain_total,
    randn,
    simple_targets,
    teacher,
)
from loss_forms import teacher_logits, top_k
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdfast.errors import DataError
from kdfast.losses import (
    FORWARD_KL,
    DenseHead,
    DenseTeacher,
    RowTargets,
    SparseTeacher,
    forward_kl,
    linear_kd,
)


@TEACHERS
@EVERY_DIVERGENCE
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_plain_functions(name, kind, temperature, dtype):
    divergence, function = DIVERGENCES[name]
    fused, plain = teacher(kind, temperature)
    ids, label_coefficients = labels()
    kl_coefficients = coefficients()
    hidden, weight = model(dtype)
    expected = plain_total(
        hidden @ weight.T, function, plain, temperature, kl_coefficients, ids, label_coefficients
    )
    gradients = torch.autograd.grad(expected, (hidden, weight))
    targets = RowTargets(
        labels=ids,
        label_coefficients=label_coefficients,
        teacher=fused,
        divergence=divergence,
        kl_coefficients=kl_coefficients,
        temperature=temperature,
    )
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    size = float(kl_coefficients.abs().max()) * temperature**2
    for chunk_rows in (1, 3, 256):
        mine, head = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
        result = linear_kd(mine, head, targets, chunk_rows=chunk_rows)
        result.total.backward()
        for got, wanted in ((result.total, expected), (mine.grad, gradients[0]), (head.grad, gradients[1])):
            scale = max(size, float(wanted.detach().abs().max()))
            torch.testing.assert_close(got.double(), wanted.double(), rtol=0, atol=tolerance * scale)


@TEACHERS
def test_values_of_rows_before_their_coefficients(kind):
    hidden, weight = model()
    fused, plain = teacher(kind)
    ids, label_coefficients = labels()
    targets = RowTargets(
        labels=ids,
        label_coefficients=label_coefficients,
        teacher=fused,
        divergence=FORWARD_KL,
        kl_coefficients=coefficients(),
    )
    result = linear_kd(hidden, weight, targets, chunk_rows=4, want_best=True)
    logits = (hidden @ weight.T).detach()
    kl = [float(forward_kl(logits[n : n + 1], plain.take(slice(n, n + 1))).total) for n in range(N)]
    kl[2] = 0.0  # no teacher is known there
    assert result.kl.tolist() == pytest.approx(kl, abs=1e-12)
    logq = logits.log_softmax(1)
    expected = torch.where(ids >= 0, -logq.gather(1, ids.clamp(min=0)), 0.0)
    torch.testing.assert_close(result.labels, expected, rtol=0, atol=1e-12)
    assert result.best.tolist() == logits.argmax(1).tolist()
    assert not result.kl.requires_grad
    assert not result.labels.requires_grad


@pytest.mark.slow
@TEACHERS
@EVERY_DIVERGENCE
def test_gradcheck(name, kind):
    hidden, weight = randn(4, 3, seed=7).requires_grad_(), randn(5, 3, seed=8).requires_grad_()
    logits = teacher_logits(4, 5, 9)
    given = {
        "sparse": SparseTeacher(*top_k(logits, 2).values()),
        "dense": DenseTeacher(logits),
        "head": DenseHead(randn(4, 2, seed=10), randn(7, 2, seed=11)),
    }[kind]
    targets = RowTargets(
        labels=torch.tensor([[1], [-100], [0], [4]]),
        label_coefficients=randn(4, 1, seed=12),
        teacher=given,
        divergence=DIVERGENCES[name][0],
        kl_coefficients=torch.tensor([0.3, 1.0, 0.0, -2.0]),
    )
    assert torch.autograd.gradcheck(
        lambda h, w: linear_kd(h, w, targets, chunk_rows=3).total, (hidden, weight)
    )


def test_grad_output_other_than_1():
    gradients = []
    for factor in (1.0, 0.25, -3.0):
        hidden, weight = model()
        (linear_kd(hidden, weight, simple_targets()).total * factor).backward()
        gradients.append((hidden.grad / factor, weight.grad / factor))
    for pair in gradients[1:]:
        torch.testing.assert_close(pair, gradients[0], rtol=1e-14, atol=0)


def test_backward_twice_and_two_calls_in_one_graph():
    hidden, weight = model()
    total = linear_kd(hidden, weight, simple_targets(), chunk_rows=4).total
    total.backward(retain_graph=True)
    once = hidden.grad.clone(), weight.grad.clone()
    (total * 2).backward()
    torch.testing.assert_close((hidden.grad, weight.grad), (once[0] * 3, once[1] * 3), rtol=1e-13, atol=0)
    hidden.grad = weight.grad = None
    both = (
        linear_kd(hidden, weight, simple_targets()).total + linear_kd(hidden, weight, simple_targets()).total
    )
    both.backward()
    torch.testing.assert_close((hidden.grad, weight.grad), (once[0] * 2, once[1] * 2), rtol=1e-13, atol=0)


def test_a_gradient_of_the_gradient_is_refused():
    hidden, weight = model()
    gradient = torch.autograd.grad(
        linear_kd(hidden, weight, simple_targets()).total, hidden, create_graph=True
    )[0]
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Sizes(TorchDispatchMode):
    """Remembers the shape of every tensor that an operation makes; views of what there was are none."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in tensors((args, kwargs))}
        made = [leaf for leaf in tensors(result) if leaf.untyped_storage().data_ptr() not in given]
        self.shapes += [tuple(leaf.shape) for leaf in made]
        return result


@pytest.mark.parametrize("frozen", ["head", "hidden", "both"])
def test_what_is_frozen_gets_no_gradient_and_none_is_formed(frozen):
    expected = model()
    linear_kd(*expected, simple_targets(), chunk_rows=4).total.backward()
    hidden, weight = model()
    weight.requires_grad_(frozen == "hidden")
    hidden.requires_grad_(frozen == "head")
    with Sizes() as made:
        total = linear_kd(hidden, weight, simple_targets(), chunk_rows=4).total
        if frozen == "both":
            assert not total.requires_grad
        else:
            total.backward()
    if frozen != "hidden":
        assert weight.grad is None
        assert (V, D) not in made.shapes
    if frozen != "head":
        assert hidden.grad is None
        assert (N, D) not in made.shapes
    if frozen == "head":
        torch.testing.assert_close(hidden.grad, expected[0].grad, rtol=0, atol=0)
    if frozen == "hidden":
        torch.testing.assert_close(weight.grad, expected[1].grad, rtol=0, atol=0)


def test_no_gradient_is_formed_in_validation():
    hidden, weight = model()
    with torch.no_grad(), Sizes() as made:
        total = linear_kd(hidden, weight, simple_targets()).total
    assert not total.requires_grad
    assert (V, D) not in made.shapes


@pytest.mark.parametrize("kind", ["sparse", "head"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_no_tensor_as_large_as_the_logits_is_ever_made(kind, temperature):
    rows, vocab, chunk = 200, 500, 16
    hidden, weight = (
        randn(rows, 8, seed=0, dtype=torch.float32).requires_grad_(),
        randn(vocab, 8, seed=1, dtype=torch.float32).requires_grad_(),
    )
    head = DenseHead(
        randn(rows, 4, seed=2, dtype=torch.float32), randn(vocab + 8, 4, seed=3, dtype=torch.float32)
    )
    sparse = SparseTeacher(
        *top_k((head.hidden @ head.weight.T)[:, :vocab] / temperature, 20).values(), temperature
    )
    targets = RowTargets(
        labels=torch.arange(rows)[:, None],
        teacher=head if kind == "head" else sparse,
        divergence=FORWARD_KL,
        temperature=temperature,
    )
    with Sizes() as made:
        linear_kd(hidden, weight, targets, chunk_rows=chunk).total.backward()
    assert max(map(math.prod, made.shapes)) <= chunk * (vocab + 8)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "own head"])
def test_tied_embeddings(tied):
    torch.manual_seed(0)
    fused = Tied(tied=tied).double()
    plain, ids = copy.deepcopy(fused), torch.arange(N) % V
    total, expected = fused(ids, simple_targets()), plain(ids, simple_targets(), fused=False)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    total.backward()
    expected.backward()
    assert_same_gradients(fused, plain, rtol=0, atol=1e-12)


def take(targets, rows):
    return RowTargets(
        labels=targets.labels[rows],
        label_coefficients=targets.label_coefficients[rows],
        teacher=targets.teacher.take(rows),
        divergence=targets.divergence,
        kl_coefficients=targets.kl_coefficients[rows],
    )


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [0, 12]], ids=str)
def test_accumulated_micro_batches_equal_one_batch(sizes):
    torch.manual_seed(0)
    whole = Tied(tied=True).double()
    parts, ids = copy.deepcopy(whole), torch.arange(12) % V
    whole(ids, simple_targets(12)).backward()
    for rows in torch.arange(12).split(sizes):
        parts(ids[rows], take(simple_targets(12), rows)).backward()
    assert_same_gradients(parts, whole, rtol=0, atol=1e-13)


def test_no_row_is_0_on_the_graph():
    for given in (teacher("sparse")[0], teacher("dense")[0], teacher("head")[0]):
        hidden, weight = model()
        targets = RowTargets(
            labels=torch.zeros(0, 1, dtype=torch.int64),
            teacher=given.take(slice(0, 0)),
            divergence=FORWARD_KL,
        )
        result = linear_kd(hidden[:0], weight, targets, want_best=True)
        assert float(result.total.detach()) == 0.0
        result.total.backward()
        assert torch.equal(hidden.grad, torch.zeros(N, D, dtype=torch.float64))
        assert torch.equal(weight.grad, torch.zeros(V, D, dtype=torch.float64))
        assert (result.kl.shape, result.labels.shape, result.best.shape) == ((0,), (0, 1), (0,))


def test_a_label_of_minus_100_drops_the_row_from_ce_only():
    hidden, weight = model()
    full = simple_targets()
    none = RowTargets(
        labels=torch.full((N, 1), -100),
        label_coefficients=full.label_coefficients,
        teacher=full.teacher,
        divergence=FORWARD_KL,
        kl_coefficients=full.kl_coefficients,
    )
    alone = RowTargets(teacher=full.teacher, divergence=FORWARD_KL, kl_coefficients=full.kl_coefficients)
    results = [linear_kd(hidden, weight, targets) for targets in (none, alone)]
    assert float(results[0].total.detach()) == float(results[1].total.detach()) > 0
    gradients = [torch.autograd.grad(result.total, weight)[0] for result in results]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_rows_that_are_not_finite_raise_or_are_left_out(kind):
    hidden, weight = model()
    with torch.no_grad():
        hidden[7, 0] = math.nan
    full = simple_targets()
    targets = RowTargets(
        labels=full.labels,
        label_coefficients=full.label_coefficients,
        teacher=teacher(kind)[0],
        divergence=FORWARD_KL,
        kl_coefficients=full.kl_coefficients,
    )
    with pytest.raises(FloatingPointError, match=r"logits are not finite in 1 row\(s\): 7"):
        linear_kd(hidden, weight, targets, chunk_rows=3)
    result = linear_kd(hidden, weight, targets, chunk_rows=3, nan="skip_row")
    assert result.bad_kl.nonzero().flatten().tolist() == [7]
    assert result.bad_labels.any(1).nonzero().flatten().tolist() == [7]
    result.total.backward()
    assert torch.equal(hidden.grad[7], torch.zeros(D, dtype=torch.float64))
    assert bool(hidden.grad.isfinite().all())
    # the head's gradient of that row is 0 times NaN unless it is left out
    assert bool(weight.grad.isfinite().all())


def test_nan_in_a_dense_teacher_names_its_row_in_any_chunk():
    hidden, weight = model()
    head = teacher("head")[0]
    head.hidden[8, 1] = math.nan
    with pytest.raises(DataError, match=r"teacher logits are NaN or \+inf in row\(s\): 8$"):
        linear_kd(hidden, weight, RowTargets(teacher=head, divergence=FORWARD_KL), chunk_rows=3)


def test_no_gradient_reaches_the_teacher():
    head = DenseHead(randn(N, 4, seed=2).requires_grad_(), randn(V, 4, seed=3).requires_grad_())
    linear_kd(*model(), RowTargets(teacher=head, divergence=FORWARD_KL)).total.backward()
    assert head.hidden.grad is None
    assert head.weight.grad is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"hidden": torch.zeros(2, 3, 4)},
            r"hidden must be \[N,D\] and weight \[V,D\]: \[2, 3, 4\], \[19, 7\]",
        ),
        ({"weight": torch.zeros(V, 5)}, r"hidden must be \[N,D\] and weight \[V,D\]: \[11, 7\], \[19, 5\]"),
        ({"hidden": torch.zeros(4, D)}, r"targets must have as many rows as hidden \(4\): 11"),
        ({"chunk_rows": 0}, "chunk_rows must be at least 1: 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    hidden, weight = model()
    given = {"hidden": hidden, "weight": weight, "targets": simple_targets(), **arguments}
    with pytest.raises(ValueError, match=message):
        linear_kd(**given)
