"""End tokens: where they are read, which key each gets, and what a file cannot say."""

import json

import pytest
from export_students import tiny_student_model

from kdfast.errors import ConfigError
from kdfast.export.gguf.end_tokens import KNOWN_ENDS, end_ids, end_keys
from kdfast.export.gguf.vocabulary import Vocabulary


def words(*tokens, **named):
    return Vocabulary(tokens=tokens, types=(3,) * len(tokens), merges=(), pre="gpt-2", named=named)


@pytest.fixture
def student(tmp_path):
    tiny_student_model().config.save_pretrained(tmp_path)
    return tmp_path


def write(directory, name, ids):
    path = directory / name
    document = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(document | {"eos_token_id": ids}))


def test_the_generation_config_comes_first(student):
    assert end_ids(student) == (258,)
    write(student, "generation_config.json", [7, 5, 7])
    assert end_ids(student) == (7, 5)
    write(student, "generation_config.json", None)
    assert end_ids(student) == (258,)


@pytest.mark.parametrize("ids", [None, [], "2", [1, "2"], -1, [True], 2.0])
def test_no_end_is_refused(student, ids):
    write(student, "config.json", ids)
    with pytest.raises(ConfigError, match=r"it would never stop.*generation_config\.json"):
        end_ids(student)


def test_one_end():
    assert end_keys([1], words("a", "<stop>")) == {"eos": 1, "eot": 1}


def test_the_tokenizers_own_end_comes_first():
    vocabulary = words("<x>", "<y>", "<z>", eos_token=2)
    assert end_keys([0, 2], vocabulary) == {"eos": 2, "eot": 0}
    assert end_keys([0, 1], vocabulary) == {"eos": 0, "eot": 1}  # its own does not end an answer here


def test_llama_3_ends_a_turn_with_calls_by_a_token_of_its_own():
    vocabulary = words("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>", eos_token=2)
    assert end_keys([0, 1, 2], vocabulary) == {"eos": 2, "eot": 2, "eom": 1}
    assert end_keys([2], vocabulary) == {"eos": 2, "eot": 2, "eom": 1}


def test_three_ends_that_llama_cpp_does_not_know():
    assert end_keys([0, 1, 2], words("<x>", "<y>", "<z>")) == {"eos": 0, "eot": 1, "eom": 2}


def test_a_fourth_is_refused_by_its_name():
    with pytest.raises(ConfigError, match=r"three tokens.*<c> \(3\), <d> \(4\)$"):
        end_keys([0, 1, 2, 3, 4], words("<x>", "<a>", "<b>", "<c>", "<d>"))


def test_those_that_llama_cpp_knows_need_no_key():
    known = sorted(KNOWN_ENDS - {"<|eom_id|>"})
    assert end_keys(range(len(known)), words(*known)) == {"eos": 0, "eot": 0}


def test_an_end_without_a_token_is_refused():
    with pytest.raises(ConfigError, match=r"none of the tokenizer's.*: 9$"):
        end_keys([9], words("a"))
