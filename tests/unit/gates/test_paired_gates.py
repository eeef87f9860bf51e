"""The paired decision: verdicts by hand, quantiles against a slow twin, failure rates by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.config.gates import GatesConfig
from kdfast.gates import PairedTrial, Pairs, decide_paired, planned_pairs
from kdfast.gates.bootstrap import drawn_counts, drawn_quantiles, quantile
from kdfast.gates.estimate import Estimate, estimate_slowdown
from kdfast.gates.paired import spread

TIMES = np.linspace(80.0, 120.0, 40)


def pairs(by, blessed=TIMES):
    return Pairs(np.arange(len(blessed)), blessed * by, blessed)


def noisy(count, cv, by, seed, prompts=40):
    rng = np.random.default_rng(seed)
    prompt = np.arange(count) % prompts
    candidate, blessed = 100 * np.exp(cv * rng.standard_normal((2, count)))
    return Pairs(prompt, candidate * by, blessed)


def run(machine, limits=None, seed=0):
    """Runs a trial to its end; `machine(count, call)` gives its pairs.

    Returns the decision on ttft, and (block, number of pairs) of each call.
    """
    trial, taken = PairedTrial(limits, seed=seed), []
    while trial.need_pairs:
        taken.append((trial.block, trial.need_pairs))
        trial.add({"ttft": machine(trial.need_pairs, len(taken)), "tps": pairs(1.0)})
    return trial.decisions()["ttft"], taken


# ------------------------------------------------------------------ quantiles and draws


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-5, 5)), min_size=1, max_size=30),
    st.sampled_from([0.05, 0.5, 0.95]),
    st.integers(0, 5),
)
def test_drawn_quantiles_equal_copying_the_values(rows, level, seed):
    names = sorted({name for name, _ in rows})
    prompt = np.array([names.index(name) for name, _ in rows])
    values = np.array([value for _, value in rows])
    counts = drawn_counts(len(names), resamples=7, seed=seed)
    assert (counts.sum(axis=1) == len(names)).all()
    for count, found in zip(counts, drawn_quantiles(values, prompt, counts, level), strict=True):
        copied = np.repeat(values, count[prompt])
        expected = np.median(copied) if level == 0.5 else np.quantile(copied, level, method="inverted_cdf")
        assert found == expected


def test_quantile_is_a_measured_value():
    assert quantile(np.arange(1.0, 101.0), 0.95) == 95.0
    assert quantile(np.array([1.0, 10.0]), 0.95) == 10.0
    assert quantile(np.array([3.0, 1.0, 2.0]), 0.5) == 2.0


# ------------------------------------------------------------------ the rule, by hand


@pytest.mark.parametrize(
    ("sd", "limit", "expected"),
    [
        (0.0, 1.05, 20),
        (0.1, 1.05, 25),
        (0.5, 1.05, 625),
        (0.5, 1.2, 625),  # a looser limit does not ask for fewer pairs
        (0.1, 1.01, math.ceil((5 * math.log(1.05) / math.log(1.01)) ** 2)),
    ],
)
def test_planned_pairs(sd, limit, expected):
    assert planned_pairs(sd, limit) == expected


@pytest.mark.parametrize(
    ("first", "again", "status", "need"),
    [
        (1.0, None, "pass", 0),
        (0.5, None, "pass", 0),
        (1.0499, None, "pass", 0),
        (1.0501, None, "need_more", 40),
        (1.0501, 1.0501, "fail", 0),
        (1.5, 1.5, "fail", 0),
        (1.5, 1.0, "pass", 0),
    ],
)
def test_without_noise_the_limit_is_exact(first, again, status, need):
    decision = decide_paired(pairs(first), None if again is None else pairs(again))
    assert (decision.status, decision.need_pairs) == (status, need)
    assert decision.block == ("confirmation" if first > 1.05 else "first")
    if status != "need_more":
        assert decision.median.estimate.ratio == pytest.approx(again if status == "pass" and again else first)


def test_the_limit_of_tokens_per_second_is_its_inverse():
    limit = GatesConfig().tps_limit_ratio
    assert limit == pytest.approx(1 / 0.95)
    assert decide_paired(pairs(1.0525), limit_ratio=limit).status == "pass"
    assert decide_paired(pairs(1.0528), limit_ratio=limit).block == "confirmation"


def test_a_pilot_first_then_as_many_as_its_spread_asks_for():
    pilot = noisy(20, 0.1, 1.0, seed=1)
    assert decide_paired(noisy(13, 0.1, 1.0, seed=1)).need_pairs == 7
    planned = math.ceil((50 * np.std(pilot.log_ratios(), ddof=1)) ** 2)  # no outliers among these
    decision = decide_paired(pilot)
    assert (decision.planned_pairs, decision.need_pairs) == (planned, planned - 20)
    assert decision.median.estimate is None
    assert decide_paired(noisy(20, 1.0, 1.0, seed=1)).need_pairs == 40  # at most twice as many as there are


def test_one_run_held_up_by_the_machine_does_not_ask_for_a_thousand_pairs():
    held_up = noisy(20, 0.03, 1.0, seed=1)
    held_up.candidate[3] *= 100
    assert planned_pairs(np.std(held_up.log_ratios())) > 1000
    assert decide_paired(held_up).planned_pairs == 20
    # When more than half of the pairs are equal, nothing is an outlier.
    equal = pairs(np.where(np.arange(40) < 3, 2.0, 1.0))
    assert spread(equal) == pytest.approx(np.std(equal.log_ratios(), ddof=1))


def test_ratio_above_the_limit_with_a_bound_below_one_asks_for_more():
    # 21 of 40 prompts 10 % slower, 19 unchanged: the median is at 1.1, its bound at 1.
    by = np.where(np.arange(40) < 21, 1.1, 1.0)
    decision = decide_paired(pairs(by))
    assert (decision.status, decision.block, decision.need_pairs) == ("need_more", "first", 20)
    capped = decide_paired(pairs(by), max_pairs=40)
    assert capped.status == "inconclusive"
    assert "raise gates.max_pairs" in capped.median.reason


def test_at_the_cap_only_a_bound_beyond_the_limit_decides():
    def capped(by, again=None):
        block = noisy(200, 1.0, by, seed=3)
        return decide_paired(block, again, max_pairs=200)

    assert capped(1.0).planned_pairs > 200
    assert capped(1.0).status == "inconclusive"
    assert capped(0.5).status == "pass"
    assert capped(3.0).block == "confirmation"
    assert capped(3.0, noisy(200, 1.0, 3.0, seed=4)).status == "fail"
    assert capped(3.0, noisy(200, 1.0, 1.1, seed=4)).status == "inconclusive"


def test_half_confirmed_is_inconclusive():
    by = np.where(np.arange(40) < 21, 1.1, 1.0)
    decision = decide_paired(pairs(1.1), pairs(by))
    assert decision.status == "inconclusive"
    assert decision.median.reason.startswith("half confirmed")


def test_few_prompts_say_nothing_about_others():
    few = Pairs(np.arange(40) % 9, TIMES * 2, TIMES)
    assert decide_paired(few).status == "inconclusive"
    assert decide_paired(few).median.reason == "at least 10 prompts are needed, got 9"


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("side", ["candidate", "blessed"])
def test_a_time_that_is_none_fails_at_once(bad, side):
    for count in (3, 40):
        times = {name: TIMES[:count].copy() for name in ("candidate", "blessed")}
        times[side][2] = bad
        decision = decide_paired(Pairs(np.arange(count), **times))
        assert decision.status == "fail"
        assert decision.median.reason == f"{side}: 1 of {count} times is not finite and above 0"
        confirmation = decide_paired(pairs(1.2), Pairs(np.arange(count), **times))
        assert confirmation.status == "fail"


@pytest.mark.parametrize("limit", [1.0, 0.95, math.nan, math.inf])
def test_limit_must_be_above_one(limit):
    with pytest.raises(ValueError, match="limit_ratio: must be a number above 1"):
        decide_paired(pairs(1.0), limit_ratio=limit)


# ------------------------------------------------------------------ the p95


def test_p95_is_reported_only_below_a_hundred_pairs():
    decision = decide_paired(pairs(1.0))
    assert decision.p95.status == "report_only"
    assert decision.p95.estimate.ratio == 1.0


def test_p95_judges_where_it_is_tight():
    wide = np.linspace(80.0, 120.0, 200)
    assert decide_paired(pairs(1.0, wide)).p95.status == "pass"
    slow_tail = np.where(np.arange(200) >= 150, 1.2, 1.0)  # the slowest quarter of the prompts
    decision = decide_paired(pairs(slow_tail, wide), min_pairs=200)
    assert (decision.status, decision.block) == ("need_more", "confirmation")
    decision = decide_paired(pairs(slow_tail, wide), pairs(slow_tail, wide))
    assert (decision.median.status, decision.p95.status, decision.status) == ("pass", "fail", "fail")
    assert decide_paired(pairs(slow_tail, wide), pairs(1.0, wide)).p95.status == "pass"
    assert decide_paired(pairs(slow_tail, wide), noisy(200, 0.5, 1.0, 0)).p95.status == "report_only"


@pytest.mark.parametrize(
    ("ratio", "lower", "upper", "tight", "beyond"),
    [
        (1.10, 1.06, 1.14, True, True),
        (1.10, 1.04, 1.14, False, True),
        (1.10, 1.06, 1.16, False, True),
        (1.10, 0.99, 1.14, False, False),
        (1.04, 1.03, 1.05, True, False),
    ],
)
def test_tight_and_beyond(ratio, lower, upper, tight, beyond):
    estimate = Estimate(ratio=ratio, lower=lower, upper=upper)
    assert (estimate.tight(1.05), estimate.beyond(1.05)) == (tight, beyond)


# ------------------------------------------------------------------ properties


MATRICES = st.integers(10, 15).flatmap(
    lambda prompts: st.tuples(
        *[
            st.lists(
                st.lists(st.floats(1.0, 200.0), min_size=4, max_size=4), min_size=prompts, max_size=prompts
            )
            for _ in range(2)
        ]
    )
)


@pytest.mark.slow
@given(MATRICES, st.randoms(use_true_random=False))
def test_the_order_of_prompts_and_rounds_does_not_matter(sides, random):
    candidate, blessed = (np.array(side) for side in sides)
    prompts = random.sample(range(len(candidate)), len(candidate))
    rounds = random.sample(range(4), 4)
    one = Pairs.from_rounds(candidate, blessed)
    other = Pairs.from_rounds(candidate[prompts][:, rounds], blessed[prompts][:, rounds])
    assert estimate_slowdown(one) == estimate_slowdown(other)
    first, second = (decide_paired(block, block, max_pairs=40) for block in (one, other))
    assert first.status == second.status
    assert first.planned_pairs == pytest.approx(second.planned_pairs, abs=1)


@given(st.integers(0, 200), st.floats(0.02, 0.4), st.floats(0.8, 1.3), st.floats(1.001, 1.5))
def test_a_slower_candidate_never_does_better(seed, cv, by, further):
    order = {"pass": 0, "inconclusive": 1, "fail": 2}
    ranks = []
    for factor in (by, by * further):
        first, again = (noisy(40, cv, factor, seed=2 * seed + part) for part in range(2))
        decision = decide_paired(first, again, max_pairs=40)
        assert decision.need_pairs == 0
        ranks.append(order[decision.median.status])
    assert ranks[0] <= ranks[1]


@given(st.integers(0, 50), st.floats(0.5, 2.0))
def test_both_arms_slower_changes_nothing(seed, by):
    block = noisy(40, 0.1, 1.05, seed)
    scaled = Pairs(block.prompt, block.candidate * by, block.blessed * by)
    for one, other in zip(estimate_slowdown(block), estimate_slowdown(scaled), strict=True):
        assert (one.ratio, one.lower, one.upper) == pytest.approx((other.ratio, other.lower, other.upper))


# ------------------------------------------------------------------ pairs and trials


def test_rounds_that_were_not_run_are_left_out():
    nan = math.nan
    block = Pairs.from_rounds([[1.0, nan], [2.0, 3.0]], [[1.0, nan], [1.0, 1.0]])
    assert (block.prompt.tolist(), block.candidate.tolist()) == ([0, 1, 1], [1.0, 2.0, 3.0])
    assert Pairs.from_rounds([[1.0, nan]], [[1.0, 2.0]]).problem() is not None


@pytest.mark.parametrize("sides", [([1.0], [1.0]), ([[1.0]], [[1.0, 2.0]])])
def test_matrices_must_agree(sides):
    with pytest.raises(ValueError, match=r"must both be \[prompts, rounds\]"):
        Pairs.from_rounds(*sides)


def test_lists_must_agree():
    with pytest.raises(ValueError, match="lists of equal length"):
        Pairs([0, 1], [1.0], [1.0])


def test_a_trial_asks_for_pilot_rest_and_confirmation():
    decision, taken = run(lambda count, call: noisy(count, 0.1, 1.2, seed=call))
    assert decision.status == "fail"
    assert taken[0] == ("first", 20)
    assert [block for block, _ in taken] == ["first"] * (len(taken) - 1) + ["confirmation"]
    assert taken[-1][1] == decision.pairs == sum(count for _, count in taken[:-1])


def test_a_slow_moment_is_not_confirmed():
    decision, _ = run(lambda count, call: pairs(1.3 if call == 1 else 1.0))
    assert decision.status == "pass"
    assert decision.median.reason.startswith("not confirmed: 1.300")


def test_each_metric_is_decided_by_its_own_pairs():
    trial = PairedTrial()
    trial.add({"ttft": pairs(1.0), "tps": noisy(20, 0.3, 1.0, seed=0)})
    before = trial.decisions()["ttft"]
    assert (before.status, trial.block) == ("pass", "first")
    trial.add({"ttft": pairs(9.0), "tps": noisy(trial.need_pairs, 0.3, 1.0, seed=1)})
    assert trial.decisions()["ttft"] == before


def test_no_confirmation_before_all_first_blocks_are_full():
    trial = PairedTrial()
    trial.add({"ttft": pairs(1.2), "tps": noisy(20, 0.3, 1.0, seed=0)})
    assert trial.block == "first"
    assert trial.need_pairs == trial.decisions()["tps"].need_pairs
    trial.add({"ttft": pairs(9.0), "tps": pairs(1.0, np.linspace(80, 120, trial.need_pairs))})
    while trial.need_pairs and trial.block == "first":
        trial.add({"ttft": pairs(9.0), "tps": pairs(1.0, np.linspace(80, 120, trial.need_pairs))})
    assert (trial.block, trial.need_pairs) == ("confirmation", 40)


def test_a_metric_without_any_pair_fails_instead_of_asking_for_ever():
    trial = PairedTrial()
    trial.add({"ttft": pairs(1.0), "tps": Pairs.none()})
    decision = trial.decisions()["tps"]
    assert (trial.need_pairs, decision.status) == (0, "fail")
    assert decision.median.reason == "missing: no pair has a time for tps"


def test_a_trial_takes_both_metrics():
    with pytest.raises(ValueError, match="must hold"):
        PairedTrial().add({"ttft": pairs(1.0)})


def test_a_trial_of_one_metric_asks_for_its_pairs_only():
    trial = PairedTrial(metrics=["ttft"])
    with pytest.raises(ValueError, match="must hold"):
        trial.add({"ttft": pairs(1.0), "tps": pairs(1.0)})
    trial.add({"ttft": pairs(1.0)})
    assert (trial.need_pairs, set(trial.decisions())) == (0, {"ttft"})
    for metrics in ([], ["ttfa"]):
        with pytest.raises(ValueError, match=r"metrics: must be of \['tps', 'ttft'\]"):
            PairedTrial(metrics=metrics)


@pytest.mark.slow
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.5, 2.0]))
def test_a_trial_ends(seed, cv):
    limits = GatesConfig(max_pairs=100)
    decision, taken = run(lambda count, call: noisy(count, cv, 1.06, seed=1000 * seed + call), limits)
    assert decision.status in ("pass", "fail", "inconclusive")
    assert sum(count for _, count in taken) <= 200


# ------------------------------------------------------------------ the failure rates (more of them: bench/gates.py)


@pytest.mark.parametrize(("by", "most", "least"), [(1.0, 1, 0), (1.10, 60, 48), (1.15, 60, 59)])
def test_rates(by, most, least):
    failed = 0
    for seed in range(60):
        decision, _ = run(
            lambda count, call, seed=seed: noisy(count, 0.1, by, seed=100 * seed + call), seed=seed
        )
        failed += decision.median.status == "fail"
    assert least <= failed <= most
