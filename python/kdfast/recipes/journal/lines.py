"""How the command prints what it says: lines with a name, blocks, and JSON."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from kdfast.teacher.api.journal_tables import pretty


def count(number: int, noun: str) -> str:
    """A number of things in words.

    Examples:
        >>> count(1, "row"), count(1200, "row")
        ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def say(console: Console, name: str, text: str) -> None:
    """Prints a line that begins with a name; control characters are written as escapes."""
    console.print(f"  {name:<12} {pretty(text)}", highlight=False, soft_wrap=True, markup=False)


def say_block(console: Console, name: str, value: Any) -> None:
    """Prints a name, and a JSON value or a text below it."""
    say(console, name, "")
    console.print(pretty(value), highlight=False, soft_wrap=True, markup=False)


def print_json(document: dict[str, Any]) -> None:
    """Prints a document for machines: in ASCII, whatever the encoding of the terminal is."""
    print(json.dumps(document, indent=1))
