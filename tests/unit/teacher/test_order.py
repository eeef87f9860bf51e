"""Wherever a job ends, what was asked is a fair sample; and no machine draws another one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.teacher.order import WINDOW, sending_order, truth_sample
from kdfast.teacher.prompts import Prompt, Truth

ENDS = (8, 16, 32, 64, 128, 192, 256)
TRUTH = Truth(text="x")
GOLDEN = [0, 7, 4, 6, 9, 2, 5, 1, 8, 3]


def prompt(index: int, kind: int | None, **fields: Any) -> Prompt:
    """Kind: which tools; None = none."""
    tools = [] if kind is None else [{"name": f"f{kind % 3}"}]
    system = {"role": "system" if kind is not None and kind > 2 else "user", "content": "s"}
    return Prompt(source=Path("p"), line=index + 1, index=index, messages=[system], tools=tools, **fields)


def made(kinds: Sequence[int | None]) -> list[Prompt]:
    return [prompt(index, kind) for index, kind in enumerate(kinds)]


kinds = st.lists(st.none() | st.integers(0, 5), max_size=200)
seeds = st.integers(0, 2**40)


def slow_order(prompts: Sequence[Prompt], seed: int) -> list[int]:
    """Place by place: the stratum that is due next gives the one that its lot says; then group by group."""

    def lot(place: int) -> str:
        return hashlib.sha256(f"{seed}/{prompts[place].index}".encode()).hexdigest()

    with_tools = sorted((place for place in range(len(prompts)) if prompts[place].tools), key=lot)
    without = sorted((place for place in range(len(prompts)) if not prompts[place].tools), key=lot)
    share = Fraction(len(with_tools), max(len(prompts), 1))
    order: list[int] = []
    taken = 0
    while len(order) < len(prompts):
        is_due = share * (len(order) + 1) - taken >= Fraction(1, 2)
        order.append(with_tools[taken] if is_due else without[len(order) - taken])
        taken += is_due
    grouped: list[int] = []
    for start, end in pairwise((0, *ENDS)):
        window = order[start:end]
        seen: list[Any] = []
        for place in window:
            if prompts[place].tools and shared(prompts[place]) not in seen:
                seen.append(shared(prompts[place]))
        queue = [place for key in seen for place in window if shared(prompts[place]) == key]
        grouped += [queue.pop(0) if prompts[place].tools else place for place in window]
    return grouped


def shared(one: Prompt) -> Any:
    first = (one.messages or ({},))[0]
    return one.tools, first if first["role"] == "system" else None


@given(kinds, seeds)
def test_the_order_is_that_of_a_slow_twin(kinds: list[int | None], seed: int) -> None:
    prompts = made(kinds)
    assert sending_order(prompts, seed) == slow_order(prompts, seed)


@given(kinds, seeds)
def test_every_part_has_its_share_of_tools(kinds: list[int | None], seed: int) -> None:
    prompts = made(kinds)
    order = sending_order(prompts, seed)
    assert sorted(order) == list(range(len(prompts)))
    with_tools = sum(bool(one.tools) for one in prompts)
    seen = 0
    for length, place in enumerate(order, 1):
        seen += bool(prompts[place].tools)
        assert abs(seen - Fraction(with_tools * length, len(prompts))) <= Fraction(1, 2)


def test_the_draw_is_the_same_on_every_machine() -> None:
    assert sending_order(made([0, None, 1, 0, None, 2, 1, 0, 0, 1]), 0) == GOLDEN
    assert sending_order(made([0, None, 1, 0, None, 2, 1, 0, 0, 1]), 1) != GOLDEN


def test_prompts_with_the_same_tools_are_neighbours() -> None:
    prompts = made([index % 2 for index in range(4 * WINDOW)])
    kinds = [prompts[place].tools[0]["name"] for place in sending_order(prompts, 0)]
    for start in range(WINDOW, 4 * WINDOW, WINDOW):
        window = kinds[start : start + WINDOW]
        assert sum(one != other for one, other in pairwise(window)) == 1


def test_keys_in_another_order_are_the_same_tools() -> None:
    tools = [{"name": "f", "description": "d"}, {"description": "d", "name": "f"}, {"name": "g"}]
    prompts = [
        Prompt(source=Path("p"), line=index + 1, index=index, prompt="x", tools=[tools[index % 3]])
        for index in range(WINDOW * 2)
    ]
    names = [prompts[place].tools[0]["name"] for place in sending_order(prompts, 0)][WINDOW:]
    assert sum(one != other for one, other in pairwise(names)) == 1


def test_a_part_of_the_file_is_drawn_as_in_the_whole() -> None:
    prompts = made([None] * 30)
    whole = [place for place in sending_order(prompts, 4) if place % 2]
    assert [2 * place + 1 for place in sending_order(prompts[1::2], 4)] == whole


wanted = st.lists(st.tuples(st.booleans(), st.sampled_from([True, False, None])), max_size=60)


@given(wanted, st.integers(0, 70), seeds)
def test_a_sample_of_truths(given_truths: list[tuple[bool, bool | None]], count: int, seed: int) -> None:
    prompts = [
        prompt(index, None, truth=TRUTH if known else None, should_call=due)
        for index, (known, due) in enumerate(given_truths)
    ]
    known = [one for one in prompts if one.truth is not None]
    places = truth_sample(prompts, count, seed)
    assert len(places) == len(set(places)) == min(count, len(known))
    assert all(prompts[place].truth is not None for place in places)
    there, taken = (
        Counter(one.should_call for one in known),
        Counter(prompts[place].should_call for place in places),
    )
    if count >= len(there):
        assert set(taken) == set(there)
    for due, total in there.items():
        assert abs(taken[due] - Fraction(total * len(places), len(known))) <= 2


def test_a_sample_of_truths_keeps_the_shares() -> None:
    prompts = [prompt(index, 0, truth=TRUTH, should_call=index % 4 != 0) for index in range(400)]
    taken = Counter(prompts[place].should_call for place in truth_sample(prompts, 20, 0))
    assert taken == {True: 15, False: 5}
    rare = [prompt(index, 0, truth=TRUTH, should_call=index != 5) for index in range(400)]
    assert 5 in truth_sample(rare, 20, 0)


def test_a_negative_count() -> None:
    with pytest.raises(ValueError, match="count must not be negative: -1"):
        truth_sample([], -1, 0)
