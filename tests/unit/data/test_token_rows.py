"""Lines as training reads them: the same lines are refused, for the same reasons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import write_tokenizer
from tiny_run import TOOL

from kdfast import KDDataset
from kdfast.config import DataConfig
from kdfast.data.token_rows import TOO_LONG, Reader, to_line, write_lines


def call(**arguments: object) -> dict[str, object]:
    function = {"name": "get_weather", "arguments": arguments}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": function}],
    }
    return {"messages": [{"role": "user", "content": "q"}], "tools": [TOOL], "teacher_message": message}


def test_the_same_lines_are_refused_as_in_training(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    long = {"prompt": "q", "teacher_text": "long " * 400}
    lines = [call(city="Rome"), call(city=3), None, long, {"prompt": "q", "teacher_text": "a"}]
    path = tmp_path / "lines.jsonl"
    write_lines(path, lines)
    data = DataConfig(train=path, tokenizer=tokenizer, shapes=(256,))
    reader = Reader.of(data)
    rows = reader.rows(path)
    assert list(rows.refused) == [2, 4]
    assert "breaks its tool's schema" in rows.refused[2]
    assert rows.refused[4] == TOO_LONG
    assert reader.formats == ("hermes",)
    again = tmp_path / "again.jsonl"
    write_lines(again, lines)
    dataset = KDDataset(
        again,
        tokenizer,
        shapes=(256,),
        on_error="quarantine",
        max_rejected_fraction=1.0,
        cache=tmp_path / "cache",
    )
    kept = {dataset.place(row)[1] for row in dataset.rows.tolist()}
    assert kept == {1, 5}
    assert rows.prompt_ids(5) == dataset.tokenizer.encode("q")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), _JSON, max_size=3))
def test_a_line_is_one_line_and_the_same_record(record: dict[str, object]) -> None:
    try:
        line = to_line(record)
        line.encode()
    except UnicodeEncodeError:
        return  # half of a surrogate pair
    assert "\n" not in line
    assert json.loads(line) == record


def test_what_json_cannot_write_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_line({"n": float("nan")})
