"""The verdict on a run: six questions, each answered good, look, bad or unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdfast.config import Config
from kdfast.page.charts import Estimate
from kdfast.page.gates import GateSection
from kdfast.page.history import History, series, total
from kdfast.page.speed import SpeedSection
from kdfast.page.wording import change, counted, number, share

Answer = Literal["good", "look", "bad", "unknown"]

RISEN = 0.02
"""If the final held-out loss is more than this share above the lowest one, it is worth a look."""
FEW_FALSE_CALLS = 0.05
"""A false-call rate above this is worth a look, unless the config sets a limit; so is a share of prompts without a
first action, or of cut answers."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question and its answer.

    Attributes:
        question: the question in a few words.
        answer: the answer.
        because: the reason in one sentence, with the numbers.
        link: the id of the page's section that shows more.
    """

    question: str
    answer: Answer
    because: str
    link: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What checks and tiles are made from.

    Attributes:
        config: the run's config.
        history: the run's metrics.
        before: the shares of the evaluation before training.
        after: the shares of the evaluation after training.
        after_missing: why there is no evaluation after training; "" = there is one.
        speed: the section of speed.
        gates: the section of gates.
        cut_silent: how many prompts without a fitting tool got an answer that was cut before any call: whether a call
            would have followed is not known.
    """

    config: Config
    history: History
    before: dict[str, Estimate]
    after: dict[str, Estimate]
    after_missing: str
    speed: SpeedSection
    gates: GateSection
    student_step: int | None = None
    cut_silent: int = 0


def checks(shown: Shown) -> list[Check]:
    """All checks, in the order of the page."""
    return [
        _finished(shown),
        _held_out(shown),
        _calls(shown),
        _false_calls(shown),
        _speed(shown),
        _gates(shown),
    ]


def verdict(made: Sequence[Check]) -> tuple[Answer, str, str]:
    """The worst answer, a word for it, and how many checks had each answer.

    Examples:
        >>> def check(answer): return Check(question="q", answer=answer, because="", link="")
        >>> verdict([check("good"), check("look"), check("unknown")])
        ('look', 'Mixed', '1 good, 1 worth a look, 1 not known')
        >>> verdict([check("good")])
        ('good', 'Good', 'all 1 good')
    """
    words = {"bad": "bad", "look": "worth a look", "good": "good", "unknown": "not known"}
    counts = {answer: sum(check.answer == answer for check in made) for answer in words}
    if counts["good"] == len(made):
        return "good", "Good", f"all {len(made)} good"
    told = ", ".join(
        f"{counts[answer]} {words[answer]}" for answer in ("good", "look", "bad", "unknown") if counts[answer]
    )
    if counts["bad"]:
        return "bad", "Not good", told
    if counts["look"]:
        return "look", "Mixed", told
    return ("good", "Good, as far as known", told) if counts["good"] else ("unknown", "Not known", told)


def _finished(shown: Shown) -> Check:
    history, steps = shown.history, shown.config.train.num_steps
    answer: Answer = "good"
    because = f"{history.last_step:,} of {counted(steps, 'step')}"
    skipped = total(history.train, "skipped_rows")
    broken = history.not_finite()
    if broken:
        answer, because = "bad", f"{because}; not finite in some line: {', '.join(broken)}"
    elif history.last_step < steps and _stopped_by_rule(shown):
        count = counted(shown.config.train.stop_after_validations, "validation")
        because = f"{because}, then stopped: {count} in a row without a lower held-out loss"
        if skipped:
            answer, because = "look", f"{because}; {counted(int(skipped), 'row')} skipped for NaN"
    elif history.last_step < steps:
        answer, because = "look", f"not finished: {because}"
    elif skipped:
        answer, because = "look", f"{because}; {counted(int(skipped), 'row')} skipped for NaN"
    return Check(question="Trained to the end", answer=answer, because=because, link="losses")


def _stopped_by_rule(shown: Shown) -> bool:
    """Whether `train.stop_after_validations` ended the run, going by its validations; that before training is none."""
    losses = [loss for step, loss in series(shown.history.validation, "loss") if step]
    most = shown.config.train.stop_after_validations
    return bool(most and losses) and len(losses) - 1 - losses.index(min(losses)) >= most


def _held_out(shown: Shown) -> Check:
    question, link = "Held-out loss fell", "losses"
    losses = series(shown.history.validation, "loss")
    if len(losses) < 2:
        because = (
            "no validation data" if shown.config.data.validation is None else "fewer than two validations"
        )
        return Check(question=question, answer="unknown", because=because, link=link)
    best_step, best = min(losses[1:], key=lambda point: point[1])
    takes_best = shown.student_step == best_step < losses[-1][0]
    first, last = losses[0][1], best if takes_best else losses[-1][1]
    because = f"{number(first)} to {number(last)} ({change(first, last) or 'from 0'})"
    named = f"checkpoints/step_{best_step:.0f}"
    answer: Answer = "good"
    if takes_best:
        because += f", the student has the weights of the best checkpoint, {named} (io.final: best)"
    elif best < losses[-1][1]:
        because += f"; lowest was {number(best)}, {named}"
    else:
        because += f"; the last is the best checkpoint, {named}"
    quant = shown.config.quant
    finished = quant.enabled and not quant.start_fraction  # a float student that only has to keep its loss
    if finished:
        because += "; the first is that of the float student"
    if last >= first * (1 + RISEN * finished):
        answer = "bad"
    elif last > best * (1 + RISEN):
        answer, because = "look", f"{because}: io.final=best would take that one"
    return Check(question=question, answer=answer, because=because, link=link)


def _calls(shown: Shown) -> Check:
    question, link = "Calls tools rightly", "calls"
    after, before = shown.after.get("schema_valid"), shown.before.get("schema_valid")
    if after is None:
        because = shown.after_missing or "no evaluated prompt needs a call"
        return Check(question=question, answer="unknown", because=because, link=link)
    train = shown.config.train
    wanted, exactly = train.min_valid_calls_fraction, train.min_exact_calls_fraction
    because = f"{after} of due calls valid" + (
        f", {share(before.value)} before" if before is not None else ""
    )
    exact = shown.after.get("exact_match")
    because += f"; {share(exact.value)} exactly right" if exact is not None else ""
    answer: Answer = "good"
    if after.value < wanted:
        answer, because = "bad", f"{because}; {share(wanted)} are asked for"
    elif exact is not None and exact.value < exactly:
        answer, because = "bad", f"{because}; {share(exactly)} are asked for"
    elif before is not None and after.value < before.value:
        answer = "bad"
    elif after.value == 0 or (before is not None and after.value == before.value < 1):
        answer = "look"
    return Check(question=question, answer=answer, because=because, link=link)


def _false_calls(shown: Shown) -> Check:
    question, link = "No call where no tool fits", "calls"
    after, before = shown.after.get("false_calls"), shown.before.get("false_calls")
    if after is None:
        because = shown.after_missing or "no evaluated prompt is without a fitting tool"
        return Check(question=question, answer="unknown", because=because, link=link)
    because = f"calls on {after} of such prompts" + (
        f", {share(before.value)} before" if before is not None else ""
    )
    cut = shown.cut_silent / after.total if after.total else 0.0
    if shown.cut_silent:
        because += f"; {counted(shown.cut_silent, 'answer')} cut before a call could come"
    most = shown.config.train.max_false_calls_fraction
    limited = most < 1
    answer: Answer = "good" if after.value + cut <= (most if limited else FEW_FALSE_CALLS) else "look"
    if after.value > most:
        answer, because = "bad", f"{because}; {share(most)} are allowed"
    elif not limited and before is not None and after.value > before.value + FEW_FALSE_CALLS:
        answer = "bad"
    return Check(question=question, answer=answer, because=because, link=link)


def _speed(shown: Shown) -> Check:
    question, link = "Acts on every prompt", "speed"
    action = shown.speed.metrics.get("ttfa_tokens")
    if action is None:
        reasons = [reason for reason, names in shown.speed.absent if "ttfa_tokens" in names.split(", ")]
        because = (
            shown.speed.missing.short
            if shown.speed.missing
            else "; ".join(reasons) or "the speed report has no ttfa_tokens"
        )
        return Check(question=question, answer="unknown", because=because, link=link)
    stale = shown.speed.stale
    if stale is not None:
        because = f"stale: {stale.reason}. {stale.remedy}"
        return Check(question=question, answer="unknown", because=because, link=link)
    told = (
        []
        if math.isinf(action.median)
        else [f"first valid call after {number(action.median)} tokens (median)"]
    )
    told += filter(None, [action.without()])
    answer: Answer = "good"
    if action.never == action.count:
        answer = "bad"
    elif action.infinite > FEW_FALSE_CALLS * action.count:
        answer = "look"  # also if answers were only cut: a call may have followed
    return Check(question=question, answer=answer, because="; ".join(told), link=link)


def _gates(shown: Shown) -> Check:
    question, link, gates = "Gates", "gates", shown.gates
    if gates.missing or not gates.rows:
        because = gates.missing.short if gates.missing else "gates.enabled is empty"
        return Check(question=question, answer="unknown", because=because, link=link)
    answer: Answer = "unknown"
    because = gates.counts
    if gates.names("failed"):
        answer, because = "bad", f"{because} (failed: {', '.join(gates.names('failed'))})"
    elif gates.names("inconclusive"):
        answer = "look"
    elif gates.names("passed"):
        answer = "good"
    else:
        because = f"{because}: {', '.join(gates.reasons)}"
    return Check(question=question, answer=answer, because=because, link=link)
