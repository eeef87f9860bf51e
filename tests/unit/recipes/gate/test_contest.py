"""Two models by turns: orders, pairs and times, from scripted engines and a scripted clock."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from tiny_models import write_tokenizer

from kdfast._rust import Tokenizer
from kdfast.errors import DataError
from kdfast.recipes.gate import PAIR_TOKENS, Contest, Side
from kdfast.speed import SpeedOptions, SpeedPrompt

END = 258
PROMPTS = [SpeedPrompt(text="p" * (number + 1), needs_call=True, line=number + 1) for number in range(12)]


class Machine:
    """A clock, and who worked when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []

    def clock(self) -> float:
        return self.now


class Model:
    """Prefills in `prefill_ms` a token and takes `token_ms` for each further one; answers with `answer`, then ends."""

    def __init__(self, machine, name, prefill_ms=2.0, token_ms=10.0, answer=(65, 66, 67)) -> None:
        self.machine, self.name = machine, name
        self.prefill_ms, self.token_ms, self.answer = prefill_ms, token_ms, answer

    def reset(self) -> None:
        self.given = 0

    def prefill(self, ids) -> None:
        self.machine.log.append((self.name, len(ids)))
        self.machine.now += self.prefill_ms * len(ids) / 1000
        self.given = 0

    def next(self) -> int:
        self.machine.now += self.token_ms * (self.given > 0) / 1000
        self.given += 1
        return self.answer[self.given - 1] if self.given <= len(self.answer) else END


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return Tokenizer.from_file(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def machine() -> Machine:
    return Machine()


def contest(machine, tokenizer, seed=0, max_new_tokens=40, **candidate) -> Contest:
    options = SpeedOptions(max_new_tokens=max_new_tokens, warmup=1, eos_ids=(END,))
    engines = Model(machine, "candidate", **candidate), Model(machine, "blessed")
    sides = [
        Side(name=engine.name, engine=engine, tokenizer=tokenizer, prompts=PROMPTS, options=options)
        for engine in engines
    ]
    return Contest(*sides, seed=seed, clock=machine.clock)


def test_answers_are_whole_and_in_the_prompts_order(machine, tokenizer):
    done = []
    candidate, blessed = contest(machine, tokenizer, token_ms=11.0).answers(done.append)
    assert done == list(range(1, 13))
    for samples, token_ms in ((candidate, 11.0), (blessed, 10.0)):
        assert [sample.prompt.line for sample in samples] == list(range(1, 13))
        assert {sample.text for sample in samples} == {"bcd"}
        assert all(sample.ended and math.isinf(sample.ttfa_tokens) for sample in samples)
        assert [sample.itl_ms for sample in samples] == [pytest.approx([token_ms] * 3)] * 12
        assert [sample.ttft_ms for sample in samples] == pytest.approx([2.0 * n for n in range(1, 13)])


def test_one_side_answers_alone(machine, tokenizer):
    done = []
    samples = contest(machine, tokenizer).blessed.answers(done.append)
    assert [sample.text for sample in samples] == ["bcd"] * 12
    assert done == list(range(1, 13))
    assert {name for name, _ in machine.log} == {"blessed"}


def test_pairs_have_both_times_of_the_same_prompt(machine, tokenizer):
    pairs = contest(machine, tokenizer, prefill_ms=3.0, token_ms=12.0).pairs(30, lambda _: None)
    for name, ours, theirs in (("ttft", 3.0, 2.0), ("tps", 12.0, 10.0)):
        assert len(pairs[name]) == 30
        by = pairs[name].prompt + 1 if name == "ttft" else np.ones(30)
        assert pairs[name].candidate == pytest.approx(ours * by)
        assert pairs[name].blessed == pytest.approx(theirs * by)


def test_a_pair_always_takes_the_same_number_of_tokens(machine, tokenizer):
    runs = contest(machine, tokenizer, answer=())  # its answer would have ended at once
    started = machine.now
    pairs = runs.pairs(1, lambda _: None)
    tokens = 2 * (PAIR_TOKENS - 1) * 10.0
    prompt = 2 * 2.0 * (pairs["ttft"].prompt[0] + 1)
    assert 1000 * (machine.now - started) == pytest.approx(tokens + prompt)
    few = contest(machine, tokenizer, max_new_tokens=3)
    started = machine.now
    pairs = few.pairs(1, lambda _: None)
    assert 1000 * (machine.now - started) == pytest.approx(2 * 2 * 10.0 + 4.0 * (pairs["ttft"].prompt[0] + 1))


def test_one_token_has_no_time_of_a_token(machine, tokenizer):
    assert len(contest(machine, tokenizer, max_new_tokens=2).pairs(1, lambda _: None)["tps"]) == 1
    with pytest.raises(ValueError, match=r"max_new_tokens: .* give at least 2, got 1"):
        contest(machine, tokenizer, max_new_tokens=1)


def test_both_run_right_after_each_other_in_balanced_random_order(machine, tokenizer):
    runs = contest(machine, tokenizer)
    pairs = runs.pairs(24, lambda _: None)
    log = machine.log
    assert len(log) == 48
    firsts = []
    for number, prompt in enumerate(pairs["ttft"].prompt):
        (first, length), (second, other) = log[2 * number : 2 * number + 2]
        assert length == other == prompt + 1
        assert {first, second} == {"candidate", "blessed"}
        firsts.append(first)
    assert all(set(firsts[at : at + 2]) == {"candidate", "blessed"} for at in range(0, 24, 2))
    assert len({tuple(firsts[at : at + 2]) for at in range(0, 24, 2)}) == 2  # not always the same way round


def test_prompts_come_in_a_new_order_each_time_all_were_taken(machine, tokenizer):
    runs = contest(machine, tokenizer)
    one, other = (runs.pairs(12, lambda _: None)["ttft"].prompt.tolist() for _ in range(2))
    assert sorted(one) == sorted(other) == list(range(12))
    assert one != other
    # a round that is cut goes on where it was
    parts = [runs.pairs(count, lambda _: None)["ttft"].prompt.tolist() for count in (5, 7)]
    assert Counter(parts[0] + parts[1]) == Counter(range(12))


def test_the_seed_decides_both_orders(machine, tokenizer):
    def order(seed):
        fresh = Machine()
        contest(fresh, tokenizer, seed=seed).pairs(12, lambda _: None)
        return fresh.log

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_warm_up_runs_both_off_the_clock(machine, tokenizer):
    contest(machine, tokenizer).warm_up()
    assert machine.log == [("candidate", 1), ("blessed", 1)]


class Broken(Model):
    """Its logits are NaN."""

    def next(self) -> int:
        raise FloatingPointError("the model's logits are NaN")


def test_nan_names_the_model(machine, tokenizer):
    options = SpeedOptions(eos_ids=(END,))
    sides = [
        Side(name=name, engine=kind(machine, name), tokenizer=tokenizer, prompts=PROMPTS, options=options)
        for name, kind in (("models/new", Broken), ("models/old", Model))
    ]
    for act in (Contest.warm_up, lambda runs: runs.answers(print), lambda runs: runs.pairs(1, print)):
        with pytest.raises(DataError, match="models/new: cannot be measured: the model's logits are NaN"):
            act(Contest(*sides, clock=machine.clock))
