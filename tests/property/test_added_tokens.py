"""Whatever the flags of a tokenizer's added tokens, ids are those of Hugging Face, and of every way to supervise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_store import build

from kdfast import _rust
from kdfast.errors import DataError

FLAGS = st.fixed_dictionaries(
    {name: st.booleans() for name in ("lstrip", "rstrip", "single_word", "normalized", "special")}
)
CONTENTS = ["<|call|>", "    ", "word", "<a>", "\n\n"]
TEXT = st.lists(st.sampled_from([*CONTENTS, " ", "\n", "x", "word", "s", "  "]), max_size=9).map("".join)
NORMALIZERS = st.sampled_from([None, {"type": "NFC"}])


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(tiny.train().to_str())
    return document


def ids_or_refused(encode: Callable[[str], list[int]], text: str) -> list[int] | str:
    """The ids; "refused" where two added tokens take the same white space along: there the library panics."""
    try:
        return encode(text)
    except DataError as error:
        assert "take the same white space along" in str(error)  # noqa: PT017 - the other side raises something else
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
    return "refused"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(CONTENTS), FLAGS, max_size=3), NORMALIZERS, st.lists(TEXT, max_size=4))
def test_ids_are_those_of_hugging_face(
    plain: dict[str, Any], tmp_path: Path, added: dict[str, Any], normalizer: Any, texts: list[str]
) -> None:
    first = len(plain["model"]["vocab"]) + 10
    more = [{"id": first + n, "content": name, **flags} for n, (name, flags) in enumerate(added.items())]
    document = plain | {"added_tokens": plain["added_tokens"] + more, "normalizer": normalizer}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(document))
    mine, theirs = _rust.Tokenizer.from_file(file), tokenizers.Tokenizer.from_file(str(file))
    for text in texts:
        expected = ids_or_refused(lambda text: theirs.encode(text, add_special_tokens=False).ids, text)
        assert ids_or_refused(mine.encode, text) == expected, text


def test_all_turns_have_the_ids_of_the_last_where_a_turn_end_strips(tmp_path: Path) -> None:
    document = json.loads((tiny.write_tokenizer(tmp_path) / "tokenizer.json").read_text())
    for token in document["added_tokens"]:
        token["rstrip"] = token["content"] == "<|im_end|>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    turns = [("user", "one"), ("assistant", "1"), ("user", "two")]
    record = {"messages": [{"role": role, "content": text} for role, text in turns], "truth_text": "2"}
    rows = [build(tmp_path, [record], supervise=supervise).row(0) for supervise in ("last", "all")]
    assert rows[0]["ids"].tolist() == rows[1]["ids"].tolist()
    whole = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = _rust.Tokenizer.from_file(tmp_path).decode(rows[0]["ids"].tolist())
    assert rows[0]["ids"].tolist() == whole.encode(text, add_special_tokens=False).ids


def test_decomposed_letters_under_a_composing_normaliser_are_named(tmp_path: Path) -> None:
    file = tiny.write_tokenizer(tmp_path) / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": {"type": "NFC"}}))
    with pytest.raises(
        DataError, match=r"byte 3 is lost or changed .* unicodedata\.normalize\('NFC', text\)"
    ):
        build(tmp_path, [{"prompt": "q", "truth_text": "cafe\u0301"}])
    assert len(build(tmp_path, [{"prompt": "q", "truth_text": "caf\u00e9"}])) == 1
