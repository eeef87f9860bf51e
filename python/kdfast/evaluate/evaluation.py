"""Answers to held-out prompts, generated and scored one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from kdfast.evaluate.generate import Decoding, OnProgress, generate
from kdfast.scoring import Score, Share, score_answer, summarise


@dataclass(frozen=True, kw_only=True)
class EvalPrompt:
    """A held-out prompt and what its answer is measured by.

    Attributes:
        ids: the prompt's token ids, up to where the answer begins.
        tools: the tool definitions, as JSON text ("" = none).
        metadata: JSON text of an object; its `accepted`, if present, is BFCL's ground truth.
        reference_text: the right answer, for show, and for exact matches where nothing is `accepted`.
        should_call: whether a call is due.
    """

    ids: Sequence[int]
    tools: str
    metadata: str
    reference_text: str
    should_call: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One generated answer.

    Attributes:
        text: what the model wrote, without the token that ended it.
        tokens: its length in tokens.
        cut: whether it was stopped by `max_new_tokens`.
        reference_text: the right answer.
        score: how it did.
    """

    text: str
    tokens: int
    cut: bool
    reference_text: str
    score: Score


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All answers, in the order of the prompts, and the time that they took.

    Attributes:
        answers: one per prompt.
        generation_s: seconds spent generating, on the machine at hand.
    """

    answers: list[Answer]
    generation_s: float

    @property
    def table(self) -> dict[str, Share]:
        """The shares, see `kdfast.scoring.summarise`."""
        return summarise(answer.score for answer in self.answers)

    def to_json(self) -> dict[str, Any]:
        """Table, answers and time as JSON values."""
        shares = {name: asdict(share) | {"fraction": share.fraction} for name, share in self.table.items()}
        answers = [asdict(answer) | {"score": answer.score.to_json()} for answer in self.answers]
        return {"table": shares, "generation_s": self.generation_s, "answers": answers}


def evaluate(
    model: torch.nn.Module,
    prompts: Sequence[EvalPrompt],
    decode: Callable[[list[int]], str],
    decoding: Decoding,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Generates the answer to each prompt and scores it.

    Args:
        model: a causal LM; its training mode is restored afterwards.
        prompts: what to ask.
        decode: token ids -> text.
        decoding: how to generate.
        on_progress: called after every step with (prompts ended, tokens generated).

    Raises:
        SchemaError: the parameters of a prompt's tools are no valid JSON Schema.
        ValueError: see `generate`.
    """
    started = time.perf_counter()
    generated = generate(model, [prompt.ids for prompt in prompts], decoding, on_progress)
    generation_s = time.perf_counter() - started
    answers = []
    for prompt, ids in zip(prompts, generated, strict=True):
        text = decode(ids)
        answers.append(
            Answer(
                text=text,
                tokens=len(ids),
                cut=len(ids) == decoding.max_new_tokens,
                reference_text=prompt.reference_text,
                score=_score(text, prompt),
            )
        )
    return Evaluation(answers=answers, generation_s=generation_s)


def _score(text: str, prompt: EvalPrompt) -> Score:
    return score_answer(
        text,
        json.loads(prompt.tools or "[]"),
        accepted=json.loads(prompt.metadata or "{}").get("accepted"),
        reference_text=prompt.reference_text,
        should_call=prompt.should_call,
    )
