"""The file: bit for bit what was trained, the same bytes twice, whole or not at all; llama.cpp computes the same."""

import json
import resource

import numpy as np
import pytest
import torch
from export_students import (
    FAMILIES,
    any_codes_student,
    float_student,
    save,
    tiny_student_model,
    trained_student,
)

from kdfast._rust import Tokenizer
from kdfast.errors import ConfigError, DataError
from kdfast.export.gguf import check_supported, read_gguf, write_gguf
from kdfast.export.shipped import Shipped, shipped_weights
from kdfast.quantized import Quantized, check_saved, q8_0


def written(student, path, type_=None):
    shipped = shipped_weights(student.model, student.table, type_)
    write_gguf(path, shipped, student.directory, name="student")
    return shipped, read_gguf(path)


def slow_place(name, row, head_width):
    """The row of the file that holds a row of the model, for a family whose rows move."""
    if ".q_proj." not in name and ".k_proj." not in name:
        return row
    head, inside = divmod(row, head_width)
    half = head_width // 2
    return head * head_width + (2 * inside if inside < half else 2 * (inside - half) + 1)


NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "lm_head.weight": "output.weight",
    "model.layers.1.self_attn.q_proj.weight": "blk.1.attn_q.weight",
    "model.layers.1.self_attn.k_proj.weight": "blk.1.attn_k.weight",
    "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    "model.layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
    "model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight",
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("format_name", ["q4_0", "q8_0", "int8_channel"])
@pytest.mark.parametrize(("family", "head_width"), [("llama", 16), ("qwen3", 32)])
@pytest.mark.parametrize("make", [trained_student, any_codes_student])
def test_codes_and_scales_are_the_trained_ones(tmp_path, make, family, head_width, format_name, tied):
    student = make(tmp_path / "student", family, format_name, tied=tied)
    _, file = written(student, tmp_path / "x.gguf")
    assert ("output.weight" in file.tensors) is not tied
    for name, one in student.table.tensors.items():
        if name not in NAMES:
            continue
        codes, scales = file.tensors[NAMES[name]].blocks()
        rows = [slow_place(name, row, head_width) if family == "llama" else row for row in range(len(codes))]
        expected = one.scales.expand(-1, scales.shape[1]) if one.format == "int8_channel" else one.scales
        assert np.array_equal(codes[rows], one.codes.numpy())
        assert np.array_equal(
            scales[rows].view(np.uint16), expected.contiguous().view(torch.int16).numpy().view(np.uint16)
        )


def test_trained_tables_have_scales_of_both_signs(tmp_path):
    student = trained_student(tmp_path / "student")
    assert check_saved(student.directory).hashes() == student.table.hashes()
    scales = torch.cat(
        [one.scales.flatten() for one in student.table.tensors.values() if one.format == "q4_0"]
    )
    assert (scales < 0).any()
    assert (scales > 0).any()


def test_the_package_gguf_reads_the_same_file(tmp_path):
    import gguf

    student = any_codes_student(tmp_path / "student", "qwen3")
    shipped, file = written(student, tmp_path / "x.gguf")
    theirs = {one.name: one for one in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert theirs.keys() == file.tensors.keys()
    assert len(theirs) == len(shipped.tensors)
    found = gguf.quants.dequantize(
        theirs["blk.0.ffn_up.weight"].data, theirs["blk.0.ffn_up.weight"].tensor_type
    )
    assert np.array_equal(found, student.model.model.layers[0].mlp.up_proj.weight.detach().numpy())


def test_floats(tmp_path):
    student = float_student(tmp_path / "student", "qwen2", tied=True)
    _, file = written(student, tmp_path / "x.gguf", "f16")
    layer = student.model.model.layers[0].self_attn
    weight, bias = file.tensors["blk.0.attn_q.weight"], file.tensors["blk.0.attn_q.bias"]
    assert (weight.type, bias.type) == ("F16", "F32")
    assert np.array_equal(weight.floats(), layer.q_proj.weight.detach().half().numpy())
    assert np.array_equal(bias.floats(), layer.q_proj.bias.detach().numpy())


def test_the_rows_of_a_bias_move_too(tmp_path):
    model = tiny_student_model(attention_bias=True)
    save(model, tmp_path / "student")
    write_gguf(tmp_path / "x.gguf", shipped_weights(model, None, "f16"), tmp_path / "student", name="x")
    bias = model.model.layers[0].self_attn.k_proj.bias.detach().numpy()
    found = read_gguf(tmp_path / "x.gguf").tensors["blk.0.attn_k.bias"].floats()
    rows = [slow_place(".k_proj.", row, 16) for row in range(32)]
    assert np.array_equal(found[rows], bias)
    assert not np.array_equal(found, bias)


def test_a_few_floats_beside_codes_are_float16(tmp_path):
    student = trained_student(tmp_path / "student", tied=True)
    shipped = shipped_weights(student.model, student.table)
    embedding = "model.embed_tokens.weight"
    mixed = dict(shipped.tensors) | {embedding: shipped.tensors[embedding].dequantize().half()}
    write_gguf(
        tmp_path / "x.gguf",
        Shipped(tensors=mixed, type="q4_0", origin="trained"),
        student.directory,
        name="x",
    )
    file = read_gguf(tmp_path / "x.gguf")
    assert file.tensors["token_embd.weight"].type == "F16"
    assert file.tensors["blk.0.ffn_up.weight"].type == "Q4_0"


def test_the_same_student_gives_the_same_bytes(tmp_path):
    student = trained_student(tmp_path / "student")
    for name in ("a.gguf", "b.gguf"):
        written(student, tmp_path / name)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_folders_are_made_and_a_former_file_is_replaced(tmp_path):
    student = float_student(tmp_path / "student")
    path = tmp_path / "new" / "folder" / "x.gguf"
    written(student, path, "f16")
    size = path.stat().st_size
    written(student, path, "q8_0")
    assert path.stat().st_size < size
    assert [one.name for one in path.parent.iterdir()] == ["x.gguf"]


@pytest.mark.parametrize("room", [1000, 20_000, 60_000])
def test_a_full_disk_leaves_nothing(tmp_path, room):
    student = float_student(tmp_path / "student")
    shipped = shipped_weights(student.model, None, "f16")
    (tmp_path / "out").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match=str(tmp_path)) as caught:
            write_gguf(tmp_path / "out" / "x.gguf", shipped, student.directory, name="x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "out" / "x.gguf")
    assert caught.value.strerror
    assert not list((tmp_path / "out").iterdir())


def test_a_directory_in_its_place(tmp_path):
    student = float_student(tmp_path / "student")
    with pytest.raises(IsADirectoryError):
        write_gguf(tmp_path, shipped_weights(student.model, None), student.directory, name="x")


def test_blocks_that_do_not_fit_leave_nothing(tmp_path):
    model = tiny_student_model(intermediate_size=80)
    save(model, tmp_path / "student")
    shipped = shipped_weights(model, None, "f16")
    name = "model.layers.0.mlp.down_proj.weight"
    odd = Quantized("int8_channel", torch.zeros(64, 80, dtype=torch.int8), torch.ones(64, 1).half())
    shipped = Shipped(tensors=dict(shipped.tensors) | {name: odd}, type="q8_0", origin="trained")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match=rf"blocks of 32.*{name} \[64, 80\]$"):
        write_gguf(tmp_path / "out" / "x.gguf", shipped, tmp_path / "student", name="x")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        ({"num_hidden_layers": 3}, "other layers than its config.json.*: 2 of 3$"),
        ({"num_hidden_layers": 1}, "2 of 1$"),
        ({"num_attention_heads": 8}, r"q_proj\.weight has 64 rows, not 128$"),
    ],
)
def test_weights_of_another_config_leave_nothing(tmp_path, edit, what):
    student = float_student(tmp_path / "student")
    path = student.directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match=what):
        write_gguf(
            tmp_path / "out" / "x.gguf", shipped_weights(student.model, None), student.directory, name="x"
        )
    assert not list((tmp_path / "out").iterdir())


def test_a_student_without_an_embedding(tmp_path):
    student = float_student(tmp_path / "student")
    made = Shipped(tensors={"x.weight": q8_0(torch.zeros(2, 32))}, type="q8_0", origin="trained")
    with pytest.raises(ConfigError, match=r"no embedding.*embed_tokens\.weight$"):
        write_gguf(tmp_path / "x.gguf", made, student.directory, name="x")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_supported(tmp_path, family):
    student = float_student(tmp_path / "student", family)
    assert check_supported(student.directory) is None


@pytest.mark.parametrize(
    ("file", "edit", "error", "what"),
    [
        ("config.json", {"model_type": "gemma"}, ConfigError, "'gemma'"),
        ("config.json", {"rope_parameters": {"rope_type": "dynamic"}}, ConfigError, "'dynamic'"),
        ("config.json", {"vocab_size": None}, ConfigError, "vocab_size"),
        ("config.json", {"vocab_size": 200}, DataError, "other ids than the model has rows"),
        (
            "tokenizer.json",
            {"pre_tokenizer": {"type": "Whitespace"}},
            ConfigError,
            "Whitespace.*--pre NAME|--pre NAME",
        ),
        ("tokenizer.json", {"model": None}, ConfigError, "byte-level BPE"),
        ("generation_config.json", {"eos_token_id": [258, 0, 1, 2]}, ConfigError, "three tokens"),
    ],
)
def test_what_cannot_be_exported_is_said_before_any_work(tmp_path, file, edit, error, what):
    student = float_student(tmp_path / "student")
    path = student.directory / file
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(error, match=what):
        check_supported(student.directory)


def test_no_template_is_said_before_any_work(tmp_path):
    student = float_student(tmp_path / "student")
    (student.directory / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        check_supported(student.directory)


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 32}
RUNS = [
    *((family, tied, {}) for family in FAMILIES for tied in (False, True)),
    *((family, False, {"rope_parameters": rope}) for family in FAMILIES for rope in (LINEAR, YARN)),
    ("llama", False, {"rope_parameters": LLAMA3}),
    ("llama", False, {"attention_bias": True, "mlp_bias": True}),
    ("llama", False, {"head_dim": 32}),
    ("llama", True, {"num_key_value_heads": 4}),
    ("mistral", False, {"sliding_window": 64}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "tied", "options"), RUNS)
def test_llama_cpp_computes_what_torch_does(tmp_path, family, tied, options):
    pytest.importorskip("xllamacpp")
    from kdfast.llama_cpp import LlamaCppModel

    student = float_student(tmp_path / "student", family, tied=tied, **options)
    shipped, _ = written(student, tmp_path / "x.gguf", "f16")
    shipped.put_into(student.model)
    ids = torch.randint(0, 266, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = student.model(input_ids=ids).logits[0].numpy()
    with LlamaCppModel(tmp_path / "x.gguf") as loaded:
        found = loaded.decode(ids[0].tolist(), every=True)
        assert {258} <= loaded.end_ids
    # float16 activations and cache; a wrong row, a wrong position or a missing bias is off by more than 1
    assert np.abs(found - expected).max() < 0.05 * expected.std()


def test_a_tokenizer_without_merges_gives_the_same_ids_in_llama_cpp(tmp_path):
    pytest.importorskip("xllamacpp")
    from kdfast.llama_cpp import LlamaCppModel

    student = float_student(tmp_path / "student")
    path = student.directory / "tokenizer.json"
    document = json.loads(path.read_text())
    document["model"]["merges"] = []
    document["model"]["vocab"]["ĠĠĠĠ"] = 270
    path.write_text(json.dumps(document))
    check_supported(student.directory)
    written(student, tmp_path / "x.gguf")
    tokenizer = Tokenizer.from_file(path)
    with LlamaCppModel(tmp_path / "x.gguf", context=64, threads=1) as model:
        for text in ("", "the hen", *(" " * count for count in range(1, 12)), "a" + 9 * " " + "b", "ĠĠ ĠĠĠĠ"):
            assert model.tokenize(text) == tokenizer.encode(text), text
