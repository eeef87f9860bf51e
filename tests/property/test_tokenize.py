import naive_annotate
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from kdfast import _rust

TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            ["<|im_start|>", "<|im_end|>", "weather", " in", "\n", "  ", "é", "😀", "\u200d", "{"]
        ),
        max_size=20,
    ).map("".join),
)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    directory = tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return _rust.Tokenizer.from_file(directory), tiny.Tokenizer.from_file(str(directory / "tokenizer.json"))


@given(text=TEXTS)
def test_ids_equal_those_of_hugging_face(both, text):
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@given(text=TEXTS)
def test_token_bytes_end_to_end_are_the_text(both, text):
    ours, theirs = both
    ids = ours.encode(text)
    assert b"".join(ours.token_bytes(token) for token in ids) == text.encode()
    assert [ours.token_bytes(token) for token in ids] == [naive_annotate.token_bytes(theirs, t) for t in ids]
    assert ours.decode(ids) == text
    assert ours.covers(text, ids)
