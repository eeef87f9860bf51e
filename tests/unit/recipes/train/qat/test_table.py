"""The table of quantised students on the screen, and the sentences under it."""

from __future__ import annotations

import io
from typing import Any

from made_run import quantization
from rich.console import Console

from kdfast.recipes.train.qat.table import print_comparison


def shown(document: dict[str, Any], *, colours: bool = False, width: int = 140) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colours, color_system="standard" if colours else None
    )
    print_comparison(console, document)
    file: Any = console.file
    return str(file.getvalue())


def row(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return line.strip().removeprefix(label).split()


def test_one_column_for_each_student() -> None:
    text = shown(quantization())
    assert "Quantised to q4_0, embeddings q8_0" in text
    assert row(text, "held-out loss") == ["0.2113", "0.2342", "0.2155"]
    assert row(text, "KL to the float student") == ["-", "0.05170", "0.03120"]
    assert " ".join(row(text, "exact calls")) == "17 of 20 (85.0 %) 14 of 20 (70.0 %) 16 of 20 (80.0 %)"
    assert " ".join(row(text, "worst layer's cosine")) == "- 0.98020 (layer 3) 0.98760 (layer 3)"
    assert " ".join(row(text, "size")) == "4.00 MiB 0.67 MiB 0.67 MiB"
    lines = text.splitlines()
    assert lines[-2].endswith("-0.02 [-0.027, -0.014]: QAT is closer to it")
    assert lines[-1].endswith("no difference that these 30 records can show")


def test_a_narrow_screen_loses_nothing() -> None:
    text = shown(quantization(), width=60)
    assert "…" not in text
    assert all(number in text for number in ("0.05170", "0.03120", "0.98020"))


def test_rows_that_nobody_has_are_left_out() -> None:
    document = quantization()
    document["arms"] = [{"name": "float", "title": "[float]", "bytes": 1 << 20, "notes": ["a [bold] reason"]}]
    text = shown(document)
    assert "held-out loss" not in text
    assert row(text, "size") == ["1.00", "MiB"]
    assert "warning: [float]: a [bold] reason" in text


def test_a_qat_that_failed_is_red_and_first() -> None:
    text = shown(quantization(failed=True), colours=True)
    [line] = [line for line in text.splitlines() if "QAT FAILED" in line]
    assert line.startswith("\x1b[1;31mQAT FAILED and was given up: step 8")
    assert "QAT FAILED" in shown(quantization(failed=True))
