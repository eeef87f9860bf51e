"""The tables of an evaluation in a log of 80 columns: nothing is cut short."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from kdfast.evaluate.table import SHARES, category_table, evaluation_table


def printed(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def evaluation(count: int) -> dict[str, Any]:
    number = {"value": 0.625, "low": 0.5, "high": 0.75}
    share = {"count": count, "total": count, "fraction": 1.0, "low": 0.98, "high": 1.0}
    return {
        "table": dict.fromkeys(SHARES, share),
        "quality": dict.fromkeys(("precision", "recall", "f1"), number),
        "length": {"ratio": {"p50": number, "p95": number}},
        "prompts": count,
    }


def test_two_evaluations_stand_side_by_side() -> None:
    lines = printed(evaluation_table(dict.fromkeys(("free", "constrained"), evaluation(234)))).splitlines()
    for label in SHARES.values():
        (line,) = (line for line in lines if line.strip().startswith(label))
        assert re.split(r"  +", line.strip()) == [label, *["234/234 100 % (98 to 100)"] * 2]


@pytest.mark.parametrize("count", [12_345, 1_234_567])
def test_larger_numbers_are_folded_not_cut(count: int) -> None:
    text = printed(evaluation_table(dict.fromkeys(("free", "constrained"), evaluation(count))))
    assert text.count(f"{count}/{count}") == 2 * len(SHARES)
    assert len(re.findall(r"100\)", text)) == 2 * len(SHARES)


def test_categories_are_folded_not_cut() -> None:
    name = "multi_turn_composite"
    text = printed(
        category_table({"categories": {name: evaluation(12_345), "b": evaluation(7)}}, "By category")
    )
    rows = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    cells = next(row for row in rows if "12345" in row)
    assert cells[1:] == ["12345", *["100 %"] * 6, "0.62"]
    folded = rows[rows.index(cells) + 1]
    assert cells[0] + folded[0] == name
