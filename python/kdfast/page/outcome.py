"""Sorts the answers of an evaluation by outcome, from a right call to no call at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.page.charts import Part
from kdfast.runs.node import Node


@dataclass(frozen=True)
class Outcome:
    """A kind of answer.

    Attributes:
        label: its name.
        style: its class in the style sheet, from `good` to `bad`; `cut` = neither is known.
        call_due: whether the prompt needs a call.
    """

    label: str
    style: str
    call_due: bool


RIGHT = Outcome("right call", "good", True)
OTHER_VALUE = Outcome("valid call, other values", "fair", True)
INVALID = Outcome("right function, arguments break its schema", "weak", True)
OTHER_FUNCTION = Outcome("other function, or other number of calls", "poor", True)
BROKEN_CALL = Outcome("a broken call", "bad", True)
NO_CALL = Outcome("no call", "bad", True)
CUT = Outcome("cut before a call", "cut", True)
SILENT = Outcome("no call, rightly", "good", False)
CUT_SILENT = Outcome("no call until it was cut, where no tool fits", "cut", False)
ATTEMPTED_CALL = Outcome("an attempted call where no tool fits", "poor", False)
FALSE_CALL = Outcome("a call where no tool fits", "bad", False)

OUTCOMES = (
    RIGHT, OTHER_VALUE, INVALID, OTHER_FUNCTION, CUT, BROKEN_CALL, NO_CALL,
    SILENT, CUT_SILENT, ATTEMPTED_CALL, FALSE_CALL,
)  # fmt: skip
"""Every outcome, best first; those of prompts that need a call come before the others."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of an evaluation.

    Attributes:
        number: the number of its prompt, from 1.
        text: what the student wrote.
        reference: the right answer.
        tokens: the length of `text` in tokens.
        cut: whether it was stopped at the longest allowed length.
        outcome: the kind of answer.
        why: why it is not an exact match; "" = it is one, or the file does not say.
    """

    number: int
    text: str
    reference: str
    tokens: int
    cut: bool
    outcome: Outcome
    why: str


def read_answers(evaluation: Node) -> list[Answer]:
    """Reads the answers of an evaluation file.

    Raises:
        DataError: an answer is not as `kdfast train` writes it; the message names file and key.
    """
    return [_read_answer(number, node) for number, node in enumerate(evaluation["answers"].list(), 1)]


def _read_answer(number: int, node: Node) -> Answer:
    score, cut = node["score"], node["cut"].flag()
    mismatch = score.find("mismatch")
    return Answer(
        number=number,
        text=node["text"].text(),
        reference=node["reference_text"].text(),
        tokens=node["tokens"].count(),
        cut=cut,
        outcome=outcome(score, cut=cut),
        why=mismatch["detail"].text() if mismatch is not None else "",
    )


def outcome(score: Node, *, cut: bool = False) -> Outcome:
    """The outcome of an answer with this score.

    Args:
        score: the answer's score.
        cut: whether the answer was stopped at the longest allowed length: a call that is not there may have followed.

    Examples:
        >>> marks = {"parsed": True, "right_function": True, "schema_valid": False, "exact_match": False}
        >>> outcome(Node({"should_call": True, **marks}, "evaluation.json", "make it again")).label
        'right function, arguments break its schema'
    """
    parsed, count = score["parsed"].flag(), score.find("calls_broken")
    broken = count is not None and count.count() > 0  # a file of an older version does not say
    if not score["should_call"].flag():
        return FALSE_CALL if parsed else ATTEMPTED_CALL if broken else CUT_SILENT if cut else SILENT
    if score["exact_match"].flag():
        return RIGHT
    if broken or not parsed:
        return BROKEN_CALL if broken else CUT if cut else NO_CALL
    if not score["right_function"].flag():
        return OTHER_FUNCTION
    return OTHER_VALUE if score["schema_valid"].flag() else INVALID


def parts(answers: Sequence[Answer], *, call_due: bool) -> list[Part]:
    """How many answers had each outcome, over the prompts that need a call or over the others."""
    counts = Counter(answer.outcome for answer in answers)
    return [
        Part(label=one.label, amount=counts[one], style=one.style)
        for one in OUTCOMES
        if one.call_due == call_due
    ]
