"""Sums up a set of answers: shares, quality, lengths, and why calls were wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from kdfast.evaluate.answer import Answer
from kdfast.evaluate.lengths import length_summary
from kdfast.scoring import NO_TRUTH, Share, quality, summarise


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """All numbers of a set of answers as JSON values, most with 95 % intervals (bootstrap over prompts).

    Returns:
        `prompts`: how many prompts there are;
        `due`: how many of them need a call;
        `table`: the shares of `kdfast.scoring.summarise`, and `cut`: the share of answers that the limit stopped;
        `quality`: see `kdfast.scoring.quality`;
        `length`: see `length_summary`;
        `mismatches`: for each reason (`no_call`, or the reason of the `Mismatch`), how many prompts that need a call
        got no exact match for it;
        `not_counted`: how many answers have calls in formats that do not count;
        `no_truth`: how many prompts need a call, but have no right answer that can be read, so that no answer is right.
    """
    scores = [answer.score for answer in answers]
    cut = Share(count=sum(answer.cut for answer in answers), total=len(answers))
    reasons = Counter(
        "no_call" if score.missed_call and not score.calls_broken else score.mismatch.reason
        for score in scores
        if score.mismatch is not None
    )
    return {
        "prompts": len(answers),
        "due": sum(score.should_call for score in scores),
        "table": {name: share.to_json() for name, share in (summarise(scores) | {"cut": cut}).items()},
        "quality": quality(scores),
        "length": length_summary(
            [answer.tokens for answer in answers], [answer.reference_tokens for answer in answers]
        ),
        "not_counted": sum(score.calls_not_counted > 0 for score in scores),
        "no_truth": sum(score.mismatch is not None and score.mismatch.reason == NO_TRUTH for score in scores),
        "mismatches": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }


def by_category(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """The `summary` of each category, by name; empty if no answer has a category.

    Answers without a category are under "". The results per prompt are left out: the summary of all answers has them.
    """
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.category, []).append(answer)
    if set(groups) <= {""}:
        return {}
    summaries = {name: summary(group) for name, group in sorted(groups.items())}
    for found in summaries.values():
        for number in found["quality"].values():
            number.pop("per_prompt", None)  # not every entry has one (`absent`)
    return summaries
