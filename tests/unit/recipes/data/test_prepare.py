"""Inspecting, auditing and exporting."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pytest
from tiny import write_tokenizer
from tiny_run import write_records

from kdfast import KDDataset
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.data import audit, export, inspect


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return write_records(tmp_path / "data.jsonl", range(12))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer")


def test_inspect_counts_what_is_there(
    records: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(records, tokenizer=tokenizer, shapes=(256, 512), line=6) == 0
    text = capsys.readouterr().out
    data = KDDataset(records, tokenizer, shapes=[256, 512])
    # records 3, 7 and 11 need no call; 0, 5 and 10 carry a teacher's answer besides the truth
    assert f"{len(data)} (3 teacher's answers, 12 ground truths)" in text
    assert len(data) == 15
    assert "no line was rejected" in text
    assert "Example: line 6" in text
    assert "get_weather" in text


def test_inspect_shows_rejected_lines(
    records: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with records.open("a") as file:
        file.write('{"prompt": "a"}\n{"prompt": 7, "teacher_text": "b"}\n')
    inspect(records, tokenizer=tokenizer, shapes=(512,))
    text = capsys.readouterr().out
    assert "2 lines were rejected" in text
    assert "line 13" in text
    assert "line 14" in text


def test_audit_finds_a_flipped_byte(
    records: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path(KDDataset(records, tokenizer).store.path)
    assert audit(store.parent) == 0
    assert "15 rows, all match" in capsys.readouterr().out
    content = bytearray(store.read_bytes())
    place = content.rindex(b"get_weather")
    content[place] ^= 1
    store.write_bytes(content)
    with pytest.raises(DataError, match="1 of 15 rows do not match"):
        audit(store)


def test_audit_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no"):
        audit(tmp_path)
    (tmp_path / "other.arrow").write_bytes(b"x")
    with pytest.raises(DataError, match="is no store"):
        audit(tmp_path)


@pytest.mark.parametrize("format_", ["parquet", "datasets"])
def test_export_holds_the_rows(records: Path, tokenizer: Path, tmp_path: Path, format_: str) -> None:
    out = tmp_path / "out"
    export(records, out, format=format_, tokenizer=tokenizer)
    if format_ == "parquet":
        columns = pyarrow.parquet.read_table(out).to_pydict()
    else:
        from datasets import load_from_disk

        columns = load_from_disk(str(out)).to_dict()
    data = KDDataset(records, tokenizer)
    assert columns["ids"] == [data.ids(index) for index in range(len(data))]
    assert columns["line"] == [data.store.line(index) for index in range(len(data))]
    with pytest.raises(ConfigError, match="is there already"):
        export(records, out, format=format_, tokenizer=tokenizer)
