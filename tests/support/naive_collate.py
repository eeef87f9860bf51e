"""The Rust collation written the slow, obvious way, one element at a time; rows are those of `TokenStore.row`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def collate(
    rows: Sequence[Mapping[str, Any]],
    length: int,
    pad_id: int,
    scores: Sequence[Mapping[str, Any] | None] = (),
    prefix_tokens: int = 25,
) -> dict[str, Any]:
    """A batch: each field is built as nested lists of Python numbers, then turned into an array."""
    batch = [_row(row, length, pad_id) for row in rows]
    arrays = {name: np.array([row[name] for row in batch]) for name in batch[0]}
    width = max([prefix_tokens, *(len(row["teacher_prefix_ids"]) for row in rows)])
    arrays["teacher_prefix_ids"] = np.array(
        [list(row["teacher_prefix_ids"]) + [-100] * (width - len(row["teacher_prefix_ids"])) for row in rows]
    )
    if any(score is not None for score in scores):
        arrays |= _teacher(rows, length, scores)
    return arrays


def _row(row: Mapping[str, Any], length: int, pad_id: int) -> dict[str, Any]:
    ids = [int(token) for token in row["ids"]]
    supervised = _inside(row["supervised"], len(ids))
    response = range(row["response_start"], row["response_start"] + row["response_length"])
    given = row["teacher_attention_mask"]
    out: dict[str, Any] = {
        "input_ids": ids + [pad_id] * (length - len(ids)),
        "attention_mask": [1] * len(ids) + [0] * (length - len(ids)),
        "labels": [-100] * length,
        "response_mask": [False] * length,
        "teacher_attention_mask": [
            (int(given[t]) if given is not None else int(t in response)) if t < len(ids) else 0
            for t in range(length)
        ],
    }
    for t in range(len(ids) - 1):
        if t + 1 in supervised:
            out["labels"][t] = ids[t + 1]
            out["response_mask"][t] = True
    for name, span in (
        ("tool_call_mask", "tool_call"),
        ("tool_name_mask", "tool_name"),
        ("tool_args_mask", "tool_args"),
    ):
        inside = _inside(row["spans"][span], len(ids)) & supervised
        out[name] = [t + 1 in inside for t in range(length)]
    for name in ("tool_should_be_used", "required_fields_present", "response_start", "response_length"):
        out[name] = row[name]
    return out | {"teacher_length": row["teacher_length"], "source": row["source"]}


def _inside(spans: Any, length: int) -> set[int]:
    return {t for t in range(length) for start, end in spans if start <= t < end}


def _teacher(
    rows: Sequence[Mapping[str, Any]], length: int, scores: Sequence[Mapping[str, Any] | None]
) -> dict[str, Any]:
    k = next(score["topk_ids"].shape[1] for score in scores if score is not None)
    ids = np.zeros((len(rows), length, k), np.int32)
    logp = np.full((len(rows), length, k), -np.inf, np.float32)
    tail = np.zeros((len(rows), length), np.float32)
    mask = np.zeros((len(rows), length), bool)
    for b, (row, score) in enumerate(zip(rows, scores, strict=True)):
        if score is None:
            continue
        for n, t in enumerate(sorted(_inside(row["supervised"], len(row["ids"])))):
            if np.isneginf(score["topk_logp"][n]).all():
                continue
            ids[b, t - 1], logp[b, t - 1] = score["topk_ids"][n], score["topk_logp"][n]
            tail[b, t - 1], mask[b, t - 1] = score["tail_logp"][n], True
    return {
        "teacher_topk_ids": ids,
        "teacher_topk_logp": logp,
        "teacher_tail_logp": tail,
        "teacher_topk_mask": mask,
    } | _samples(rows, length, scores)


def _samples(
    rows: Sequence[Mapping[str, Any]], length: int, scores: Sequence[Mapping[str, Any] | None]
) -> dict[str, Any]:
    """The drawn ids and their counts; empty if the store has none."""
    widths = [score["sample_ids"].shape[1] for score in scores if score is not None and "sample_ids" in score]
    if not widths:
        return {}
    drawn = {
        name: np.zeros((len(rows), length, widths[0]), np.int32) for name in ("sample_ids", "sample_counts")
    }
    for b, (row, score) in enumerate(zip(rows, scores, strict=True)):
        if score is None:
            continue
        for n, t in enumerate(sorted(_inside(row["supervised"], len(row["ids"])))):
            for name, array in drawn.items():
                array[b, t - 1] = score[name][n]
    return {f"teacher_{name}": array for name, array in drawn.items()}
