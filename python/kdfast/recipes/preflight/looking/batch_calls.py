"""The tool calls in a row of a batch: found in its text, and as its masks mark them."""

from __future__ import annotations

import numpy as np

from kdfast import _rust
from kdfast.data import KDDataset
from kdfast.recipes.preflight.looking.batch_rows import LONGEST, Bools, Row, said
from kdfast.scoring.thinking import thinking_after

TOOL_MASKS = ("tool_call_mask", "tool_name_mask", "tool_args_mask")
"""The masks of whole calls, of their names, and of their arguments."""


def calls_of(row: Row, sample_rows: KDDataset) -> tuple[list[_rust.ToolCall], dict[str, Bools]]:
    """The calls in a row's answers, as their text has them; and for each mask, [end] whether a token is in it."""
    tokenizer, calls, before = sample_rows.tokenizer, list[_rust.ToolCall](), 0
    marked = {name: np.zeros(row.end, dtype=bool) for name in TOOL_MASKS}
    turn_ends = row.turn_ends
    for start, after in row.stored["supervised"]:
        tokens = [token for token in range(start, min(after, row.end)) if not turn_ends[token]]
        text = tokenizer.decode(row.ids[tokens].tolist())
        sizes = [len(tokenizer.token_bytes(int(row.ids[token]))) for token in tokens]
        ends = np.cumsum(sizes)
        prompt = tokenizer.decode(row.ids[before:start].tolist())
        found = _rust.find_tool_calls(
            text, sample_rows.formats, tools=row.stored["tools"] or None, thinking=thinking_after(prompt)
        )
        for call in found:
            spans = (call.span, call.name_span, call.arguments_span)
            for name, (first, last) in zip(TOOL_MASKS, spans, strict=True):
                begin, stop = (len(text[:place].encode()) for place in (first, last))
                touched = (ends > begin) & (ends - sizes < stop)
                marked[name][start : start + len(tokens)] |= touched
        calls, before = calls + found, int(after)
    return calls, marked


def shown_row(row: Row, masks: dict[str, Bools], sample_rows: KDDataset) -> list[str]:
    """Lines to look at: what a row's labels and masks decode to, and what comes before them.

    Args:
        row: the row.
        masks: name of a mask -> [end] whether a token is in it.
        sample_rows: whose tokenizer decodes.
    """
    ids, learned = row.ids[: row.end], row.learned
    first = int(learned.argmax()) if learned.any() else row.end
    prompt = sample_rows.tokenizer.decode(ids[:first].tolist())
    lines = [f"row {row.number} of the sample, {row.end} tokens"]
    lines += [
        f"before it, at the end: {prompt[-LONGEST // 2 :]!r}",
        f"learned: {said(ids[learned], sample_rows)}",
    ]
    for name in TOOL_MASKS:
        lines.append(f"{name}: {said(ids[masks[name]], sample_rows)}")
    return [*lines, f"end of turn: {said(ids[row.turn_ends & learned], sample_rows)}"]
