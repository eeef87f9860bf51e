"""Keys that kdfast does not know: which are counted, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdfast import _rust
from kdfast.recipes.data.unknown_keys import _OLDER, describe_unknown, unknown_keys


def count(path: Path, text: bytes) -> dict[str, int]:
    path.write_bytes(text)
    return dict(unknown_keys(path, range(1, 100)))


def test_unknown_keys_are_counted_by_record(tmp_path: Path) -> None:
    lines = [
        b'{"__header__": {"anything": 1}}',
        b'{"prompt": "a", "teacher_text": "b", "teacher_logits": [1]}',
        b'{"prompt": "a", "truth_text": "b", "teacher_txt": "c", "teacher_logits": null}',
        b'{"prompt": "a", "teacher_text": "b", "teacher_reasoning_content": "c", "finish_reason": "stop"}',
        b'{"messages": [{"role": "user", "contents": "x"}], "functions": [], "truth_message": {"x": 1}}',
    ]
    assert count(tmp_path / "a.jsonl", b"\n".join(lines)) == {"teacher_logits": 2, "teacher_txt": 1}


def test_keys_inside_metadata_are_the_users_own(tmp_path: Path) -> None:
    line = b'{"prompt": "a", "teacher_text": "b", "metadata": {"teacher_txt": 1, "teacher_logits": 2}}'
    assert count(tmp_path / "a.jsonl", line) == {}


def test_byte_order_marks_and_crlf_are_read(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf{"promt": "a"}\r\n\r\n{"promt": "a"}\r\n'
    assert count(tmp_path / "a.jsonl", text) == {"promt": 2}


def test_lines_that_are_no_records_are_skipped(tmp_path: Path) -> None:
    lines = [b"{", b"[1]", b'"a"', b"", b'{"a": "\xff"}', b"[" * 100_000, b'{"id": 7}']
    assert count(tmp_path / "a.jsonl", b"\n".join(lines)) == {"id": 1}


def test_only_the_given_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"x": 1}\n{"y": 1}\n{"z": 1}\n')
    assert dict(unknown_keys(path, {1, 3})) == {"x": 1, "z": 1}


@pytest.mark.parametrize(
    ("name", "records", "text"),
    [
        ("teacher_txt", 12, "teacher_txt: in 12 records, kept as metadata; did you mean 'teacher_text'?"),
        ("message", 1, "message: in 1 record, kept as metadata; did you mean 'messages'?"),
        ("id", 3, "id: in 3 records, kept as metadata"),
        (
            "teacher_logits",
            2,
            "teacher_logits: in 2 records, not read: log-probabilities belong in teacher_topk, or come from "
            "`kdfast teach`",
        ),
        ("loss_mask", 1, "loss_mask: in 1 record, not read: kdfast has no loss that would use it"),
    ],
)
def test_what_is_said_of_a_key(name: str, records: int, text: str) -> None:
    assert describe_unknown(name, records) == text


def test_keys_of_older_data_are_not_keys_of_ours() -> None:
    assert not set(_OLDER) & set(_rust.record_keys())
