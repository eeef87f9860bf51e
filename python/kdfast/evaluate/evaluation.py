"""Answers to held-out prompts, generated and scored one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdfast.evaluate.answer import Answer
from kdfast.evaluate.generate import Constraint, Decoding, OnProgress, generate
from kdfast.evaluate.prompts import EvalPrompt
from kdfast.evaluate.summary import by_category, summary
from kdfast.scoring import FORMATS, Score, Share, score_answer, summarise

SCHEMA_VERSION = "1.0"
EVALUATION_KIND = "kdfast.evaluation"


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
        """JSON values: the `summary` of all answers, `categories` (theirs), `generation_s` and every answer."""
        return {
            **summary(self.answers),
            "categories": by_category(self.answers),
            "generation_s": self.generation_s,
            "answers": [answer.to_json() for answer in self.answers],
        }


def evaluate(
    model: torch.nn.Module,
    prompts: Sequence[EvalPrompt],
    decode: Callable[[list[int]], str],
    decoding: Decoding,
    on_progress: OnProgress | None = None,
    *,
    constraint: Constraint | None = None,
    formats: Sequence[str] = FORMATS,
) -> Evaluation:
    """Generates the answer to each prompt and scores it.

    Args:
        model: a causal LM; its training mode is restored afterwards.
        prompts: what to ask.
        decode: token ids -> text.
        decoding: how to generate.
        on_progress: called after every step with (prompts ended, tokens generated).
        constraint: what answers may be, by the place of their prompt; None = free.
        formats: call formats that count, see `kdfast.find_tool_calls`.

    Raises:
        SchemaError: the parameters of a prompt's tools are no valid JSON Schema.
        ValueError: see `generate`.
    """
    started = time.perf_counter()
    generated = generate(
        model, [prompt.ids for prompt in prompts], decoding, on_progress, constraint=constraint
    )
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
                score=_score(text, prompt, formats),
                reference_tokens=prompt.reference_tokens,
                category=prompt.category,
                line=prompt.line,
            )
        )
    return Evaluation(answers=answers, generation_s=generation_s)


def _score(text: str, prompt: EvalPrompt, formats: Sequence[str]) -> Score:
    return score_answer(
        text,
        json.loads(prompt.tools or "[]"),
        accepted=prompt.accepted,
        reference_text=prompt.reference_text,
        should_call=prompt.should_call,
        formats=formats,
    )
