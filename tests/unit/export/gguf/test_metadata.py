"""The keys of a file: what is in them, and what must not be."""

from collections import defaultdict

import pytest
from export_students import float_student, save, tiny_student_model

from kdfast.export.gguf.families import read_shape
from kdfast.export.gguf.metadata import FILE_TYPES, metadata, safe_name
from kdfast.export.gguf.vocabulary import read_vocabulary


def keys_of(directory, type_="q8_0", name="lights"):
    entries = metadata(
        read_shape(directory), read_vocabulary(directory, 300), directory, type_=type_, name=name
    )
    return {key: entry.value for key, entry in entries.items()}


def test_the_keys_of_a_llama(tmp_path):
    keys = keys_of(float_student(tmp_path / "student").directory)
    tokens = {key: keys.pop(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges")}
    assert len(tokens["tokens"]) == len(tokens["token_type"]) == 300
    assert len(tokens["merges"]) == 6
    assert keys.pop("tokenizer.chat_template").startswith("{% if tools %}")
    assert keys == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "lights",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.vocab_size": 300,
        "llama.context_length": 256,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.dimension_count": 16,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.eot_token_id": 258,
        "tokenizer.ggml.padding_token_id": 258,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
    }


def test_keys_are_spelled_as_the_package_gguf_spells_them(tmp_path):
    import gguf

    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    directory = tmp_path / "student"
    save(tiny_student_model("qwen3", rope_parameters=yarn), directory, tool_use_template="{{ tools }}")
    names = defaultdict(str, arch="qwen3", name="tool_use")
    known = {
        value.format_map(names)
        for group in vars(gguf.Keys).values()
        if isinstance(group, type)
        for value in vars(group).values()
        if isinstance(value, str)
    }
    assert not keys_of(directory).keys() - known


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scaled_positions(tmp_path, kind):
    rope = {"rope_type": kind, "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 64}
    save(tiny_student_model("qwen2", rope_parameters=rope), tmp_path / "student")
    keys = keys_of(tmp_path / "student")
    assert keys["qwen2.rope.scaling.type"] == kind
    assert keys["qwen2.rope.scaling.factor"] == 4.0
    assert keys.get("qwen2.rope.scaling.original_context_length") == (64 if kind == "yarn" else None)


def test_the_template_for_tools_has_a_key_of_its_own(tmp_path):
    save(tiny_student_model(), tmp_path / "student", tool_use_template="{{ tools }}")
    keys = keys_of(tmp_path / "student")
    assert keys["tokenizer.chat_template.tool_use"] == "{{ tools }}"
    assert keys["tokenizer.chat_templates"] == ("tool_use",)


def test_file_types_are_ggufs():
    import gguf

    for type_, number in FILE_TYPES.items():
        assert gguf.LlamaFileType(number).name.endswith(type_.upper())


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("lights", "lights"),
        ("from Phi-3-mini", "from Phi 3-mini"),
        ("PHI3", "PHI 3"),
        ("Modern-BERT", "Modern BERT"),
        ("phi-4", "phi-4"),
    ],
)
def test_no_name_changes_how_llama_cpp_reads_special_tokens(name, safe):
    assert safe_name(name) == safe
