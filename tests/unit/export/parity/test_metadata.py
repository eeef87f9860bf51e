"""Parity of keys: each way in which a file's keys can be other than the student's is named."""

import pytest
from export_students import float_student, rewrite_gguf, save, tiny_student_model
from tiny_models import TEMPLATE

from kdfast.errors import ConfigError
from kdfast.export.gguf import read_gguf, write_gguf
from kdfast.export.parity.metadata import metadata_problems
from kdfast.export.shipped import Shipped, shipped_weights


@pytest.fixture
def problems(tmp_path):
    """What is said of a right file whose keys were changed."""
    student = float_student(tmp_path / "student")
    shipped = shipped_weights(student.model, None)

    def check(keys, pre=None):
        write_gguf(tmp_path / "x.gguf", shipped, student.directory, name="student")
        rewrite_gguf(tmp_path / "x.gguf", keys=keys)
        return list(metadata_problems(read_gguf(tmp_path / "x.gguf"), shipped, student.directory, pre))

    return check


def test_a_right_file(problems):
    assert problems({}) == []
    assert problems({"general.name": ("STRING", "any other")}) == []


def test_a_template_changed_by_a_blank(problems):
    changed = TEMPLATE.replace("{{ m.role }}\n", "{{ m.role }} \n")
    (problem,) = problems({"tokenizer.chat_template": ("STRING", changed)})
    column = TEMPLATE.index("{{ m.role }}\n") + len("{{ m.role }}") + 1
    assert problem == (
        f"the chat template differs at line 1, column {column}: the file has ' \\n{{{{ m.content }}}}<|i', the "
        "student's has '\\n{{ m.content }}<|im'"
    )
    (problem,) = problems({"tokenizer.chat_template": ("STRING", TEMPLATE + " ")})
    assert problem.endswith("the file has ' ', the student's has nothing more")


@pytest.mark.parametrize("key", ["eos", "eot"])
def test_an_end_token_removed_or_changed(problems, key):
    name = f"tokenizer.ggml.{key}_token_id"
    assert problems({name: None}) == [f"the end token <|im_end|> (258) is missing: {name} is absent"]
    assert problems({name: ("UINT32", 3)}) == [f"the end token <|im_end|> (258) is missing: {name} is 3"]


@pytest.mark.parametrize(
    ("key", "kind", "value", "said"),
    [
        ("llama.rope.freq_base", "FLOAT32", 1e5, "llama.rope.freq_base is 100000.0, it must be 10000.0"),
        ("llama.rope.freq_base", "UINT32", 10000, "llama.rope.freq_base is 10000, it must be 10000.0"),
        ("llama.attention.head_count", "UINT32", 8, "llama.attention.head_count is 8, it must be 4"),
        ("llama.context_length", "UINT32", 512, "llama.context_length is 512, it must be 256"),
        (
            "tokenizer.ggml.pre",
            "STRING",
            "qwen2",
            "tokenizer.ggml.pre is 'qwen2', it must be 'gpt-2'; text is cut",
        ),
        ("tokenizer.ggml.add_bos_token", "BOOL", True, "add_bos_token is True, it must be False"),
        ("tokenizer.ggml.add_bos_token", "UINT32", 0, "add_bos_token is 0, it must be False"),
        ("llama.vocab_size", "BOOL", True, "llama.vocab_size is True, it must be 300"),
    ],
)
def test_another_value(problems, key, kind, value, said):
    (problem,) = problems({key: (kind, value)})
    assert said in problem


def test_a_key_too_few_and_one_too_many(problems):
    assert problems({"llama.block_count": None, "general.author": ("STRING", "x")}) == [
        "the key llama.block_count is missing, it must be 2",
        "the key general.author is too many: 'x'",
    ]


def test_another_token_type_or_merge(tmp_path):
    student = float_student(tmp_path / "student")
    shipped = shipped_weights(student.model, None)
    write_gguf(tmp_path / "x.gguf", shipped, student.directory, name="student")
    file = read_gguf(tmp_path / "x.gguf")
    for key, at, value in (("tokens", 259, "She"), ("token_type", 265, 3), ("merges", 2, "x y")):
        changed = dict(file.metadata)
        name = f"tokenizer.ggml.{key}"
        changed[name] = [*changed[name]]
        changed[name][at] = value
        (problem,) = metadata_problems(
            type(file)(file.path, changed, file.tensors), shipped, student.directory, None
        )
        assert problem.startswith(f"{name} differs at entry {at}: the file has {value!r}, the student's has ")
        changed[name] = changed[name][:-1] if key == "tokens" else [*file.metadata[name], value]
        changed[name][at] = file.metadata[name][at]
        (problem,) = metadata_problems(
            type(file)(file.path, changed, file.tensors), shipped, student.directory, None
        )
        assert f"{name} differs in its length: {len(changed[name])} entries in the file" in problem
        changed[name] = "text"
        (problem,) = metadata_problems(
            type(file)(file.path, changed, file.tensors), shipped, student.directory, None
        )
        assert f"{name} differs at entry 0" in problem


def test_the_users_pre_tokenizer(problems):
    assert problems({"tokenizer.ggml.pre": ("STRING", "qwen2")}, pre="qwen2") == []


def test_the_template_for_tools(tmp_path):
    model = tiny_student_model()
    save(model, tmp_path / "student", tool_use_template="tools")
    shipped = shipped_weights(model, None)
    write_gguf(tmp_path / "x.gguf", shipped, tmp_path / "student", name="x")
    rewrite_gguf(tmp_path / "x.gguf", keys={"tokenizer.chat_template.tool_use": ("STRING", "tool")})
    (problem,) = metadata_problems(read_gguf(tmp_path / "x.gguf"), shipped, tmp_path / "student", None)
    assert problem.startswith("the chat template 'tool_use' differs at line 1, column 5")


def test_a_student_without_an_embedding(tmp_path):
    student = float_student(tmp_path / "student")
    shipped = shipped_weights(student.model, None)
    write_gguf(tmp_path / "x.gguf", shipped, student.directory, name="x")
    none = Shipped(tensors={}, type="q8_0", origin="float")
    with pytest.raises(ConfigError, match="no embedding"):
        list(metadata_problems(read_gguf(tmp_path / "x.gguf"), none, student.directory, None))
