import math
import warnings

import pytest
import torch
from loss_forms import generator, teacher_logits, top_k
from naive import bucket_classes

from kdfast.errors import DataError
from kdfast.losses import DenseHead, DenseTeacher, SparseTeacher
from kdfast.losses.rows.teacher import sparse_classes

INF = math.inf


def classes(ids, logp, tail, vocab=5, known=None):
    teacher = SparseTeacher(torch.tensor(ids), torch.tensor(logp).double(), torch.tensor(tail).double())
    known = torch.ones(len(ids), dtype=torch.bool) if known is None else torch.tensor(known)
    return sparse_classes(teacher, known, vocab, torch.float64, torch.arange(len(ids)) + 10)


def masses(found):
    return [[round(p, 6) for p in row] for row in found.logp.exp().tolist()]


def test_every_row_adds_up_to_1_with_the_stored_tail():
    found = classes([[1, 2], [0, 3]], [[math.log(0.5), math.log(0.3)], [0.0, -INF]], [math.log(0.2), -INF])
    assert masses(found) == [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]
    assert found.usable.tolist() == [[True, True], [True, False]]


def test_rows_that_are_not_known_are_as_rows_without_entries():
    found = classes(
        [[1, 2], [-7, 3]], [[-0.7, -1.2], [math.nan, INF]], [-1.61, math.nan], known=[True, False]
    )
    assert masses(found)[1] == [0.0, 0.0, 1.0]
    assert found.usable.tolist()[1] == [False, False]


def test_no_tail_where_the_ids_are_the_whole_vocabulary():
    quarter = math.log(0.24)
    found = classes([[0, 1, 2, 9]], [[quarter] * 4], [math.log(0.04)], vocab=3)
    assert masses(found) == [[0.333333, 0.333333, 0.333333, 0.0, 0.0]]


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_oracle_whatever_is_repeated_dropped_or_ignored(seed):
    draws = generator(seed)
    ids = torch.randint(8, (1, 6), generator=draws)
    logp = torch.randn(1, 6, generator=draws, dtype=torch.float64) - 2
    logp[0, torch.rand(6, generator=draws) < 0.3] = -INF
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = sparse_classes(
            SparseTeacher(ids, logp, torch.tensor([-1.0]).double()),
            torch.tensor([True]),
            6,
            torch.float64,
            torch.tensor([0]),
        )
    expected_classes, expected = bucket_classes([0.0] * 6, ids[0].tolist(), logp[0].tolist(), -1.0)
    usable = found.usable[0].tolist()
    got = [value for value, used in zip(found.logp[0].tolist(), [*usable, True], strict=True) if used]
    assert [[i] for i, used in zip(ids[0].tolist(), usable, strict=True) if used] == expected_classes[:-1]
    assert got == pytest.approx(expected)


def test_the_tail_is_the_stored_one_not_one_minus_the_sum():
    # fp16 masses of a peaked row may add up to more than 1
    found = classes([[1, 2]], [[math.log(0.9995), math.log(0.002)]], [math.log(1e-5)])
    assert float(found.logp[0, 2]) == pytest.approx(math.log(1e-5 / 1.00151), rel=1e-6)


def test_masses_that_do_not_add_up_warn_but_fp16_rounding_does_not():
    made = top_k(teacher_logits(64, 50, 0, scale=4.0), 20)
    known, numbers = torch.ones(64, dtype=torch.bool), torch.arange(64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = SparseTeacher(made["ids"], made["logp"].half(), made["tail_logp"].half())
        sparse_classes(half, known, 50, torch.float32, numbers)
    made["logp"][4] += 0.01
    with pytest.warns(RuntimeWarning, match=r"do not add up to 1 and are renormalised, in row\(s\): 4$"):
        sparse_classes(SparseTeacher(*made.values()), known, 50, torch.float32, numbers)


@pytest.mark.parametrize("field", ["logp", "tail"])
@pytest.mark.parametrize("value", [math.nan, INF])
def test_nan_names_the_row_by_its_own_number(field, value):
    logp, tail = [[-0.7, -1.2], [-0.7, -1.2]], [-1.61, -1.61]
    if field == "logp":
        logp[1][0] = value
    else:
        tail[1] = value
    with pytest.raises(DataError, match=r"NaN or \+inf in row\(s\): 11"):
        classes([[1, 2], [1, 2]], logp, tail)


def test_a_negative_id_is_refused_unless_ignored():
    with pytest.raises(ValueError, match=r"topk_ids must be >= 0, in row\(s\): 10"):
        classes([[1, -1]], [[-0.7, -1.2]], [-1.61])
    assert masses(classes([[1, -1]], [[math.log(0.5), -INF]], [math.log(0.5)])) == [[0.5, 0.0, 0.5]]


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"must both be \[N,K\] with K >= 1: \[2, 3\], \[2, 2\]"):
        SparseTeacher(torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"must both be \[N,K\] with K >= 1: \[2, 0\], \[2, 0\]"):
        SparseTeacher(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2))
    with pytest.raises(ValueError, match=r"tail_logp must be \[N\] for 2 rows: \[3\]"):
        SparseTeacher(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3))


def test_rows_are_taken_by_mask_number_or_slice():
    sparse = SparseTeacher(torch.arange(6).view(3, 2), torch.zeros(3, 2), torch.arange(3.0), 2.0)
    taken = sparse.take(torch.tensor([False, True, True]))
    assert (taken.ids.tolist(), taken.tail_logp.tolist(), taken.logprob_temperature) == (
        [[2, 3], [4, 5]],
        [1.0, 2.0],
        2.0,
    )
    hidden, weight = torch.randn(4, 3), torch.randn(7, 3)
    head, dense = DenseHead(hidden, weight), DenseTeacher(hidden @ weight.T)
    for rows in (slice(1, 3), torch.tensor([3, 0])):
        for teacher in (head, dense):
            filled = teacher.take(rows).fill(torch.empty(3, teacher.vocab))
            torch.testing.assert_close(filled, dense.logits[rows])
    assert (head.rows, dense.rows, taken.rows) == (4, 4, 2)
