"""Drawing ids: unbiased, seeded by the row alone, the same in any chunk."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from kdfast.config import TeacherConfig
from kdfast.errors import ConfigError
from kdfast.teacher import draw_samples
from kdfast.teacher.local.samples import DRAW_ROWS, row_uniforms


def uniforms(rows: int, samples: int, key: bytes = b"key") -> torch.Tensor:
    return torch.from_numpy(row_uniforms(key, rows, samples))


def naive(logp: torch.Tensor, numbers: torch.Tensor) -> list[dict[int, int]]:
    """One draw at a time: walk up the masses until the number is passed."""
    rows = []
    for masses, draws in zip(logp.double().exp().tolist(), numbers.tolist(), strict=True):
        whole, counts = sum(masses), Counter[int]()
        for draw in draws:
            passed, token = 0.0, -1
            while passed <= draw * whole:
                token += 1
                passed += masses[token]
            counts[token] += 1
        rows.append(dict(counts))
    return rows


def test_equal_to_the_naive_draws_with_distinct_ids_first() -> None:
    logp = torch.log_softmax(4 * torch.randn(3 * DRAW_ROWS + 1, 50, generator=torch.manual_seed(0)), 1)
    numbers = uniforms(len(logp), 20)
    ids, counts = draw_samples(logp, numbers)
    assert (ids.dtype, counts.dtype, ids.shape, counts.shape) == (*[torch.int32] * 2, *[(len(logp), 20)] * 2)
    for row, expected in enumerate(naive(logp, numbers)):
        distinct = int((counts[row] > 0).sum())
        assert dict(zip(ids[row, :distinct].tolist(), counts[row].tolist(), strict=False)) == expected
        assert ids[row, :distinct].tolist() == sorted(expected)
        assert not ids[row, distinct:].any()
        assert not counts[row, distinct:].any()


def test_frequencies_are_those_of_the_distribution() -> None:
    rows, samples = 400, 500
    logp = torch.log_softmax(2 * torch.randn(1, 40, generator=torch.manual_seed(1)), 1)
    ids, counts = draw_samples(logp.expand(rows, -1), uniforms(rows, samples))
    drawn = torch.zeros(40).scatter_add(0, ids.flatten().long(), counts.flatten().float()).double()
    expected = logp[0].double().exp() * rows * samples
    deviation = (expected * (1 - expected / (rows * samples))).sqrt()
    assert ((drawn - expected).abs() <= 4.5 * deviation).all()
    chi_square = float(((drawn - expected) ** 2 / expected).sum())
    assert chi_square < 39 + 4 * (2 * 39) ** 0.5


def test_the_sampled_cross_entropy_has_the_full_one_as_its_mean() -> None:
    rows, samples = 2000, 8
    generator = torch.manual_seed(2)
    logp = torch.log_softmax(3 * torch.randn(rows, 60, generator=generator), 1)
    logq = torch.log_softmax(torch.randn(rows, 60, generator=generator), 1).double()
    ids, counts = draw_samples(logp, uniforms(rows, samples))
    sampled = -(counts / samples * logq.gather(1, ids.long())).sum(1)
    p = logp.double().exp()
    full = -(p * logq).sum(1)
    variance = ((p * logq**2).sum(1) - full**2) / samples
    assert abs(float((sampled - full).sum())) <= 4 * float(variance.sum().sqrt())


def test_ids_without_mass_are_never_drawn() -> None:
    logp = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(5, -1)
    ids, counts = draw_samples(
        logp, torch.tensor([[0.0, 0.5, 1 - 2.0**-53]], dtype=torch.float64).expand(5, -1)
    )
    assert ids.tolist() == [[1, 0, 0]] * 5
    assert counts.tolist() == [[3, 0, 0]] * 5


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    logp = torch.log_softmax(torch.randn(2 * DRAW_ROWS, 30, generator=torch.manual_seed(3)), 1)
    numbers = uniforms(len(logp), 9)
    ids, counts = draw_samples(logp, numbers)
    for row in (0, 31, 32, 63):
        one = draw_samples(logp[row : row + 1], numbers[row : row + 1])
        assert torch.equal(one[0][0], ids[row])
        assert torch.equal(one[1][0], counts[row])
    none = draw_samples(logp[:0], numbers[:0])
    assert [part.shape for part in none] == [(0, 9)] * 2


def test_uniforms_depend_on_the_key_and_nothing_else() -> None:
    many = row_uniforms(bytes(range(16)), 1000, 7)
    assert np.array_equal(many[:3], row_uniforms(bytes(range(16)), 3, 7))
    assert 0 <= many.min() < many.max() < 1
    assert abs(many.mean() - 0.5) < 4 / (12 * many.size) ** 0.5
    assert not np.isin(many, row_uniforms(bytes(range(1, 17)), 1000, 7)).any()
    # known values: stores made today must be made alike tomorrow
    assert many[0, :2].tolist() == [0.6809497871374243, 0.45163725986683]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"samples": -1}, r"teacher\.samples: must be an integer >= 0 and <= 65535, got -1"),
        ({"samples": 65536}, r"teacher\.samples: must be an integer >= 0 and <= 65535, got 65536"),
        ({"samples": 8}, r"teacher\.samples: must be 0 without teacher\.model .*, got 8"),
    ],
)
def test_samples_out_of_range(settings: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TeacherConfig(**settings)
