"""Answers of an engine, one by one, are those of batches."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import VOCAB, tiny_llama

from kdfast.evaluate import Decoding, EvalPrompt, evaluate, generate
from kdfast.evaluate.by_engine import generate_by_engine
from kdfast.speed import TransformersEngine


class Counting:
    """An engine that counts on from the prompt's last token; 9 is followed by 0."""

    def reset(self) -> None:
        self.last = -1

    def prefill(self, ids: Sequence[int]) -> None:
        self.last = ids[-1]

    def next(self) -> int:
        self.last = (self.last + 1) % 10
        return self.last


@given(
    prompts=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=5),
    ends=st.sets(st.integers(0, 9), max_size=2),
    most=st.integers(1, 12),
)
def test_the_slow_twin(prompts: list[list[int]], ends: set[int], most: int) -> None:
    expected = []
    for prompt in prompts:
        counted = [(prompt[-1] + step) % 10 for step in range(1, most + 1)]
        stop = next((at for at, token in enumerate(counted) if token in ends), most)
        expected.append(counted[:stop])
    ended: dict[int, list[int]] = {}
    progress: list[tuple[int, int]] = []
    decoding = Decoding(eos_ids=sorted(ends), pad_id=0, max_new_tokens=most)
    found = generate_by_engine(
        Counting(),
        prompts,
        decoding,
        lambda done, tokens: progress.append((done, tokens)),
        on_answer=lambda index, ids: ended.update({index: list(ids)}),
    )
    assert found == expected
    assert ended == dict(enumerate(expected))
    assert (progress or [(0, 0)])[-1] == (len(prompts), sum(map(len, expected)))
    assert progress == sorted(progress)


def test_as_in_batches() -> None:
    model = tiny_llama()
    prompts = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(1)).tolist()
    decoding = Decoding(eos_ids=[11, 30, 41, 77, 130], pad_id=0, max_new_tokens=20)
    assert generate_by_engine(TransformersEngine(model), prompts, decoding) == generate(
        model, prompts, decoding
    )
    spoken = [
        EvalPrompt(ids=ids, tools="", reference_text="", should_call=False, reference_tokens=3)
        for ids in prompts
    ]
    one, other = (
        evaluate(way, spoken, str, decoding).to_json() | {"generation_s": 0}
        for way in (model, TransformersEngine(model))
    )
    assert one == other


def test_refused() -> None:
    decoding = Decoding(eos_ids=[], pad_id=0)
    with pytest.raises(ValueError, match="prompts must not be empty"):
        generate_by_engine(Counting(), [[1], []], decoding)
    with pytest.raises(ValueError, match="max_new_tokens must be positive: 0"):
        generate_by_engine(Counting(), [[1]], Decoding(eos_ids=[], pad_id=0, max_new_tokens=0))
    with pytest.raises(ValueError, match="constraint must be None with an engine"):
        evaluate(Counting(), [], str, decoding, constraint=object())  # type: ignore[arg-type]
