"""What is said at the end of a preflight: counts, what failed and how to mend it, where the result is, what is next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

from rich.text import Text

from kdfast.config import Config
from kdfast.recipes.preflight.shown.result import Result, readable

_PREFLIGHT = "kdfast preflight "


def next_commands(config: Config, again: str = "kdfast preflight CONFIG") -> tuple[str, ...]:
    """The commands that come after a preflight, in order.

    Args:
        config: what was looked at.
        again: the command that looked, quoted as for a shell, its options last; they are no options of the commands
            that come after, and are left out. If it is another than `kdfast preflight`, it goes on by
            itself, and no command comes after.

    Example:
        >>> from kdfast.config.loader import config_from_dict
        >>> values = {"arch": {"init": "m"}, "data": {"train": "t", "tokenizer": "m", "shapes": [64]}}
        >>> next_commands(config_from_dict({**values, "io": {"run_dir": "r"}}), "kdfast preflight my.yaml --strict")
        ('kdfast-train my.yaml',)
    """
    if not again.startswith(_PREFLIGHT):
        return ()
    words = shlex.split(again.removeprefix(_PREFLIGHT))
    named = shlex.join(takewhile(lambda word: not word.startswith("--"), words))
    teacher = config.teacher
    if teacher.kind == "api" and teacher.prompts is not None:
        return (f"kdfast teach {named} --dry-run", f"kdfast teach {named} --pilot 20")
    if teacher.prompts is not None or (teacher.model is not None and not teacher.live):
        return (f"kdfast teach {named}",)
    return (f"kdfast-train {named}",)


def ending_lines(result: Result, written: Iterable[Path], again: str, after: Iterable[str]) -> Iterator[Text]:
    """The lines after the last table. Texts of others are in them, so none is markup.

    Args:
        result: the result.
        written: the files that hold it.
        again: the command to run again if it failed.
        after: the commands to run next if it did not, in order.

    Returns:
        The lines; one with `no_wrap` holds what a user copies: the screen must not break it.
    """
    yield Text("")
    yield _counts_line(result)
    if result.stand_in:
        took = "the small run trained a stand-in for the student"
        yield Text(f"{took}: {result.stand_in}; --full takes the student itself")
    for note in result.notes:
        yield Text(note)
    for row in result.failed:
        yield Text.assemble(("FAIL", "bold red"), "  ", (row.name, "bold"), f": {row.text}")
        if row.remedy:
            yield Text.assemble("      ", ("remedy: ", "bold"), row.remedy)
    for path in written:
        yield _to_copy("result  ", str(path))
    if result.exit_code:
        yield _to_copy(f"next    {_reason(result)}", again)
        return
    for number, command in enumerate(after):
        yield _to_copy("then    " if number else "next    ", command)


def counts_text(result: Result) -> str:
    """The counts in words.

    Example:
        >>> facts = {"seconds": 41.2, "config_fingerprint": "ab", "started_at": 0.0, "kdfast_version": "1.0"}
        >>> counts_text(Result(rows=(), **facts))
        '0 passed, 0 warnings, 0 skipped, 0 failed in 41 s'
    """
    counts = result.counts
    warnings = f"{counts['warn']} warning{'' if counts['warn'] == 1 else 's'}"
    took = f"{result.seconds:.0f} s" if result.seconds >= 1 else f"{result.seconds:.1f} s"
    return f"{counts['pass']} passed, {warnings}, {counts['skip']} skipped, {counts['fail']} failed in {took}"


def _counts_line(result: Result) -> Text:
    style = "bold red" if result.exit_code else "bold yellow" if result.counts["warn"] else "bold green"
    return Text(counts_text(result), style=style)


def _to_copy(before: str, text: str) -> Text:
    return Text.assemble(before, (readable(text), "bold"), no_wrap=True)


def _reason(result: Result) -> str:
    return "mend what failed, then: " if result.failed else "no check passed, so nothing is proven; then: "
