"""Parity of weights: right files pass, and each way to be wrong fails and is named."""

import shutil

import numpy as np
import pytest
import torch
from export_students import (
    FAMILIES,
    any_codes_student,
    float_student,
    rewrite_gguf,
    save,
    tiny_student_model,
    trained_student,
)

from kdfast.errors import DataError
from kdfast.export.gguf import read_gguf, write_gguf
from kdfast.export.gguf.blocks import pack
from kdfast.export.parity.weights import MOST_PROBLEMS, check_weights
from kdfast.export.shipped import Shipped, shipped_weights
from kdfast.quantized import Quantized

UP = "model.layers.1.mlp.up_proj.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"


class Exported:
    """A student, what ships of it, and its file."""

    def __init__(self, student, path, type_=None):
        self.student, self.path = student, path
        self.shipped = shipped_weights(student.model, student.table, type_)
        write_gguf(path, self.shipped, student.directory, name="student")

    def copy(self, path):
        made = object.__new__(Exported)
        made.student, made.shipped = self.student, self.shipped
        made.path = shutil.copyfile(self.path, path)
        return made

    def check(self, shipped=None):
        return check_weights(self.path, shipped or self.shipped, self.student.directory)

    def problems(self, **changes):
        rewrite_gguf(self.path, **changes)
        found = self.check()
        assert found.failed == bool(found.problems)
        return found.problems


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("weights")
    return Exported(any_codes_student(directory / "student"), directory / "x.gguf")


@pytest.fixture
def exported(made, tmp_path):
    return made.copy(tmp_path / "x.gguf")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("type_", ["f16", "q8_0", "q4_0"])
def test_a_float_students_file_passes(tmp_path, family, type_, tied):
    found = Exported(float_student(tmp_path / "s", family, tied=tied), tmp_path / "x.gguf", type_).check()
    assert (found.status, found.problems) == ("passed", ())


@pytest.mark.parametrize("make", [trained_student, any_codes_student])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("format_name", ["q4_0", "q8_0", "int8_channel"])
def test_a_trained_students_file_passes(tmp_path, make, family, format_name):
    found = Exported(make(tmp_path / "s", family, format_name), tmp_path / "x.gguf").check()
    assert (found.status, found.problems) == ("passed", ())


@pytest.mark.parametrize("options", [{"attention_bias": True, "mlp_bias": True}, {"head_dim": 32}])
def test_a_llama_with_biases_or_wider_heads_passes(tmp_path, options):
    assert Exported(float_student(tmp_path / "s", **options), tmp_path / "x.gguf").check().problems == ()


def test_figures(made):
    figures = made.check().figures
    size = sum(one.stored_bytes for one in read_gguf(made.path).tensors.values())
    assert (figures["tensors"], figures["quantized"], figures["bytes"]) == (21, 16, size)
    kinds = {kind: one["tensors"] for kind, one in figures["by_format"].items()}
    assert kinds == {"F32": 5, "Q4_0": 14, "Q8_0": 2}
    assert sum(one["bytes"] for one in figures["by_format"].values()) == size
    up = made.student.table.tensors[UP]
    assert up.codes.numel() // 32 * 18 == read_gguf(made.path).tensors["blk.1.ffn_up.weight"].stored_bytes


def test_one_scale(exported):
    data = read_gguf(exported.path).tensors["blk.1.ffn_up.weight"].data.copy()
    data[4, 18:20] = np.array([0.375], "<f2").view(np.uint8)
    own = float(exported.student.table.tensors[UP].scales[4, 1])
    assert exported.problems(tensors={"blk.1.ffn_up.weight": data}) == (
        f"blk.1.ffn_up.weight: 1 of 192 scales differs: row 4, block 1 (0.375 in the file, {own:.6g} trained)",
    )


def test_one_scale_of_a_permuted_tensor_is_named_by_the_models_row(exported):
    data = read_gguf(exported.path).tensors["blk.1.attn_q.weight"].data.copy()
    data[1, 0:2] = np.array([0.5], "<f2").view(np.uint8)  # the file's row 1 is the model's row 8
    (problem,) = exported.problems(tensors={"blk.1.attn_q.weight": data})
    assert "1 of 128 scales differs: row 8, block 0 (0.5 in the file" in problem


def test_the_sign_of_a_zero_scale_counts(exported):
    data = read_gguf(exported.path).tensors["blk.1.ffn_up.weight"].data.copy()
    assert not data[0, 0:2].any()
    data[0, 1] = 128
    (problem,) = exported.problems(tensors={"blk.1.ffn_up.weight": data})
    assert "row 0, block 0 (-0 in the file, 0 trained)" in problem


def test_one_code(exported):
    data = read_gguf(exported.path).tensors["blk.1.ffn_up.weight"].data.copy()
    data[3, 5] ^= 0xF0
    (problem,) = exported.problems(tensors={"blk.1.ffn_up.weight": data})
    assert problem.startswith("blk.1.ffn_up.weight: 1 of 6144 codes differs: row 3, column 19 (")


def test_a_tensor_of_another_step(exported, tmp_path):
    other = any_codes_student(tmp_path / "other", seed=1).table.tensors[UP]
    (problem,) = exported.problems(tensors={"blk.1.ffn_up.weight": pack("w", other)})
    assert problem.startswith("blk.1.ffn_up.weight: ")
    assert "scales and" in problem
    assert problem.endswith("it is another tensor, perhaps of another step")


def test_rows_that_were_not_permuted(exported):
    raw = pack("w", exported.student.table.tensors[QUERY])
    assert exported.problems(tensors={"blk.1.attn_q.weight": raw}) == (
        "blk.1.attn_q.weight holds the right rows in another order: its rows were not permuted for llama.cpp "
        f"({QUERY})",
    )


def test_rows_that_were_permuted_where_they_must_not_be(tmp_path):
    exported = Exported(any_codes_student(tmp_path / "s", "qwen3"), tmp_path / "x.gguf")
    data = read_gguf(exported.path).tensors["blk.0.attn_k.weight"].data
    (problem,) = exported.problems(tensors={"blk.0.attn_k.weight": np.ascontiguousarray(data[::-1])})
    assert problem == (
        "blk.0.attn_k.weight holds the right rows in another order (model.layers.0.self_attn.k_proj.weight)"
    )


def test_a_bias_that_was_not_permuted(tmp_path):
    exported = Exported(float_student(tmp_path / "s", attention_bias=True), tmp_path / "x.gguf", "f16")
    raw = exported.shipped.tensors["model.layers.0.self_attn.q_proj.bias"].numpy()
    (problem,) = exported.problems(tensors={"blk.0.attn_q.bias": raw})
    assert "blk.0.attn_q.bias holds the right rows in another order: its rows were not permuted" in problem


def test_one_float(exported):
    norm = read_gguf(exported.path).tensors["output_norm.weight"].floats().copy()
    own, norm[7] = norm[7], 2.5
    assert exported.problems(tensors={"output_norm.weight": norm}) == (
        f"output_norm.weight: 1 of 64 weights differs: [7] (2.5 in the file, {own:.6g} trained)",
    )


def test_a_tensor_too_few_and_one_too_many(exported):
    extra = np.zeros(4, dtype=np.float32)
    assert exported.problems(tensors={"blk.0.attn_norm.weight": None, "blk.9.attn_norm.weight": extra}) == (
        "blk.9.attn_norm.weight is too many: the student has no such tensor",
        "blk.0.attn_norm.weight is missing (model.layers.0.input_layernorm.weight)",
    )


def test_another_format_and_another_shape(exported):
    floats = np.zeros((96, 64), dtype=np.float16)
    assert exported.problems(tensors={"blk.1.ffn_up.weight": floats}) == (
        "blk.1.ffn_up.weight is F16 [96, 64], the student's is Q4_0 [96, 64]",
    )
    assert exported.problems(tensors={"blk.1.ffn_up.weight": floats[:32]}) == (
        "blk.1.ffn_up.weight is F16 [32, 64], the student's is Q4_0 [96, 64]",
    )


def test_a_requantised_file_fails(tmp_path):
    student = any_codes_student(tmp_path / "s")
    exported = Exported(student, tmp_path / "x.gguf")
    naive = shipped_weights(student.model, None, "q4_0")
    write_gguf(tmp_path / "x.gguf", naive, student.directory, name="student")
    found = exported.check()
    assert found.failed
    assert len(found.problems) > 10


def test_positions_of_llama_3(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    exported = Exported(float_student(tmp_path / "s", rope_parameters=rope), tmp_path / "x.gguf")
    assert exported.check().problems == ()
    ones = np.ones(8, dtype=np.float32)
    assert exported.problems(tensors={"rope_freqs.weight": ones}) == (
        "rope_freqs.weight holds other factors than config.json's",
    )
    assert exported.problems(tensors={"rope_freqs.weight": None}) == (
        "rope_freqs.weight is missing, so positions are not scaled",
    )


def test_many_differences_are_counted(exported, tmp_path):
    other = Exported(any_codes_student(tmp_path / "other", seed=5), tmp_path / "y.gguf")
    shipped = {
        name: torch.zeros_like(one) if isinstance(one, torch.Tensor) else one
        for name, one in other.shipped.tensors.items()
    }
    found = exported.check(Shipped(tensors=shipped, type="q4_0", origin="trained"))
    assert len(found.problems) == MOST_PROBLEMS + 1
    assert found.problems[-1] == "1 more differences"


def test_a_damaged_file_is_no_check(exported):
    exported.path.write_bytes(exported.path.read_bytes()[:-4000])
    with pytest.raises(DataError, match="export the student again"):
        exported.check()


def test_a_row_s_scale_in_every_block(tmp_path):
    exported = Exported(any_codes_student(tmp_path / "s", format_name="int8_channel"), tmp_path / "x.gguf")
    assert all(
        one.format == "int8_channel"
        for one in exported.shipped.tensors.values()
        if isinstance(one, Quantized)
    )
    data = read_gguf(exported.path).tensors["blk.1.ffn_up.weight"].data.copy()
    data[2, 34:36] = 60
    (problem,) = exported.problems(tensors={"blk.1.ffn_up.weight": data})
    assert "1 of 192 scales differs: row 2, block 1" in problem


def test_a_model_saved_elsewhere_is_another_one(tmp_path, exported):
    save(tiny_student_model("qwen2"), tmp_path / "other")
    found = check_weights(exported.path, exported.shipped, tmp_path / "other")
    assert found.failed
    assert any("general.architecture is 'llama', it must be 'qwen2'" in one for one in found.problems)
