"""Shows what training would see of a file: counts, lengths, shapes, keys, repeats, rejected lines, an example."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdfast.batch import SOURCES
from kdfast.data import KDDataset
from kdfast.data.repeats import duplicate_rows, other_answers, shared_prompts
from kdfast.errors import DataError
from kdfast.recipes.data.unknown_keys import describe_unknown, unknown_keys
from kdfast.recipes.requests import InspectRequest
from kdfast.shapes import shape_use

_STYLES = {
    "prompt": "dim",
    "answer": "green",
    "call": "cyan",
    "arguments": "yellow",
    "name": "bold magenta",
    "turn end": "bold red",
}
_MOST_KINDS = 10
_MOST_LINES = 10
_NAMES = re.compile(r'"(?:[^"\\]|\\.)*"|\d+|\([^)]*\)')


def inspect(request: InspectRequest) -> None:
    """Prints what training would see of a JSONL file. Bad lines are set aside and shown; they stop nothing.

    Raises:
        DataError: nothing in a file can be read, or no row comes from the line that is to be shown.
        OSError: a file cannot be read or written.
    """
    console, path = Console(), request.path
    opened = partial(
        KDDataset,
        tokenizer_path=request.tokenizer,
        shapes=request.shapes,
        template=request.template,
        template_kwargs=request.template_kwargs,
        show_tools=request.show_tools,
        on_error="quarantine",
        max_rejected_fraction=1.0,
        invalid_calls="keep",
        tool_call_format=request.tool_call_format,
    )
    dataset = opened(path)
    held_out = opened(request.validation) if request.validation is not None else None
    rows = [dataset.store.row(int(row)) for row in dataset.rows]
    if not rows:
        _print_rejected(console, path, dataset)
        raise DataError("no record in it can be used; the reasons are above", str(path))
    _print_counts(console, request, dataset, rows)
    _print_shapes(console, dataset)
    _print_unknown_keys(console, path, dataset)
    _print_repeats(console, dataset)
    if held_out is not None:
        _print_shared(console, dataset, held_out)
    _print_rejected(console, path, dataset)
    _print_example(console, dataset, rows, request.line)


def _print_counts(
    console: Console, request: InspectRequest, dataset: KDDataset, rows: list[dict[str, Any]]
) -> None:
    table = Table(title=str(request.path), title_justify="left", show_header=False)
    due = sum(bool(row["tool_should_be_used"]) for row in rows)
    truths = sum(int(row["source"]) == SOURCES["truth"] for row in rows)
    lines = {row["line"] for row in rows}
    table.add_row("records", f"{len(lines)}")
    table.add_row("rows", f"{len(rows)} ({len(rows) - truths} teacher's answers, {truths} ground truths)")
    table.add_row("tool calls due", f"{due} of {len(rows)} ({due / len(rows):.0%})")
    table.add_row("chat template", _template(request, dataset.template.note))
    table.add_row("calls are read as", dataset.tool_call_format)
    calling = [row for row in rows if len(row["spans"]["tool_call"])]
    if calling:
        table.add_row("answers with calls", _validity(calling))
    bare = sum(_tools_without_schema(row["tools"]) > 0 for row in rows)
    if bare:
        table.add_row("tools without a schema", f"in {bare} rows: any arguments of theirs are valid")
    for name, lengths in (
        ("tokens a row", dataset.lengths),
        ("of them the answer", np.array([row["response_length"] for row in rows])),
    ):
        table.add_row(name, _distribution(lengths))
    supervised = sum(int((row["supervised"][:, 1] - row["supervised"][:, 0]).sum()) for row in rows)
    total = int(dataset.lengths.sum())
    table.add_row("supervised tokens", f"{supervised} of {total} ({supervised / total:.1%})")
    _add_counts(table, dataset)
    lossy = sum(bool(row["prompt_lossy"]) for row in rows)
    if lossy:
        table.add_row(
            "prompts with bytes lost", f"{lossy}: the tokenizer has no token for some of their bytes"
        )
    console.print(table)


def _template(request: InspectRequest, note: str) -> str:
    """The chat template that is used, and the variables that it is given."""
    own = "the tokenizer's own"
    named = {"auto": own, "tokenizer": own, "hermes": "kdfast's own (hermes)"}
    given = f", with {json.dumps(request.template_kwargs)}" if request.template_kwargs else ""
    return escape((note or named.get(request.template, request.template)) + given)


def _add_counts(table: Table, dataset: KDDataset) -> None:
    """What was read otherwise than it was written, where there is any."""
    counts = dataset.counts
    if counts["escaped"]:
        text = f"in {counts['escaped']} rows: learned as text (data.content_tokens)"
        table.add_row("control tokens in content", text)
    if counts["ended_already"]:
        table.add_row("answers with a turn end", f"{counts['ended_already']}: it is learned once")
    if counts["raw_text"]:
        text = f"{counts['raw_text']}: their control tokens are left as they are"
        table.add_row("prompts or answers as text", text)


def _validity(calling: list[dict[str, Any]]) -> str:
    broken = [row for row in calling if not row["call_valid"]]
    if not broken:
        return f"{len(calling)}, all valid by their schemas"
    lines = ", ".join(str(row["line"]) for row in broken[:5])
    remedy = "data.invalid_calls says what becomes of them"
    return f"{len(calling)}, of them {len(broken)} break a schema (line {lines}): {remedy}"


def _tools_without_schema(tools: str | None) -> int:
    definitions = [tool.get("function", tool) for tool in json.loads(tools or "[]")]
    return sum(not definition.get("parameters") for definition in definitions)


def _distribution(values: NDArray[Any]) -> str:
    p50, p95 = np.percentile(values, [50, 95], method="inverted_cdf")
    return f"mean {values.mean():.0f}, median {p50:.0f}, p95 {p95:.0f}, longest {values.max():.0f}"


def _print_shapes(console: Console, dataset: KDDataset) -> None:
    table = Table("shape", "rows", "", "padding", title="Shapes", title_justify="left")
    uses = shape_use(dataset.lengths, dataset.shapes)
    most = max(use.rows for use in uses)
    for use in uses:
        bar = "█" * round(30 * use.rows / most)
        table.add_row(str(use.shape), str(use.rows), bar, f"{use.padding_fraction:.0%}" if use.rows else "-")
    padded = sum(use.shape * use.rows for use in uses)
    table.add_row("all", str(len(dataset)), "", f"{1 - dataset.lengths.sum() / padded:.0%}")
    console.print(table)
    if dataset.too_long:
        first = ", ".join(map(str, dataset.too_long[:10]))
        console.print(
            f"[red]{len(dataset.too_long)} records fit no shape[/red]; lines {first}", highlight=False
        )


def _print_unknown_keys(console: Console, path: Path, dataset: KDDataset) -> None:
    store = dataset.store
    found = unknown_keys(path, {store.line(row) for row in range(len(store))})
    if not found:
        console.print("every key is known")
        return
    console.print(f"keys that kdfast does not know: {len(found)}", highlight=False)
    for name, records in found.most_common(_MOST_KINDS):
        console.print(f"  {describe_unknown(name, records)}", highlight=False, markup=False, soft_wrap=True)
    if len(found) > _MOST_KINDS:
        console.print(f"  ... and {len(found) - _MOST_KINDS} more keys", highlight=False)


def _print_repeats(console: Console, dataset: KDDataset) -> None:
    repeated = duplicate_rows(dataset)
    if repeated:
        console.print(
            f"rows with the tokens of an earlier row, learned once more: {repeated}", highlight=False
        )
    lines = [line for _, line in other_answers(dataset)]
    if lines:
        shown = ", ".join(map(str, lines[:_MOST_LINES])) + (", ..." if len(lines) > _MOST_LINES else "")
        console.print(
            f"records with an earlier record's prompt and tools, and another answer: {len(lines)} (lines {shown})",
            highlight=False,
            soft_wrap=True,
        )
    if not repeated and not lines:
        console.print("no row is there twice, and no prompt has two answers")


def _print_shared(console: Console, train: KDDataset, validation: KDDataset) -> None:
    if not len(validation):
        raise DataError(
            "no record in it can be used; look at it with kdfast data inspect", str(validation.path)
        )
    shared, total = shared_prompts(train, validation)
    console.print(
        f"{shared} of {total} held-out prompts ({validation.path}) are prompts of this file too",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if validation.rejected or validation.too_long:
        console.print(
            f"  {validation.rejected} of its lines were rejected, {len(validation.too_long)} records fit no shape",
            highlight=False,
        )


def _print_rejected(console: Console, path: Path, dataset: KDDataset) -> None:
    if not dataset.rejected:
        console.print("no line was rejected")
        return
    count, where = dataset.rejected, escape(f"{path}.rejected.jsonl")
    said = ("1 line was rejected", "it is") if count == 1 else (f"{count} lines were rejected", "they are")
    console.print(f"[red]{said[0]}[/red]; {said[1]} in {where}", highlight=False, soft_wrap=True)
    reasons = path.with_name(path.name + ".rejected.reasons.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = _kinds([json.loads(text) for text in reasons])
    for entries in kinds[:_MOST_KINDS]:
        first = entries[0]
        place = ":".join(str(part) for part in (first["line"], first["column"]) if part is not None)
        more = f" (and {len(entries) - 1} more of this kind)" if len(entries) > 1 else ""
        console.print(f"  line {place}{more}: {first['reason']}", highlight=False, markup=False)
    if len(kinds) > _MOST_KINDS:
        console.print(f"  ... and {len(kinds) - _MOST_KINDS} more kinds")


def _kinds(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rejected lines with the same reason but for names and numbers, in the order of the first of each."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        words = str(entry["reason"]).partition("; near: ")[0]
        kinds.setdefault(_NAMES.sub("*", words), []).append(entry)
    return list(kinds.values())


def _print_example(
    console: Console, dataset: KDDataset, rows: list[dict[str, Any]], line: int | None
) -> None:
    chosen = next((row for row in rows if line is None or row["line"] == line), None)
    if chosen is None:
        raise DataError("no row comes from the line that --line names", str(dataset.path), line)
    legend = Text("Example: line ").append(str(chosen["line"])).append(" (")
    for name, style in _STYLES.items():
        legend.append(f" {name} ", style=style)
    console.print(legend.append(")"))
    text = Text()
    for piece, style in _coloured(dataset, chosen):
        text.append(piece, style=style)
    console.print(text, soft_wrap=True)


def _coloured(dataset: KDDataset, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Pieces of the row's text with one style each; a character that is split over tokens stays whole."""
    kinds = np.full(len(row["ids"]), "prompt", dtype=object)
    for start, end in row["supervised"]:
        kinds[start:end] = "answer"
    for kind, name in (
        ("call", "tool_call"),
        ("arguments", "tool_args"),
        ("name", "tool_name"),
        ("turn end", "turn_end"),
    ):
        for start, end in row["spans"][name]:
            kinds[start:end] = kind
    start = 0
    for index in range(1, len(kinds) + 1):
        if index == len(kinds) or kinds[index] != kinds[start]:
            yield dataset.tokenizer.decode(row["ids"][start:index].tolist()), _STYLES[kinds[start]]
            start = index
