"""Tokens, their types, merges and the named ones; what llama.cpp cannot do is refused."""

import json

import pytest
from export_students import write_bpe_tokenizer

from kdfast.errors import ConfigError, DataError
from kdfast.export.gguf.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED, read_vocabulary


@pytest.fixture
def student(tmp_path):
    return write_bpe_tokenizer(tmp_path)


def change(directory, edit):
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_tokens_types_and_merges(student):
    made = read_vocabulary(student, 300)
    assert len(made.tokens) == len(made.types) == 300
    assert made.tokens[256:259] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert made.types[256:259] == (CONTROL,) * 3
    assert (made.tokens[259], made.types[259]) == ("he", NORMAL)
    assert (made.tokens[265], made.types[265]) == ("<tool_call>", USER_DEFINED)
    assert made.tokens[266:268] == ("[PAD266]", "[PAD267]")
    assert set(made.types[266:]) == {UNUSED}
    assert set(made.types[:256]) == {NORMAL}
    assert made.merges[:3] == ("h e", "i n", "Ġ t")
    assert made.pre == "gpt-2"
    assert made.id_of("<tool_call>") == 265
    assert made.id_of("nothing") is None


def test_merges_of_older_files_are_texts(student):
    new = read_vocabulary(student, 300)
    change(student, lambda document: document["model"].update(merges=list(new.merges)))
    assert read_vocabulary(student, 300) == new


def test_a_hole_among_the_ids_is_unused(student):
    change(student, lambda document: document["model"]["vocab"].pop("Ġthe"))
    made = read_vocabulary(student, 300)
    assert (made.tokens[262], made.types[262]) == ("[PAD262]", UNUSED)


@pytest.mark.parametrize("as_object", [False, True])
def test_named_tokens_are_those_that_a_template_writes(student, as_object):
    def token(text):
        return {"content": text, "special": True} if as_object else text

    settings = {"bos_token": token("<|im_start|>"), "eos_token": token("<|im_end|>"), "pad_token": None}
    (student / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_vocabulary(student, 300).named == {"bos_token": 257, "eos_token": 258}


def test_named_tokens_of_an_older_directory(student):
    (student / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))
    assert read_vocabulary(student, 300).named == {"pad_token": 256}
    (student / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {}}))
    assert read_vocabulary(student, 300).named == {}


def test_the_users_name_of_the_pre_tokenizer_replaces_the_table(student):
    change(
        student,
        lambda document: document.update(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}),
    )
    with pytest.raises(ConfigError, match="--pre NAME"):
        read_vocabulary(student, 300)
    assert read_vocabulary(student, 300, "qwen2").pre == "qwen2"


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda d: d["model"].update(type="Unigram", vocab=[["a", 0.0]]), "byte-level BPE.*'Unigram'$"),
        (lambda d: d["model"].update(type="WordPiece"), "byte-level BPE.*'WordPiece'"),
        (lambda d: d.update(pre_tokenizer=None, decoder=None), "no pre-tokenizer$"),
        (lambda d: d["model"].update(byte_fallback=True), "byte-level BPE"),
        (lambda d: d["model"].update(dropout=0.1), "dropout 0.1$"),
        (lambda d: d["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix '</w>'$"),
        (lambda d: d["added_tokens"][0].update(lstrip=True), r"lstrip of '<\|endoftext\|>'$"),
    ],
)
def test_what_llama_cpp_cannot_do_is_refused(student, edit, what):
    change(student, edit)
    with pytest.raises(ConfigError, match=what):
        read_vocabulary(student, 300)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda d: d["model"].update(merges=[["a", "b", "c"]]), r"two pieces.*\['a', 'b', 'c'\]$"),
        (lambda d: d["model"].update(merges=["a"]), "two pieces.*'a'$"),
        (lambda d: d["model"].update(merges=[["a b", "c"]]), "two pieces"),
        (
            lambda d: d["added_tokens"].append({"id": 270, "content": "he", "special": True}),
            "259 and 270 are both 'he'$",
        ),
        (lambda d: d["model"]["vocab"].update({"": 271}), "id 271 is ''$"),
        (lambda d: d["added_tokens"].append({"id": 271}), "no tokenizer.json"),
        (lambda d: d["model"]["vocab"].update({"zz": 300}), "other ids than the model has rows.*301, 300$"),
    ],
)
def test_a_damaged_tokenizer_is_named(student, edit, what):
    change(student, edit)
    with pytest.raises(DataError, match=what) as caught:
        read_vocabulary(student, 300)
    assert caught.value.source == str(student / "tokenizer.json")


def test_no_tokenizer(tmp_path):
    with pytest.raises(DataError, match=r"has no tokenizer\.json"):
        read_vocabulary(tmp_path, 300)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(DataError):
        read_vocabulary(tmp_path, 300)


def test_two_tokens_of_one_id_are_refused(student):
    change(student, lambda document: document["added_tokens"][0].update(id=5))
    with pytest.raises(DataError, match="two tokens have one id"):
        read_vocabulary(student, 300)
