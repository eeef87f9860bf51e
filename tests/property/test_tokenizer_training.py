"""A tokenizer that kdfast made: kdfast and the tokenizers library read it alike, and no text is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_records import answered, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from kdfast import _rust
from kdfast.recipes.data.tokenizer import train_tokenizer

PIECES = (
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    " kitchen",
    " 42",
    "\n",
    "  ",
    "客",
    "😀",
    '{"',
    '<tool_call>\n{"name": "',
    '", "arguments": ',
    "}\n</tool_call>",
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=20).map("".join))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "call frames"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[_rust.Tokenizer, Tokenizer]:
    folder: Path = tmp_path_factory.mktemp("made")
    file = write_lines(folder / "train.jsonl", [answered(number) for number in range(60)])
    out = folder / "out"
    train_tokenizer([file], out, size=400, template="hermes", show_tools=True, call_frames=request.param)
    return _rust.Tokenizer.from_file(out), Tokenizer.from_file(str(out / "tokenizer.json"))


@settings(deadline=None)
@given(text=TEXTS)
def test_both_read_it_alike_and_give_the_text_back(
    both: tuple[_rust.Tokenizer, Tokenizer], text: str
) -> None:
    ours, theirs = both
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == text
    assert ours.covers(text, ids)
    assert theirs.decode(ids, skip_special_tokens=False) == text
