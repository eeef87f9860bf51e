"""Draws are exact, and depend on nothing but the key and the place in the answer."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdfast.evaluate.draws import Draws, row_uniforms

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0, -math.inf])


def drawn(draws: Draws, places: list[int], logits: torch.Tensor) -> list[int]:
    return draws.restrict(places, logits).argmax(1).tolist()


def naive_draw(key: str, position: int, logits: list[float], temperature: float) -> int:
    """The obvious twin: plain Python, from the raw words on."""
    digest = hashlib.sha256(f"{key} {position}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(len(logits)).tolist()
    values = []
    for logit, word in zip(logits, words, strict=True):
        uniform = ((word >> 12) + 0.5) / 2**52
        values.append(logit / temperature - math.log(-math.log(uniform)))
    return values.index(max(values))


@given(
    key=st.text(max_size=8),
    position=st.integers(0, 5),
    logits=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20),
    temperature=st.floats(0.05, 20),
)
def test_a_draw_is_the_naive_one(key: str, position: int, logits: list[float], temperature: float) -> None:
    draws = Draws([key], temperature)
    for _ in range(position):
        draws.take(0, 1, ended=False)
    assert drawn(draws, [0], torch.tensor([logits])) == [naive_draw(key, position, logits, temperature)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_ids_come_up_as_often_as_torch_draws_them(temperature: float) -> None:
    draws_of_each = 20_000
    keys = [f"request {number}" for number in range(draws_of_each)]
    chosen = torch.tensor(
        drawn(Draws(keys, temperature), list(range(draws_of_each)), LOGITS.expand(draws_of_each, -1))
    )
    weights = torch.softmax(LOGITS.double() / temperature, 0)
    other = torch.multinomial(
        weights, draws_of_each, replacement=True, generator=torch.Generator().manual_seed(3)
    )
    own, theirs = (torch.bincount(each, minlength=8).double() for each in (chosen, other))
    assert own[7] == theirs[7] == 0
    both = (own + theirs)[:7]
    # two samples of the same size: chi-square with 6 degrees of freedom; 22.5 is exceeded once in a thousand
    assert ((own - theirs)[:7] ** 2 / both).sum() < 22.5
    expected = weights[:7] * draws_of_each
    assert ((own[:7] - expected) ** 2 / expected).sum() < 22.5


def test_a_row_is_the_same_in_every_batch() -> None:
    keys = [f"k{number}" for number in range(8)]
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(1))
    whole = drawn(Draws(keys, 1.5), list(range(8)), logits)
    assert len(set(whole)) > 4
    turned = list(reversed(range(8)))
    assert drawn(Draws(keys, 1.5), turned, logits[turned]) == whole[::-1]
    for place in range(8):
        assert drawn(Draws(keys, 1.5), [place], logits[place : place + 1]) == [whole[place]]


def test_keys_and_places_have_noise_of_their_own() -> None:
    rows = [
        row_uniforms(key, position, 4).tolist() for key in ("1", "1 1", "11") for position in (1, 11, 111)
    ]
    assert len({tuple(row) for row in rows}) == 9
    assert all(0 < value < 1 for row in rows for value in row)


def test_without_a_temperature_the_likeliest_is_taken() -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Draws(["a", "b", "c"], 0.0).restrict([2, 0, 1], logits), logits)


@pytest.mark.parametrize("temperature", [1e-300, 1e300])
def test_extreme_temperatures_give_no_nan(temperature: float) -> None:
    values = Draws(["a"], temperature).restrict([0], LOGITS[None])
    assert not values.isnan().any()
    assert int(values.argmax()) == (0 if temperature < 1 else naive_draw("a", 0, [0.0] * 7, 1.0))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padding_rows_are_never_drawn_except_the_end(temperature: float) -> None:
    logits = torch.zeros(200, 10)
    logits[:, 6:] = 9.0
    keys = [str(number) for number in range(200)]
    places = list(range(200))
    assert max(drawn(Draws(keys, temperature, usable=6), places, logits)) < 6
    assert set(drawn(Draws(keys, temperature, usable=6, end_ids=[2, 8, 40]), places, logits)) >= {8}
    ids = set(drawn(Draws(keys, temperature, usable=6, end_ids=[2, 8, 40]), places, logits))
    assert ids <= {*range(6), 8}
    assert set(drawn(Draws(keys, temperature, usable=99), places, logits)) & {6, 7, 8, 9}
