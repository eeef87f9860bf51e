"""The reference of the losses: it agrees with the fast losses and with the tests' own oracles."""

from __future__ import annotations

import math
from typing import Any

import naive
import naive_latency
import pytest
import torch

from kdfast.config import KDConfig
from kdfast.losses import DIVERGENCES, DenseTeacher, LengthOptions, SparseTeacher
from kdfast.recipes.preflight.looking import loss_reference as reference

VOCAB, ROWS = 11, 5
SETTINGS: list[dict[str, Any]] = [
    {"divergence": "forward_kl"},
    {"divergence": "reverse_kl", "temperature": 2.0},
    {"divergence": "generalized_jsd", "jsd_beta": 0.3},
    {"divergence": "generalized_jsd", "jsd_beta": 0.0},
    {"divergence": "generalized_jsd", "jsd_beta": 1.0, "temperature": 0.5},
    {"divergence": "skew_kl", "skew_alpha": 0.2},
    {"divergence": "skew_kl", "skew_alpha": 0.0},
    {"divergence": "tvd", "temperature": 3.0},
]


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def fast(kd: KDConfig, logits: torch.Tensor, teacher: Any) -> float:
    more = {"generalized_jsd": {"beta": kd.jsd_beta}, "skew_kl": {"alpha": kd.skew_alpha}}
    options = more.get(kd.divergence, {})
    row = DIVERGENCES[kd.divergence].function
    return float(row(logits, teacher, temperature=kd.temperature, **options).total)


@pytest.mark.parametrize("given", SETTINGS)
def test_a_dense_divergence_is_that_of_the_losses_also_where_vocabularies_differ(
    given: dict[str, Any],
) -> None:
    kd, logits = KDConfig(**given), numbers(0, ROWS, VOCAB)
    for width in (VOCAB - 2, VOCAB, VOCAB + 3):
        teacher = numbers(width, ROWS, width)
        wanted = sum(reference.dense_divergence(logits[i], teacher[i], kd) for i in range(ROWS))
        assert fast(kd, logits, DenseTeacher(teacher)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("given", SETTINGS)
def test_a_stored_divergence_is_that_of_the_losses_also_with_unusable_entries(given: dict[str, Any]) -> None:
    kd, logits = KDConfig(**given), numbers(0, ROWS, VOCAB)
    logp = numbers(5, ROWS, 5).log_softmax(1)
    ids = torch.tensor(
        [[0, 1, 2, 3], [4, 4, 5, 6], [VOCAB, 1, 2, 3], [9, 8, 7, 6], [VOCAB + 1] * 4], dtype=torch.int64
    )
    tail = logp[:, 4].clone()
    top = logp[:, :4].clone()
    top[3, 2] = -math.inf
    tail[3] = -math.inf
    found = [
        reference.stored_divergence(logits[i], ids[i].tolist(), top[i].tolist(), float(tail[i]), kd)
        for i in range(ROWS)
    ]
    with pytest.warns(RuntimeWarning, match="masses"):
        whole = fast(kd, logits, SparseTeacher(ids, top, tail, kd.temperature))
    assert whole == pytest.approx(sum(found), rel=1e-9)
    assert found[4] == 0.0


def test_labels_and_drawn_ids_cost_what_the_oracles_say() -> None:
    logits = numbers(1, VOCAB)
    assert reference.label_cost(logits, 3) == pytest.approx(naive.cross_entropy_row(logits.tolist(), 3))
    drawn = [3, 3, VOCAB + 2, 0], [2, 0, 5, 1]
    assert reference.drawn_cost(logits, *drawn) == pytest.approx(
        naive.sampled_kl_row(logits.tolist(), *drawn)
    )
    assert reference.drawn_cost(logits, [1], [0]) == 0.0


@pytest.mark.parametrize("form", ["log", "ratio", "quantile"])
@pytest.mark.parametrize("most", [3, 12, 200])
def test_the_excess_of_an_answer_is_that_of_all_its_stopping_times(form: Any, most: int) -> None:
    kd = KDConfig(length_form=form, max_new_tokens=most, length_hinge=0.25)
    options = LengthOptions(form=form, max_new_tokens=most, hinge=0.25)
    for odds in ({8: -2.0}, {6: -1.0, 7: 0.5, 8: -3.0}, {8: 4.0}, {1: 2.0, 8: -9.0}):
        wanted = naive_latency.excess(odds, 8, options)
        assert reference.length_excess(odds, 8, kd) == pytest.approx(wanted, rel=1e-9)
    never = reference.length_excess({8: -800.0}, 8, KDConfig(length_form="ratio", max_new_tokens=2**31 - 1))
    assert never == pytest.approx((2**31 - 1) / 8 - 1 - 0.15)


def test_log_odds_and_the_wait_for_a_call_are_those_of_the_oracles() -> None:
    logits = numbers(2, VOCAB)
    wanted = naive_latency.log_odds(logits.tolist(), [1, 4])
    assert reference.log_odds(logits, [1, 4]) == pytest.approx(wanted)
    assert reference.tokens_before_opening([0.0, math.log(3)]) == pytest.approx(0.5 + 0.5 * 0.25)


@pytest.mark.parametrize("form", ["cosine", "mse"])
def test_the_distance_of_equal_states_is_nothing(form: str) -> None:
    one = numbers(3, 6)
    assert reference.hidden_distance(one, one, form) == pytest.approx(0.0, abs=1e-12)
    assert reference.hidden_distance(one, -one, form) == pytest.approx({"cosine": 2.0, "mse": 4.0}[form])
