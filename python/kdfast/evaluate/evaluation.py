"""Generates the answers to held-out prompts, and scores them one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdfast.evaluate.answer import Answer
from kdfast.evaluate.by_engine import TokenEngine, generate_by_engine
from kdfast.evaluate.generate import Constraint, Decoding, OnProgress, generate
from kdfast.evaluate.prompts import EvalPrompt
from kdfast.evaluate.summary import by_category, summary
from kdfast.scoring import FORMATS, Score, Share, score_answer, summarise

SCHEMA_VERSION = "1.0"
EVALUATION_KIND = "kdfast.evaluation"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All answers, and the time that it took to generate them.

    Attributes:
        answers: one per prompt, in the order of the prompts.
        generation_s: seconds spent generating.
    """

    answers: list[Answer]
    generation_s: float

    @property
    def table(self) -> dict[str, Share]:
        """The shares over all answers, see `kdfast.scoring.summarise`."""
        return summarise(answer.score for answer in self.answers)

    def to_json(self) -> dict[str, Any]:
        """JSON values: the `summary` of all answers, that of each of the `categories`, `generation_s`, every answer."""
        return {
            **summary(self.answers),
            "categories": by_category(self.answers),
            "generation_s": self.generation_s,
            "answers": [answer.to_json() for answer in self.answers],
        }


def evaluate(
    model: torch.nn.Module | TokenEngine,
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
        model: a causal LM (runs in evaluation mode, and goes back to its old mode at the end); or an engine, such as
            that of an export, which answers one prompt at a time.
        prompts: the prompts to answer.
        decode: turns token ids into text.
        decoding: how to generate.
        on_progress: called after every step with (answers ended, tokens generated).
        constraint: restricts what an answer may be; None = no restriction. An engine takes none.
        formats: the call formats that count, see `kdfast.find_tool_calls`.

    Raises:
        SchemaError: the parameters of a prompt's tools are not a valid JSON Schema.
        ValueError: see `generate`; or a constraint was given with an engine.
    """
    ids_of_prompts = [prompt.ids for prompt in prompts]
    started = time.perf_counter()
    if isinstance(model, torch.nn.Module):
        generated = generate(model, ids_of_prompts, decoding, on_progress, constraint=constraint)
    elif constraint is None:
        generated = generate_by_engine(model, ids_of_prompts, decoding, on_progress)
    else:
        raise ValueError("constraint must be None with an engine: it gives tokens, not logits")
    generation_s = time.perf_counter() - started
    answers = []
    for prompt, ids in zip(prompts, generated, strict=True):
        text, cut = decode(ids), len(ids) == decoding.max_new_tokens
        answers.append(
            Answer(
                text=text,
                tokens=len(ids),
                cut=cut,
                reference_text=prompt.reference_text,
                score=_score(text, prompt, formats, finished=not cut),
                reference_tokens=prompt.reference_tokens,
                category=prompt.category,
                line=prompt.line,
            )
        )
    return Evaluation(answers=answers, generation_s=generation_s)


def _score(text: str, prompt: EvalPrompt, formats: Sequence[str], *, finished: bool) -> Score:
    return score_answer(
        text,
        json.loads(prompt.tools or "[]"),
        accepted=prompt.accepted,
        reference_text=prompt.reference_text,
        should_call=prompt.should_call,
        formats=formats,
        thinking=prompt.thinking,
        finished=finished,
    )
