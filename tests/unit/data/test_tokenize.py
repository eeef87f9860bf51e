import json

import pytest
import tiny
from tokenizers import Tokenizer

from kdfast import _rust
from kdfast.errors import DataError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_file_and_directory_are_the_same_tokenizer(directory):
    tokenizer = _rust.Tokenizer.from_file(directory)
    assert tokenizer.fingerprint == _rust.Tokenizer.from_file(directory / "tokenizer.json").fingerprint
    assert tokenizer.vocab_size == tiny.train().get_vocab_size()


def test_special_tokens_in_the_text_are_recognised_and_none_is_added(directory):
    tokenizer = _rust.Tokenizer.from_file(directory)
    ids = tokenizer.encode("<|im_start|>user\nHi<|im_end|>")
    assert (ids[0], ids[-1]) == (tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>"))
    assert tokenizer.decode(ids) == "<|im_start|>user\nHi<|im_end|>"
    assert tokenizer.encode("") == []
    assert tokenizer.special_id("user") is None


def test_saved_truncation_and_padding_do_not_cut_text(tmp_path):
    trained = tiny.train()
    trained.enable_truncation(3)
    trained.enable_padding(length=50)
    trained.save(str(tmp_path / "tokenizer.json"))
    text = "What is the weather in Paris today?"
    assert _rust.Tokenizer.from_file(tmp_path).encode(text) == tiny.train().encode(text).ids


def test_missing_file_is_an_os_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        _rust.Tokenizer.from_file(tmp_path / "none.json")
    assert caught.value.filename == str(tmp_path / "none.json")


def test_directory_without_tokenizer_json_says_how_to_write_one(tmp_path):
    with pytest.raises(DataError, match="save_pretrained") as caught:
        _rust.Tokenizer.from_file(tmp_path)
    assert caught.value.source == str(tmp_path)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"model": {"type": "WordPiece", "vocab": {}}}, "WordPiece"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "without a ByteLevel"),
        ({"decoder": None}, "without a ByteLevel"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, directory, change, found):
    document = json.loads((directory / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | change))
    with pytest.raises(DataError, match=f"byte-level BPE.*{found}"):
        _rust.Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_rubbish_is_a_data_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json|byte-level"):
        _rust.Tokenizer.from_file(tmp_path)


def test_lost_bytes_are_noticed(tmp_path, directory):
    document = json.loads((directory / "tokenizer.json").read_text())
    tokenizer = _rust.Tokenizer.from_file(directory)
    assert tokenizer.covers("Paris", tokenizer.encode("Paris"))
    assert not tokenizer.covers("Pariss", tokenizer.encode("Paris"))
    document["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    lowering = _rust.Tokenizer.from_file(tmp_path)
    assert not lowering.covers("Paris", lowering.encode("Paris"))


def test_long_texts_and_missing_bytes_take_the_slow_way_to_the_same_ids(tmp_path):
    tiny.write_tokenizer(tmp_path)
    reference = tiny.train()
    encode = _rust.Tokenizer.from_file(tmp_path).encode
    for text in ("What is the weather? " * 3000, "Tell me the temperature. " * 1300):
        assert len(text) > 32 * 1024 - 500
        assert encode(text) == reference.encode(text, add_special_tokens=False).ids
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    document["model"]["vocab"].pop("\u0100")  # no token for the byte 0x00 any more
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    lacking = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "weather\x00 in Paris"
    assert (
        _rust.Tokenizer.from_file(tmp_path).encode(text) == lacking.encode(text, add_special_tokens=False).ids
    )
