"""A first look at single files: what kind they are, told from their head."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import tiny

from kdfast.errors import ConfigError, DataError
from kdfast.recipes.first_look.files import (
    check_named,
    check_new,
    check_records,
    check_tokenizer,
    file_problem,
    folder_problem,
    template_problem,
)

RECORD = {"prompt": "a", "teacher_text": "b"}
LINE = (json.dumps(RECORD) + "\n").encode()


def records(directory: Path, content: bytes) -> Path:
    path = directory / "records.jsonl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no records"),
        (b"\n\n", "holds no records"),
        (gzip.compress(LINE), "compressed with gzip; unpack it"),
        (b"PAR1\x15\x04\x15" + b"\0" * 99, "a Parquet table; write it as JSON lines"),
        (json.dumps([RECORD, RECORD], indent=1).encode(), "one JSON array; write an object a line"),
        (json.dumps(RECORD, indent=1).encode(), "pretty-printed JSON"),
        (b"[1, 2]\n" + LINE, ":1:1: expected"),
        (LINE + b'{"prompt": "a"}\n', ":2: "),
        (b"PAR1" + b"\0" * 99_999, "a Parquet table"),  # no newline in the head
    ],
    ids=["empty", "blank", "gzip", "Parquet", "array", "pretty", "no object", "no answer", "no newline"],
)
def test_what_holds_no_records_is_named_as_the_reader_names_it(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = records(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        check_records(path)
    assert caught.value.source == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["records.jsonl"]


def test_only_the_head_is_read(tmp_path: Path) -> None:
    check_records(records(tmp_path, LINE * 5000 + b"no JSON"))
    check_records(records(tmp_path, b"\n" * 99_999 + LINE))
    long = json.dumps({"prompt": "long " * 20_000, "teacher_text": "b"}).encode()
    check_records(records(tmp_path, long))


def test_a_bad_first_line_is_no_error_where_bad_lines_are_set_aside(tmp_path: Path) -> None:
    path = records(tmp_path, b"no JSON\n" + LINE)
    check_records(path, on_error="quarantine")
    with pytest.raises(DataError, match=r"records.jsonl:1:"):
        check_records(path)
    assert [file.name for file in tmp_path.iterdir()] == ["records.jsonl"]
    with pytest.raises(DataError, match="compressed with gzip"):
        check_records(records(tmp_path, gzip.compress(LINE)), on_error="quarantine")


def test_the_options_of_the_reader_count(tmp_path: Path) -> None:
    path = records(tmp_path, (json.dumps(RECORD | {"teacher_reasoning_content": "because"}) + "\n").encode())
    check_records(path, allow_reasoning=True)
    with pytest.raises(DataError, match="teacher_reasoning_content"):
        check_records(path)
    with pytest.raises(DataError, match="longer than 10 bytes"):
        check_records(path, allow_reasoning=True, max_line_bytes=10)


def test_a_tokenizer(tmp_path: Path) -> None:
    check_tokenizer(tiny.write_tokenizer(tmp_path / "good"))
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer.json: not a tokenizer.json"):
        check_tokenizer(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no tokenizer.json in this directory"):
        check_tokenizer(tmp_path / "empty")


def test_a_template_is_there_and_compiles(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    assert template_problem(str(path)) == f"no such file (check the path): {path}"
    path.write_text("{{ messages[0].content }}", encoding="utf-8")
    assert [template_problem(name) for name in (str(path), "auto", "hermes", "tokenizer")] == [None] * 4
    path.write_text("{% for %}", encoding="utf-8")
    problem = template_problem(str(path))
    assert problem is not None
    assert problem.startswith("the chat template failed, line 1: ")
    assert problem.endswith(f": {path}")


def test_paths(tmp_path: Path) -> None:
    file = records(tmp_path, LINE)
    assert file_problem(file) is None
    assert file_problem(tmp_path, or_directory=True) is None
    assert file_problem(tmp_path) == f"is a directory (name a file instead): {tmp_path}"
    assert file_problem(file / "x", or_directory=True) == (
        f"no such file or directory (check the path): {file / 'x'}"
    )
    assert folder_problem(tmp_path / "new" / "run") is None
    assert folder_problem(Path("new/run")) is None
    for inside in (file, file / "run"):
        assert folder_problem(inside) == f"must be a folder, choose another path; this is a file: {file}"
    check_new(tmp_path / "new")
    with pytest.raises(ConfigError, match="--out: is there already; remove it or choose another path"):
        check_new(file)


def test_all_problems_are_said_at_once() -> None:
    check_named([("data.train", None)])
    with pytest.raises(ConfigError) as caught:
        check_named([("data.train", "no such file"), ("data.cache", None), ("io.run_dir", "is a file")])
    assert str(caught.value).splitlines() == ["data.train: no such file", "io.run_dir: is a file"]
