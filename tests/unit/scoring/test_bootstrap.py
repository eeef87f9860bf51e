"""Bootstrap intervals against drawing prompt by prompt, and against what they must be where that is known."""

import random

import numpy as np
import pytest

from kdfast.scoring import bootstrap
from kdfast.scoring.bootstrap import interval_of_quantile, interval_of_share, interval_of_sums, percentiles


def slow_interval(values, statistic, resamples=4000):
    """The obvious twin: draw prompts one by one, form the number, sort, take the 2.5 % and the 97.5 % one."""
    rng = random.Random(7)
    drawn = sorted(statistic([rng.choice(values) for _ in values]) for _ in range(resamples))
    return drawn[round(0.025 * resamples)], drawn[round(0.975 * resamples) - 1]


def mean(values):
    return sum(values) / len(values)


def near(interval, expected, within):
    return all(abs(one - other) <= within for one, other in zip(interval, expected, strict=True))


@pytest.mark.parametrize(("count", "total"), [(15, 20), (1, 40), (39, 40), (50, 100)])
def test_a_share_as_if_prompts_were_drawn(count, total):
    flags = [1] * count + [0] * (total - count)
    expected = slow_interval(flags, mean)
    assert near(interval_of_share(count, total), expected, 1.01 / total)
    by_draws = interval_of_sums(np.array(flags)[:, None], lambda sums: sums[:, 0] / total)
    assert near(by_draws, expected, 1.01 / total)


def f1(rows):
    right, wrong, missed = (sum(column) for column in zip(*rows, strict=True))
    return 2 * right / (2 * right + wrong + missed)


def f1_of_sums(sums):
    return 2 * sums[:, 0] / (2 * sums[:, 0] + sums[:, 1] + sums[:, 2])


def test_f1_as_if_prompts_were_drawn():
    rows = [[1, 0, 0]] * 20 + [[0, 1, 1]] * 8 + [[0, 0, 1]] * 5 + [[2, 1, 0]] * 4 + [[0, 1, 0]] * 3
    low, high = interval_of_sums(np.array(rows), f1_of_sums)
    assert near((low, high), slow_interval(rows, f1), 0.02)
    assert low < f1(rows) < high


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_a_quantile_as_if_prompts_were_drawn(level):
    values = [random.Random(3).lognormvariate(0, 0.4) for _ in range(60)]

    def quantile(drawn):
        return sorted(drawn)[int(np.ceil(level * len(drawn))) - 1]

    expected = slow_interval(values, quantile)
    ordered = sorted(values)
    places = [ordered.index(value) for value in (*interval_of_quantile(np.array(values), level), *expected)]
    assert abs(places[0] - places[2]) <= 1
    assert abs(places[1] - places[3]) <= 1


def test_infinities_stay():
    assert interval_of_quantile(np.array([1.0, np.inf, np.inf]), 0.95)[1] == np.inf
    assert interval_of_quantile(np.array([1.0, 1.0]), 0.5) == (1.0, 1.0)


def test_blocks_do_not_change_what_is_drawn(monkeypatch):
    table = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 4.0]])

    def drawn():
        return (
            interval_of_sums(table, lambda sums: sums[:, 0] / sums[:, 1]),
            interval_of_quantile(table[:, 0], 0.5),
        )

    whole = drawn()
    monkeypatch.setattr(bootstrap, "_CELLS", 100)
    assert drawn() == whole
    monkeypatch.setattr(bootstrap, "_CELLS", 1)
    assert drawn() == whole


def test_the_seed_decides():
    rows = np.arange(300.0).reshape(100, 3)

    def drawn(seed):
        return interval_of_sums(rows, lambda sums: sums[:, 0] / sums[:, 1], seed=seed)

    assert drawn(1) == drawn(1) != drawn(2)


def test_draws_in_which_nothing_can_be_formed_are_left_out():
    assert percentiles(np.array([np.nan, 1.0, np.nan])) == (1.0, 1.0)
    with pytest.raises(ValueError, match="statistic must be formed in at least one draw, got NaN in all"):
        percentiles(np.array([np.nan]))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        low, high = interval_of_share(int(rng.binomial(60, 0.7)), 60, seed=trial)
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 300 <= 0.99


@pytest.mark.parametrize(("count", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_shares_that_are_none(count, total):
    with pytest.raises(ValueError, match=f"got {count} of {total}"):
        interval_of_share(count, total)


def test_no_prompts():
    with pytest.raises(ValueError, match="at least one prompt"):
        interval_of_sums(np.zeros((0, 3)), f1_of_sums)
    with pytest.raises(ValueError, match="at least one prompt"):
        interval_of_quantile(np.zeros(0), 0.5)
