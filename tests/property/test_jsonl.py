"""Reading datasets, against a loop over lines with the json module."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import naive_jsonl
import orjson
import pytest
from defaults import read_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdfast.errors import DataError

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ANSWERS = STRINGS.map(lambda text: "answer " + text)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**80), 2**80),
        st.floats(allow_nan=False, allow_infinity=False),
        STRINGS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(STRINGS, inner, max_size=3)),
    max_leaves=6,
)
UNKNOWN = st.dictionaries(
    st.sampled_from(["id", "note", "é", "tool_name_ids", "teacher_logits", ""]), JSON, max_size=3
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": STRINGS}),
    min_size=1,
    max_size=2,
)
RECORD = st.tuples(
    st.one_of(
        st.fixed_dictionaries({"prompt": ANSWERS}),
        st.fixed_dictionaries({"messages": MESSAGES, "tools": st.lists(st.just({"name": "f"}), max_size=1)}),
    ),
    st.one_of(
        st.fixed_dictionaries(
            {"teacher_text": ANSWERS}, optional={"truth_text": ANSWERS, "finish_reason": ANSWERS}
        ),
        st.fixed_dictionaries(
            {"truth_message": ANSWERS.map(lambda text: {"role": "assistant", "content": text})}
        ),
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "tool_should_be_used": st.one_of(st.none(), st.booleans()),
            "teacher_prefix_ids": st.lists(st.integers(0, 2**32 - 1), max_size=3),
            "teacher_attention_mask": st.lists(st.integers(0, 1), max_size=3),
            "required_fields_present": st.booleans(),
            "validated_arguments": st.dictionaries(STRINGS, JSON, max_size=2),
            "metadata": st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b"]), JSON)),
        },
    ),
    UNKNOWN,
).map(lambda parts: parts[0] | parts[1] | parts[2] | parts[3])
GOOD = st.tuples(RECORD, st.booleans(), st.sampled_from([(",", ":"), (" , ", " :\t")])).map(
    lambda parts: json.dumps(parts[0], ensure_ascii=parts[1], separators=parts[2]).encode()
)
FINE = b'{"prompt": "p", "truth_text": "t", "x": '
BAD = st.one_of(
    GOOD.flatmap(lambda line: st.integers(1, len(line) - 1).map(lambda cut: line[:cut])),
    GOOD.flatmap(lambda line: st.integers(0, len(line)).map(lambda at: line[:at] + b"\xff" + line[at:])),
    st.sampled_from(
        [
            b"[]",
            b"5",
            FINE + b"NaN}",
            FINE + b"-Infinity}",
            FINE + b'"\\ud800"}',
            FINE + b'1, "x": 1}',
            FINE + b"[" * 128 + b"]" * 128 + b"}",
            FINE + b'"\x01"}',
            FINE + b"01}",
            FINE + b"1e999}",
            FINE + b"1}}",
            FINE + b"\x00}",
        ]
    ),
)
EDGE = st.sampled_from(
    [FINE + b"[" * 127 + b"]" * 127 + b"}", FINE + b"-1e308}", FINE + b'{"y": 1, "y": 2}}']
)
LINE = st.one_of(GOOD, GOOD, GOOD, BAD, EDGE, st.sampled_from([b"", b" ", b"\t"]))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(LINE, max_size=6))
    lines.insert(draw(st.integers(0, len(lines))), draw(GOOD))
    ends = [draw(st.sampled_from([b"\n", b"\r\n"])) for _ in lines]
    ends[-1] = draw(st.sampled_from([b"", b"\n", b"\r\n"]))
    content = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + content


def load(content: bytes, **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.jsonl"
        path.write_bytes(content)
        return read_jsonl(path, **options)


@pytest.mark.slow
@settings(max_examples=300)
@given(files(), st.sampled_from([1, 3]))
@example(b"\xef\xbb\xbf\n\r\n" + FINE + b"1}", 1)
def test_records_and_bad_lines_are_those_of_the_twin(content: bytes, threads: int) -> None:
    records, rejected = load(content, on_error="quarantine", max_rejected_fraction=1.0, threads=threads)
    expected, bad = naive_jsonl.read(content)
    assert json.dumps(records, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert [line["line"] for line in rejected] == bad
    assert [line["raw"] for line in rejected] == [content.split(b"\n")[number - 1] for number in bad]


@pytest.mark.slow
@settings(max_examples=150)
@given(files())
def test_the_first_bad_line_is_named(content: bytes) -> None:
    _, bad = naive_jsonl.read(content)
    if not bad:
        load(content)
        return
    with pytest.raises(DataError) as caught:
        load(content)
    assert caught.value.line == bad[0]
    assert str(caught.value).startswith(f"{caught.value.source}:{bad[0]}:")


@pytest.mark.slow
@settings(max_examples=200)
@given(GOOD, st.integers(0, 10**6), st.binary(min_size=1, max_size=3).filter(lambda edit: b"\n" not in edit))
def test_verdicts_are_those_of_orjson(line: bytes, at: int, edit: bytes) -> None:
    """Damage to a good line is seen exactly when orjson sees it (but for what the unit tests state)."""
    place = at % (len(line) + 1)
    damaged = line[:place] + edit + line[place + len(edit) :]
    try:
        value = orjson.loads(damaged)
    except orjson.JSONDecodeError:
        value = None
    content = b'{"prompt": "p", "truth_text": "t", "metadata": {"x": ' + damaged + b"}}"
    if damaged.startswith(b'{"') and value is not None:
        records, _ = load(content)
        assert json.dumps(records[0]["metadata"]["x"]) == json.dumps(json.loads(damaged))
    elif value is None:
        with pytest.raises(DataError):
            load(content)
