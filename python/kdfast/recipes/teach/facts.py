"""Facts as people read them: a name, and a text that is wrapped between words beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_NAME_WIDTH = 18


def facts_table(facts: Iterable[tuple[str, str]]) -> Padding:
    """One row a fact. Texts of others are shown as they are: brackets in them are no markup.

    Args:
        facts: (name, text) each.

    Example:
        >>> from rich.console import Console
        >>> Console(width=40).print(facts_table([("requests", "10 to send, and [1] is their number")]))
        requests            10 to send, and [1]
                            is their number
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=_NAME_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(Text(name), Text(text))
    return Padding(table, (0, 0, 0, 2))


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts by their reasons, the largest first.

    Args:
        counts: reason -> how often.

    Example:
        >>> counts_text({"refusal": 1, "schema_broken": 4})
        'schema_broken 4, refusal 1'
    """
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{reason} {count}" for reason, count in ordered)
