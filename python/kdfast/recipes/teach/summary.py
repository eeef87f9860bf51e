"""What `kdfast teach` says before and after the asking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from kdfast.display import Display
from kdfast.recipes.teach.asking import Asking
from kdfast.recipes.teach.dataset import Written
from kdfast.recipes.teach.facts import facts_table
from kdfast.recipes.teach.plan import Plan
from kdfast.recipes.teach.private import private_text
from kdfast.teacher.api.journal import Journal

_SHOWN_LINES = 3


def say_plan(display: Display, made: Plan) -> None:
    """What a user should know before anything is asked."""
    config, files = made.config, made.config.teacher
    shown = sorted(made.left_out.items())[:_SHOWN_LINES]
    notes = [f"line {line} is not asked: {reason}" for line, reason in shown]
    if made.left_out:
        notes.append(f"{len(made.left_out)} prompts of {files.prompts} are not asked")
    if made.short_of_room:
        notes.append(
            f"{made.short_of_room} prompts leave less than teacher.max_new_tokens ({files.max_new_tokens}) for the"
            f" answer in the largest of data.shapes ({config.data.shapes[-1]}): a long answer would be left out"
        )
    prompts = len({one.prompt.index for one in made.asked})
    said = private_text(made.private, made.private_prompts, prompts, redact=files.redact)
    for note in [*notes, *([said] if said else [])]:
        display.console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def say_written(display: Display, done: Asking, written: Written) -> None:
    """The summary at the end."""
    display.console.print(facts_table([*done.facts, *written_facts(written)]))


def written_facts(written: Written) -> Iterator[tuple[str, str]]:
    """What became of the answers, as names and texts."""
    where = f"written to {written.path}" if written.records else f"nothing was written to {written.path}"
    yield "records", f"{written.records} {where}"
    name = "left out"
    for verdict, count in sorted(written.left_out.items(), key=lambda entry: -entry[1]):
        yield name, f"{verdict.reason} {count}, such as {written.examples[verdict]}"
        name = ""
    name = "log-probabilities"
    if written.with_logprobs:
        yield name, f"with {written.with_logprobs} records"
        name = ""
    for reason, count in written.logprobs_unused.items():
        yield name, f"not used with {count} records: {reason}"
        name = ""
    if written.unanswered:
        yield "not answered yet", f"{written.unanswered} requests"


def result_json(done: Asking, written: Written, journal: Journal) -> dict[str, Any]:
    """The result as JSON values; amounts are in millionths of the currency."""
    left_out = [
        {"kind": verdict.kind, "reason": verdict.reason, "count": count}
        for verdict, count in sorted(
            written.left_out.items(), key=lambda entry: (entry[0].kind, entry[0].reason)
        )
    ]
    return {
        "ended": done.ended,
        "out": str(written.path),
        "records": written.records,
        "unanswered": written.unanswered,
        "left_out": left_out,
        "with_logprobs": written.with_logprobs,
        "logprobs_unused": dict(written.logprobs_unused),
        "money": asdict(journal.money()),
    }
