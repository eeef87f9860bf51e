"""What becomes of a stored answer: a record's answer, or the reason why it is none; and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdfast.teacher.api.journal import Verdict
from kdfast.teacher.api.reply import Origin
from kdfast.teacher.api.usage import Usage

NOT_LEARNABLE = Verdict("filtered", "not_learnable")
"""Of an answer that the reader of training data refuses."""
DUPLICATE = Verdict("filtered", "duplicate")
"""Of an answer that an earlier request to the same prompt has, too."""
OF_DATASET = (NOT_LEARNABLE, DUPLICATE)
"""Verdicts that only the whole dataset can tell. They stay, though the answer by itself is accepted."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One answer, read. The same answer and config give the same reading.

    Attributes:
        verdict: `accepted`, `filtered` or `failed`, and the reason in a fixed word.
        detail: the reason in words; "" = none.
        answer: the keys that a record gets: `teacher_message` or `teacher_text`, and `teacher_topk` where
            log-probabilities came; {} unless accepted.
        text: what the teacher said, for people: content and calls as text, without reasoning.
        calls: (name, arguments) of each call, for scoring; also of an answer that was filtered, as far as it is read.
        broken_calls: how many times the answer opens a call and gives none.
        usage: the tokens.
        usage_counted: whether the server did not say them, and they were counted with `data.tokenizer`.
        cost_micro: the cost in millionths of the currency; None = not told by the reader, such as of a body that is no
            answer: the job decides, see `JobSettings.cost_of`.
        origin: who answered.
        reasoning_tokens: tokens of reasoning that were taken out, as far as known.
        logprobs: "" = none were asked for, or they were used; else why they cannot be used.
    """

    verdict: Verdict
    detail: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    broken_calls: int = 0
    usage: Usage
    usage_counted: bool = False
    cost_micro: int | None = 0
    origin: Origin = Origin()  # noqa: RUF009 (frozen)
    reasoning_tokens: int = 0
    logprobs: str = ""
