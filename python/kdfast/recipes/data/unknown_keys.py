"""Keys of records that kdfast does not know: typos, and fields of older data that nothing reads."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path

from kdfast import _rust

_LOG_PROBABILITIES = "log-probabilities belong in teacher_topk, or come from `kdfast teach`"
_OWN_TOKENS = "kdfast tokenises prompt and answer itself"
_OWN_SPANS = "kdfast finds a call's name and arguments in the answer itself"
_NO_LOSS = "kdfast has no loss that would use it"

_OLDER = {
    "teacher_logits": _LOG_PROBABILITIES,
    "teacher_logprobs": _LOG_PROBABILITIES,
    "teacher_topk_ids": _LOG_PROBABILITIES,
    "teacher_topk_logp": _LOG_PROBABILITIES,
    "teacher_topk_logprobs": _LOG_PROBABILITIES,
    "logprobs": _LOG_PROBABILITIES,
    "top_logprobs": _LOG_PROBABILITIES,
    "input_ids": _OWN_TOKENS,
    "attention_mask": _OWN_TOKENS,
    "labels": _OWN_TOKENS,
    "teacher_target_ids": _OWN_TOKENS,
    "training_text": _OWN_TOKENS,
    "tool_name_ids": _OWN_SPANS,
    "tool_name_mask": _OWN_SPANS,
    "gold_json_text_ids": _OWN_SPANS,
    "mask_valid_json_tokens": _OWN_SPANS,
    "tool_result_fields": _NO_LOSS,
    "integration_mask": _NO_LOSS,
    "loss_mask": _NO_LOSS,
    "teacher_hidden_states": _NO_LOSS,
    "teacher_quality_score": _NO_LOSS,
}
"""Keys of other trainers' records, and what to do about them."""


def unknown_keys(path: Path, lines: Container[int]) -> Counter[str]:
    """In how many records of a JSONL file each key is that kdfast does not know.

    Keys inside `metadata` are the user's own and do not count.

    Args:
        path: records, JSONL; a byte order mark and CRLF line ends are allowed.
        lines: the lines to look at, from 1: those that gave rows.

    Returns:
        the keys with their counts; empty = every key is known.

    Raises:
        OSError: the file cannot be read.
    """
    known = set(_rust.record_keys())
    found: Counter[str] = Counter()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number in lines:
                found.update(key for key in _keys(line) if key not in known)
    return found


def describe_unknown(name: str, records: int) -> str:
    """What became of an unknown key, and what to do about it.

    Args:
        name: the key.
        records: in how many records it is.

    Returns:
        a line of text.

    Examples:
        >>> describe_unknown("teacher_txt", 12)
        "teacher_txt: in 12 records, kept as metadata; did you mean 'teacher_text'?"
        >>> describe_unknown("integration_mask", 1)
        'integration_mask: in 1 record, not read: kdfast has no loss that would use it'
    """
    place = f"{name}: in {records} record{'s' if records != 1 else ''}"
    if name in _OLDER:
        return f"{place}, not read: {_OLDER[name]}"
    close = difflib.get_close_matches(name, _rust.record_keys(), n=1, cutoff=0.75)
    return f"{place}, kept as metadata" + (f"; did you mean '{close[0]}'?" if close else "")


def _keys(line: bytes) -> Iterable[str]:
    """The keys of a record; none if Python's parser, which knows other limits than ours, does not read the line."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return ()
    return record.keys() if isinstance(record, dict) else ()
