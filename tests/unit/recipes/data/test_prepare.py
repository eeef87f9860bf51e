"""Inspecting, auditing and exporting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from commands import run_command
from tiny import write_tokenizer
from tiny_run import write_records

from kdfast import KDDataset
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.data import audit, export, inspect
from kdfast.recipes.requests import InspectRequest


def inspect_file(path: Path, **options: Any) -> int:
    return inspect(InspectRequest(path=path, **options))


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return write_records(tmp_path / "data.jsonl", range(12))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer")


def test_inspect_counts_what_is_there(
    records: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect_file(records, tokenizer=tokenizer, shapes=(256, 512), line=6) == 0
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
    inspect_file(records, tokenizer=tokenizer, shapes=(512,))
    text = capsys.readouterr().out
    assert "2 lines were rejected" in text
    assert "line 13" in text
    assert "line 14" in text


def test_inspect_lists_unknown_keys(
    records: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect_file(records, tokenizer=tokenizer, shapes=(512,))
    assert "every key is known" in capsys.readouterr().out
    good = {"prompt": "a", "teacher_text": "b"}
    with records.open("a") as file:
        for more in (
            {"teacher_txt": "c"},
            {"teacher_txt": "c", "teacher_logits": [1]},
            {"metadata": {"x": 1}},
        ):
            file.write(json.dumps(good | more) + "\n")
        # a rejected line: its keys do not count
        file.write(json.dumps({"prompt": 7, "teacher_text": "b", "promt": "c"}) + "\n")
    inspect_file(records, tokenizer=tokenizer, shapes=(512,))
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("keys that kdfast does not know: 2")
    assert lines[first + 1 : first + 3] == [
        "  teacher_txt: in 2 records, kept as metadata; did you mean 'teacher_text'?",
        "  teacher_logits: in 1 record, not read: log-probabilities belong in teacher_topk, or come from `kdfast "
        "teach`",
    ]


def test_inspect_shows_the_ten_commonest_unknown_keys(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text(json.dumps({"prompt": "a", "teacher_text": "b"} | {f"x{key}": 1 for key in range(12)}))
    inspect_file(path, tokenizer=tokenizer, shapes=(512,))
    text = capsys.readouterr().out
    assert "keys that kdfast does not know: 12" in text
    assert "  x9: in 1 record" in text
    assert "  x10:" not in text
    assert "... and 2 more keys" in text


def test_inspect_counts_what_is_there_twice(
    records: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect_file(records, tokenizer=tokenizer, shapes=(512,))
    assert "no row is there twice, and no prompt has two answers" in capsys.readouterr().out
    again = records.read_text().splitlines()[1:3]
    other = json.loads(again[0])
    del other["truth_message"]
    other["truth_text"] = "No."
    with records.open("a") as file:
        file.write("\n".join([*again, json.dumps(other)]) + "\n")
    inspect_file(records, tokenizer=tokenizer, shapes=(512,))
    text = capsys.readouterr().out
    assert "rows with the tokens of an earlier row, learned once more: 2" in text
    assert "earlier record's prompt and tools, and another answer: 1 (lines 15)\n" in text


def test_inspect_counts_held_out_prompts_that_are_trained_on(
    records: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = write_records(records.with_name("held_out.jsonl"), range(10, 15))
    with held_out.open("a") as file:
        file.write("{}\n")
    inspect_file(records, tokenizer=tokenizer, shapes=(512,), validation=held_out)
    text = capsys.readouterr().out
    # numbers 10 and 11 are in both files
    assert f"2 of 5 held-out prompts ({held_out}) are prompts of this file too" in text
    assert "1 of its lines were rejected, 0 records fit no shape" in text
    done = run_command("data", "inspect", records, "--tokenizer", tokenizer, "--validation", held_out)
    assert done.returncode == 0
    assert f"2 of 5 held-out prompts ({held_out}) are prompts of this file too" in done.stdout


def test_inspect_refuses_held_out_records_that_are_none(
    records: Path, tokenizer: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    with pytest.raises(DataError, match=r"bad\.jsonl: no record in it can be used"):
        inspect_file(records, tokenizer=tokenizer, shapes=(512,), validation=bad)


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


def test_variables_of_the_template(
    records: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "mine.jinja"
    text = "{{ mood }}{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content or '' }}"
    text += "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    text += "<|im_end|>{% endfor %}"
    template.write_text(text + "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}")
    given = ("--tokenizer", tokenizer, "--template", template, "--shapes", "512")
    told = run_command("data", "inspect", records, *given, "--template-kwargs", '{"mood": "cheerful"}')
    assert told.returncode == 0, told.stderr
    assert "cheerful<|im_start|>user What is" in told.stdout
    wrong = run_command("data", "inspect", records, *given, "--template-kwargs", '{"moood": "cheerful"}')
    assert wrong.returncode == 2
    assert "no such variable, did you mean 'mood'? Rename or remove it, got 'moood'" in wrong.stderr
    for bad in ("{", "[1]", "3", '{"a": .nan}'):
        refused = run_command("data", "inspect", records, *given, "--template-kwargs", bad)
        assert refused.returncode == 2
        assert "--template-kwargs" in refused.stderr, bad
