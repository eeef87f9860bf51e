import math

import pytest
import torch
from loss_forms import generator, student_logits, teacher_logits
from naive import rows, sampled_kl_row

from kdfast.errors import DataError
from kdfast.losses import DenseTeacher, forward_kl, sampled_kl

IDS = torch.tensor([[3, 0, 7], [5, 5, 0], [1, 2, 0]])
COUNTS = torch.tensor([[2, 1, 1], [3, 1, 0], [0, 0, 0]])


def test_by_hand():
    x = torch.tensor([[0.5, 0.25, 0.25]]).log()
    term = sampled_kl(x, torch.tensor([[0, 2]]), torch.tensor([[1, 3]]))
    assert (float(term.total), term.count) == (pytest.approx(0.25 * math.log(2) + 0.75 * math.log(4)), 1)


def test_value_equals_the_oracle_with_repeated_ids_padding_and_a_row_without_draws():
    x = student_logits(3, 9, 0, torch.float64)
    term = sampled_kl(x, IDS.int(), COUNTS.int())
    assert float(term.total.detach()) == pytest.approx(sum(rows(sampled_kl_row, x, IDS, COUNTS)), abs=1e-12)
    assert term.count == 3
    term.total.backward()
    assert torch.equal(x.grad[2], torch.zeros(9, dtype=torch.float64))


def test_gradcheck():
    x = student_logits(3, 9, 0, torch.float64)
    assert torch.autograd.gradcheck(lambda z: sampled_kl(z, IDS, COUNTS).total, x)


def test_ids_outside_the_vocabulary_are_dropped_and_the_rest_weighed_anew():
    x = student_logits(1, 5, 1, torch.float64)
    got = sampled_kl(x, torch.tensor([[1, 9, 2]]), torch.tensor([[2, 5, 1]])).total.detach()
    assert float(got) == pytest.approx(
        float(sampled_kl(x, torch.tensor([[1, 2]]), torch.tensor([[2, 1]])).total.detach()), abs=1e-12
    )


def test_expectation_over_draws_is_the_kl_plus_the_teachers_entropy():
    x, logits = student_logits(1, 6, 2, torch.float64), teacher_logits(1, 6, 2, scale=1.0)
    p = logits.softmax(1)
    # the exact expectation over one draw: every id weighed with its probability
    values = torch.stack(
        [sampled_kl(x, torch.tensor([[i]]), torch.tensor([[1]])).total.detach() for i in range(6)]
    )
    entropy = -(p * p.log()).sum()
    kl = forward_kl(x, DenseTeacher(logits)).total.detach()
    assert float((p[0] * values).sum()) == pytest.approx(float(kl + entropy), abs=1e-12)


def test_gradient_is_unbiased():
    x, logits = student_logits(1, 6, 3, torch.float64), teacher_logits(1, 6, 3, scale=1.0)
    p = logits.softmax(1)
    drawn = torch.multinomial(p[0], 40_000, replacement=True, generator=generator(0))
    ids, counts = drawn.unique(return_counts=True)
    sampled = torch.autograd.grad(sampled_kl(x, ids[None], counts[None]).total, x)[0]
    exact = torch.autograd.grad(forward_kl(x, DenseTeacher(logits)).total, x)[0]
    torch.testing.assert_close(sampled, exact, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("ids", "counts"), [([[0, -1]], [[1, 1]]), ([[0, 1]], [[1, -1]])], ids=["negative id", "negative count"]
)
def test_negative_numbers_name_the_row(ids, counts):
    with pytest.raises(DataError, match=r"sample_ids and sample_counts must be >= 0, in row\(s\): 0"):
        sampled_kl(torch.zeros(1, 4), torch.tensor(ids), torch.tensor(counts))
    if ids[0][1] < 0:  # padding may hold anything
        assert float(sampled_kl(torch.zeros(1, 4), torch.tensor(ids), torch.tensor([[1, 0]])).total) > 0


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"sample_ids and sample_counts must both be \[N,S\]"):
        sampled_kl(torch.zeros(3, 9), IDS, COUNTS[:, :2])
    with pytest.raises(ValueError, match=r"sample_counts must have as many rows as logits \(3\)"):
        sampled_kl(torch.zeros(3, 9), IDS, COUNTS[:2])
