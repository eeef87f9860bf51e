"""Datasets: every field, every kind of bad line, the quarantine."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from defaults import read_jsonl

from kdfast.errors import DataError

GOOD = '{"prompt": "p", "teacher_text": "t"}'


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def failure(path: Path, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_jsonl(path, **options)
    return caught.value


def test_every_field_is_loaded(write: Any) -> None:
    record = {
        "messages": [{"role": "user", "content": "hé 😀"}],
        "tools": [{"name": "f"}],
        "teacher_message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"name": "f", "arguments": {}}],
        },
        "truth_text": "truth",
        "tool_should_be_used": True,
        "teacher_prefix_ids": [1, 4294967295],
        "required_fields_present": False,
        "teacher_attention_mask": [0, 1, 1],
        "validated_arguments": {"a": [1.5]},
        "teacher_topk": {"ids": [[3], [4, 5]], "logprobs": [[-0.5], [-1.0, -2.0]]},
        "finish_reason": "stop",
        "metadata": {"id": 1},
    }
    (loaded,), rejected = read_jsonl(write(json.dumps(record | {"big": 2**70})))
    assert rejected == []
    assert loaded == record | {"line": 1, "metadata": {"id": 1, "big": 2**70}}


def test_null_is_an_absent_key(write: Any) -> None:
    (loaded,), _ = read_jsonl(write('{"prompt": "p", "truth_text": "t", "teacher_text": null, "note": null}'))
    assert loaded == {"line": 1, "prompt": "p", "truth_text": "t", "metadata": {"note": None}}


def test_records_with_the_same_tools_share_one_object(write: Any) -> None:
    """A device's tools are in every record; parsed anew each time they would take most of the memory."""
    one, other = '[{"name": "f"}]', '[{"name": "g"}]'
    lines = [f'{{"prompt": "p", "teacher_text": "t", "tools": {tools}}}' for tools in (one, other, one)]
    (first, second, third), _ = read_jsonl(write("\n".join([*lines])))
    assert [record["tools"] for record in (first, second, third)] == list(map(json.loads, (one, other, one)))
    assert first["tools"] is third["tools"]
    assert first["tools"] is not second["tools"]


def test_a_header_is_no_record(write: Any) -> None:
    records, _ = read_jsonl(write('{"__header__": {"version": 1}}\n' + GOOD))
    assert [record["line"] for record in records] == [2]
    assert "first line only" in failure(write(GOOD + '\n{"__header__": {}}')).message


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        (
            '{"prompt": "p", "teacher_text": 5}',
            33,
            "teacher_text: expected a string that is not blank, got number",
        ),
        (
            '{"prompt": " ", "teacher_text": "t"}',
            12,
            "prompt: expected a string that is not blank, got a blank one",
        ),
        (
            '{"prompt": "p"}',
            None,
            "no answer: one of teacher_text, teacher_message, truth_text and truth_message",
        ),
        ('{"teacher_text": "t"}', None, "no prompt"),
        ('{"prompt": "p", "teacher_text": "t", "prompt": "q"}', 38, 'duplicate key "prompt"'),
        ('{"prompt": "p", "teacher_text": "t", "x": NaN}', 43, "NaN is not a JSON number"),
        ('{"prompt": "p", "teacher_text": "t", "x": -Infinity}', 43, "-Infinity is not a JSON number"),
        ('{"prompt": "\\udfff", "teacher_text": "t"}', 13, "lone surrogate \\udfff"),
        ('{"prompt": "p", "teacher_text": "t"', 36, "found the end of the text"),
        ('{"prompt": "p", "teacher_text": "t', 35, "the text ends inside a string"),
        (
            '{"prompt": "a\tb", "teacher_text": "t"}',
            14,
            "control character U+0009 in a string must be escaped",
        ),
        (
            '{"prompt": "p", "teacher_text": "t", "teacher_prefix_ids": [18446744073709551616]}',
            61,
            "expected an array",
        ),
        ('{"prompt": "p", "teacher_reasoning_content": "hm"}', 17, "terms of service"),
        (
            '{"prompt": "p", "teacher_message": {"role": "assistant", "content": "x", "reasoning": "hm"}}',
            87,
            "terms of",
        ),
        ("[" * 129, 1, "expected an object, got array"),
        ('{"x": ' + "[" * 129, 134, "nested deeper than 128 levels"),
        ('{"prompt": "é", "teacher_text": "\xe9"}'.encode("latin-1"), 13, "invalid UTF-8: byte 0xe9"),
    ],
)
def test_errors_name_file_line_and_column(
    write: Any, line: str | bytes, column: int | None, says: str
) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    path = write(GOOD.encode() + b"\r\n\r\n" + raw + b"\n" + GOOD.encode())
    error = failure(path)
    assert (error.source, error.line, error.column) == (str(path), 3, column)
    assert says in error.message
    assert "; near: " in error.message
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - made here


def test_the_stated_exceptions_from_orjson(write: Any) -> None:
    """What orjson takes and kdfast refuses: duplicate keys of the record, more than 128 levels."""
    for line in (GOOD[:-1] + ', "prompt": "q"}', GOOD[:-1] + ', "x": ' + "[" * 200 + "]" * 200 + "}"):
        orjson.loads(line)
        failure(write(line))


SUITE = [
    "[1,]",
    "[,1]",
    "[1 2]",
    '{"a":1,}',
    "{a:1}",
    "{'a':1}",
    "[1.]",
    "[.5]",
    "[-]",
    "[+1]",
    "[1e]",
    "[1e+]",
    "[0x1]",
    "[1_0]",
    "[--1]",
    "[-01]",
    "[00]",
    "[1.5e3]",
    "[1E-2]",
    "[-0]",
    "[-0.0]",
    "[0e1]",
    '["\\x00"]',
    '["\\u00"]',
    '["\\uD834\\uDD1E"]',
    '["\\uDD1E\\uD834"]',
    '["\\ud800\\n"]',
    '["\\',
    '["\x7f"]',
    '["\u2028"]',
    "[\x0c1]",
    "[\u00a01]",
    "[tru]",
    "[True]",
    "[nul]",
    "[nan]",
    "[Infinity]",
    "//",
    "[1]//c",
    "[1]x",
    "",
    "\ufeff[]",
    '["a\\/"]',
    "[1e400]",
    "[-1e400]",
    "[123456789012345678901234567890]",
    '{"a":1,"a":2}',
    "[[[]]]",
    '"\\a"',
    "{}}",
    "[]]",
    '{"\\u0061":1,"a":2}',
    '{"":0}',
    "[4.9e-324]",
    "[1e-999]",
    '{"a"}',
    "{:1}",
    '{"a" 1}',
    "[",
    "{",
    '"',
    "-",
    "[1",
    "[\u0000]",
]


@pytest.mark.parametrize("value", SUITE)
def test_verdicts_on_awkward_json_are_those_of_orjson(write: Any, value: str) -> None:
    line = f'{{"prompt": "p", "truth_text": "t", "x": {value}}}'
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        failure(write(line))
    else:
        ((loaded,), _) = read_jsonl(write(line))
        assert loaded["metadata"]["x"] == json.loads(value)


def test_allowed_reasoning_is_kept(write: Any) -> None:
    path = write('{"prompt": "p", "teacher_text": "t", "teacher_reasoning_content": "hm"}')
    (record,), _ = read_jsonl(path, allow_reasoning=True)
    assert record["metadata"] == {"teacher_reasoning_content": "hm"}


def test_quarantine_puts_bad_lines_aside_unchanged(write: Any) -> None:
    bad = [b"\xff\xfe", b'{"prompt": 1}\r']
    path = write(b"\n".join([GOOD.encode(), bad[0], GOOD.encode(), bad[1], b""]))
    records, rejected = read_jsonl(path, on_error="quarantine", max_rejected_fraction=0.5)
    assert [record["line"] for record in records] == [1, 3]
    assert [(line["line"], line["column"], line["raw"]) for line in rejected] == [
        (2, 1, bad[0]),
        (4, 12, bad[1]),
    ]
    assert path.with_name("data.jsonl.rejected.jsonl").read_bytes() == b"\n".join([*bad, b""])
    reasons = path.with_name("data.jsonl.rejected.reasons.jsonl").read_text().splitlines()
    assert [json.loads(reason)["line"] for reason in reasons] == [2, 4]
    error = failure(path, on_error="quarantine", max_rejected_fraction=0.4)
    assert error.message.startswith("2 of 4 lines are bad, more than data.max_rejected_fraction allows (0.4)")
    assert error.line == 2


def test_threads_do_not_matter(write: Any) -> None:
    lines = [GOOD[:-1] + f', "id": {index}, "long": "{"x" * (index % 997)}"}}' for index in range(5000)]
    lines[1234] = lines[1234][:-1]
    path = write("\n".join(lines))
    options: dict[str, Any] = {"on_error": "quarantine"}
    one = read_jsonl(path, threads=1, **options)
    assert one == read_jsonl(path, threads=4, **options)
    assert [record["metadata"]["id"] for record in one[0]] == [
        index for index in range(5000) if index != 1234
    ]


def test_missing_files_and_folders_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_jsonl(tmp_path / "none.jsonl")
    assert caught.value.filename == str(tmp_path / "none.jsonl")
    with pytest.raises(IsADirectoryError):
        read_jsonl(tmp_path)


@pytest.mark.parametrize("content", ["", "\n \n", '{"__header__": {}}'])
def test_a_file_without_records_is_an_error(write: Any, content: str) -> None:
    assert failure(write(content)).message == "holds no records"


def test_a_line_beyond_the_limit_fails_even_a_quarantined_load(write: Any) -> None:
    path = write(GOOD + "\n" + GOOD[:-1] + " " * 100 + "}\n")
    error = failure(path, max_line_bytes=100, on_error="quarantine")
    assert (error.line, "raise data.max_line_bytes" in error.message) == (2, True)


def test_unknown_policy(write: Any) -> None:
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'quarantine', got 'skip'"):
        read_jsonl(write(GOOD), on_error="skip")


def test_a_full_disk_leaves_nothing_half_written(write: Any) -> None:
    path = write("bad line " * 2000 + "\n" + GOOD)
    code = (
        "import resource, signal, sys; from kdfast._rust import read_jsonl\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "options = {'lines': 'records', 'max_line_bytes': 1 << 20, 'allow_reasoning': False, 'threads': 1}\n"
        "try: read_jsonl(sys.argv[1], on_error='quarantine', max_rejected_fraction=1.0, **options)\n"
        "except OSError as error: print(type(error).__name__, error.errno, error.filename)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OSError", "27", f"{path}.rejected.jsonl"]
    assert [entry.name for entry in path.parent.iterdir()] == ["data.jsonl"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_reading_works_after_a_fork(write: Any) -> None:
    path = write("\n".join([GOOD] * 2000))
    read_jsonl(path, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(read_jsonl(path, threads=2)[0]) == 2000 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
