import math

import pytest
import torch
from naive import cross_entropy_row, rows

from kdfast.errors import DataError
from kdfast.losses import cross_entropy

LABELS = torch.tensor([3, -100, 0, 10])
WEIGHTS = torch.tensor([1.0, 9.0, 1.15, 1.3])


def logits(dtype=torch.float64):
    return (torch.randn(4, 11, generator=torch.Generator().manual_seed(1)) * 3).to(dtype).requires_grad_()


def test_value_and_count_equal_the_naive_twin():
    x = logits()
    term = cross_entropy(x, LABELS, WEIGHTS.double())
    assert term.total.dtype == torch.float64
    expected = sum(rows(cross_entropy_row, x, LABELS, WEIGHTS.double()))
    assert float(term.total.detach()) == pytest.approx(expected, abs=1e-12)
    assert term.count == pytest.approx(3.45)


def test_uniform_student_by_hand():
    term = cross_entropy(torch.zeros(2, 8), torch.tensor([1, 7]))
    assert float(term.total) == pytest.approx(2 * math.log(8))
    assert term.count == 2


def test_gradient_equals_torch_and_gradcheck():
    mine, theirs = logits(), logits()
    cross_entropy(mine, LABELS, WEIGHTS.double()).total.backward()
    rows = torch.nn.functional.cross_entropy(theirs, LABELS, reduction="none", ignore_index=-100)
    (rows * WEIGHTS.double()).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, LABELS, WEIGHTS.double()).total, logits())


@pytest.mark.parametrize("label", [11, -1, -99, 1 << 40])
def test_label_outside_the_vocabulary_is_refused_before_compute(label):
    with pytest.raises(
        ValueError, match=rf"labels must be -100 or in 0..10, in row\(s\) 2: {label}"
    ) as caught:
        cross_entropy(torch.full((4, 11), math.nan), torch.tensor([3, -100, label, 10]))
    assert isinstance(caught.value, DataError)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_bad_weight_is_refused(weight):
    with pytest.raises(ValueError, match=r"weights must be finite and >= 0, in row\(s\): 1"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([1.0, weight]))


def test_a_label_in_a_masked_column_names_its_row():
    x = torch.zeros(3, 4)
    x[1, 2] = -math.inf
    assert float(cross_entropy(x, torch.tensor([0, 1, 0])).total) == pytest.approx(
        2 * math.log(4) + math.log(3)
    )
    with pytest.raises(FloatingPointError, match=r"1 row\(s\): 1"):
        cross_entropy(x, torch.tensor([0, 2, 0]))


def test_without_weights_each_label_counts_1():
    x = logits()
    expected = torch.nn.functional.cross_entropy(x, LABELS, reduction="sum", ignore_index=-100)
    term = cross_entropy(x, LABELS)
    assert (float(term.total.detach()), term.count) == (pytest.approx(float(expected.detach())), 3)


def test_a_weight_of_0_counts_nothing_and_pulls_on_nothing():
    x = logits()
    term = cross_entropy(x, LABELS, torch.tensor([0.0, 1.0, 2.0, 1.0]))
    assert term.count == 3
    term.total.backward()
    assert torch.equal(x.grad[:2], torch.zeros(2, 11, dtype=torch.float64))


def test_all_labels_absent_is_0_with_zero_gradient():
    x = logits()
    term = cross_entropy(x, torch.full((4,), -100))
    assert (float(term.total.detach()), term.count) == (0.0, 0)
    term.total.backward()
    assert torch.equal(x.grad, torch.zeros(4, 11, dtype=torch.float64))


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"labels must have as many rows as logits \(4\): \[3\]"):
        cross_entropy(logits(), LABELS[:3])
    with pytest.raises(ValueError, match=r"weights must have as many rows as logits \(4\): \[3\]"):
        cross_entropy(logits(), LABELS, WEIGHTS[:3])
