"""The comparison of quantised arms as a table for people, made from its JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdfast.recipes.train.qat.difference import MEASURE_TITLES

Json = Mapping[str, Any]

_MIB = 1 << 20


def comparison_table(document: Json) -> Table:
    """One column per arm; a number that an arm does not have is "-".

    Args:
        document: what `kdfast.recipes.train.qat.arms.compare_arms` gave.

    Example:
        >>> arm = {"name": "qat", "title": "QAT", "bytes": 1 << 20, "kl": 0.5, "positions": 9, "records": 2}
        >>> Console(width=60).print(comparison_table({"format": "q4_0", "embeddings": "q8_0", "arms": [arm]}))
        Quantised to q4_0, embeddings q8_0
        ...
        KL to the float student                            0.50000
        ...
    """
    arms = document["arms"]
    table = Table(
        title=f"Quantised to {document['format']}, embeddings {document['embeddings']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("on held-out records", overflow="fold")
    for arm in arms:
        table.add_column(escape(arm["title"]), justify="right", overflow="fold")
    for label, read in _ROWS.items():
        cells = [read(arm) for arm in arms]
        if any(cells):
            table.add_row(label, *(cell or "-" for cell in cells))
    return table


def print_comparison(console: Console, document: Json) -> None:
    """Prints the table, what it says, and what could not be measured; a QAT that was given up in red."""
    console.print(comparison_table(document))
    failed = document["status"] == "failed"
    for number, line in enumerate(document["judgement"]):
        style = "bold red" if failed and number == 0 else None
        console.print(line, style=style, highlight=False, soft_wrap=True, markup=False)
    for arm in document["arms"]:
        for note in arm.get("notes", []):
            text = f"[yellow]warning[/yellow]: {escape(arm['title'])}: {escape(note)}"
            console.print(text, highlight=False, soft_wrap=True)


def _number(name: str, digits: int) -> Callable[[Json], str]:
    return lambda arm: f"{arm[name]:.{digits}f}" if name in arm else ""


def _share(share: Json | None) -> str:
    return "" if share is None else f"{share['count']} of {share['total']} ({100 * share['fraction']:.1f} %)"


def _calls(name: str) -> Callable[[Json], str]:
    return lambda arm: _share(arm.get("calls", {}).get(name))


def _lowest_cosine(arm: Json) -> str:
    cosines = arm.get("cosines", [])
    if not cosines or None in cosines:
        return ""
    return f"{min(cosines):.5f} (layer {cosines.index(min(cosines))})"


_ROWS: dict[str, Callable[[Json], str]] = {
    "held-out loss": _number("loss", 4),
    MEASURE_TITLES["kl"]: _number("kl", 5),
    "same likeliest token": lambda arm: _share(arm.get("top1")),
    MEASURE_TITLES["nll_names"]: _number("nll_names", 4),
    MEASURE_TITLES["nll_args"]: _number("nll_args", 4),
    "worst layer's cosine": _lowest_cosine,
    "valid calls": _calls("schema_valid"),
    "exact calls": _calls("exact_match"),
    "false calls": _calls("false_calls"),
    "size": lambda arm: f"{arm['bytes'] / _MIB:.2f} MiB",
}
