"""The frozen model beside the student: what it gives, what is refused, and which layers are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_llama
from tiny_run import write_config
from transformers import GPT2Config, GPT2LMHeadModel

from kdfast.config import ArchConfig, Config, KDConfig, load_config
from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError, DataError, TeacherError
from kdfast.qat import apply_qat_to_model
from kdfast.recipes.train.live_teacher import FrozenTeacher, load_live_teacher, out_of_memory, with_layers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    write_config(folder)
    return folder


def config(folder: Path, *overrides: str) -> Config:
    return load_config(folder / "config.yaml", ["teacher.live=true", "teacher.store=null", *overrides])


def test_it_gives_its_hidden_states_and_head_without_a_graph() -> None:
    model = tiny_llama().train()
    teacher = FrozenTeacher(model, usable=200)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    ids = torch.arange(24).view(2, 12)
    given = teacher.output(ids, (0, 2, -1))
    whole = model(input_ids=ids, output_hidden_states=True)
    assert given.head.shape == (200, 32)
    torch.testing.assert_close(given.hidden @ given.head.T, whole.logits[..., :200])
    assert given.layers.keys() == {0, 2, -1}
    torch.testing.assert_close(given.layers[2], whole.hidden_states[2])
    assert not given.hidden.requires_grad
    assert (teacher.width, teacher.depth) == (32, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_its_logits_are_in_its_own_dtype(dtype: torch.dtype) -> None:
    teacher = FrozenTeacher(tiny_llama().to(dtype))
    ids = torch.arange(12).view(1, 12)
    with torch.autocast("cpu", torch.bfloat16):
        given = teacher.output(ids)
    assert given.hidden.dtype == given.head.dtype == dtype
    plain = teacher.output(ids)
    torch.testing.assert_close(given.hidden.float(), plain.hidden.float(), rtol=0.1, atol=0.1)


def test_a_quantised_model_teaches_with_its_rounded_head() -> None:
    model = apply_qat_to_model(tiny_llama(), QuantConfig(format="q8_0"))
    given = FrozenTeacher(model).output(torch.arange(12).view(1, 12))
    assert torch.equal(given.head, model.lm_head.effective_weight().detach())
    assert not torch.equal(given.head, model.lm_head.weight.detach())


def test_other_families_and_heads_with_a_bias_are_refused() -> None:
    small = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20))
    with pytest.raises(TeacherError, match=r"^a model beside the student must be .*llama, .*: gpt2$"):
        FrozenTeacher(small)
    model = tiny_llama()
    model.lm_head.bias = torch.nn.Parameter(torch.ones(300))
    with pytest.raises(TeacherError, match=r"without a bias in its output layer"):
        FrozenTeacher(model)
    with pytest.raises(TeacherError, match=r": Linear$"):
        FrozenTeacher(torch.nn.Linear(2, 2))


def test_a_config_s_teacher_is_loaded_and_cut_to_the_shared_ids(prepared: Path) -> None:
    assert load_live_teacher(load_config(prepared / "config.yaml"), CPU) is None
    teacher = load_live_teacher(config(prepared), CPU)
    assert teacher is not None
    ids = len(json.loads((prepared / "teacher/tokenizer.json").read_text())["model"]["vocab"])
    document = json.loads((prepared / "teacher/tokenizer.json").read_text())
    ids = max(*document["model"]["vocab"].values(), *(one["id"] for one in document["added_tokens"])) + 1
    assert teacher.usable == ids < teacher.model.config.vocab_size
    assert load_live_teacher(config(prepared, "teacher.dtype=bf16"), CPU).model.dtype == torch.bfloat16  # type: ignore[union-attr]


def test_what_cannot_be_used_is_refused_in_words_of_the_config(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^teacher.device: must be 'auto' or the student's device \(cpu\) with"
    ):
        load_live_teacher(config(prepared, "teacher.device=cuda"), CPU)
    with pytest.raises(TeacherError, match=r"^teacher.model: "):
        load_live_teacher(config(prepared, f"teacher.model={tmp_path / 'nowhere'}"), CPU)
    other = tmp_path / "other"
    shutil.copytree(prepared / "teacher", other)
    document = json.loads((other / "tokenizer.json").read_text())
    pieces: dict[str, Any] = document["model"]["vocab"]
    pieces["!"], pieces["#"] = pieces["#"], pieces["!"]
    (other / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"student and teacher use different vocabularies"):
        load_live_teacher(config(prepared, f"teacher.model={other}"), CPU)


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value)
    wrapped = TeacherError("cannot load the model")
    wrapped.__cause__ = caught.value
    assert out_of_memory(wrapped)
    assert out_of_memory(MemoryError())
    assert not out_of_memory(TeacherError("cannot load the model"))


KD = KDConfig(hidden_state_weight=0.5)


@pytest.mark.parametrize(
    ("layers", "depth", "ours", "theirs"),
    [
        (4, 30, (1, 2, 3, -1), (10, 19, 29, -1)),
        ((0, 5), 30, (1, -1), (5, -1)),
        ((2, 3, 7), 9, (1, 2, -1), (3, 7, -1)),
        (1, 30, (-1,), (-1,)),
        (None, 3, (1, 2, -1), (1, 2, -1)),
    ],
)
def test_a_student_made_of_the_teacher_s_layers_compares_each(
    layers: Any, depth: int, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    found = with_layers(KD, ArchConfig(init="teacher", layers=layers), student=len(ours), teacher=depth)
    assert (found.hidden_state_student_layers, found.hidden_state_teacher_layers) == (ours, theirs)


@given(st.sets(st.integers(0, 19), min_size=1))
def test_each_layer_is_compared_with_what_the_next_kept_one_reads(kept: set[int]) -> None:
    layers = sorted(kept)
    found = with_layers(KD, ArchConfig(init="teacher", layers=layers), student=len(layers), teacher=20)
    pairs = zip(found.hidden_state_student_layers or (), found.hidden_state_teacher_layers or (), strict=True)
    for number, (ours, theirs) in enumerate(pairs, 1):
        last = number == len(layers)
        # hidden state i is what layer i (from 0) reads
        assert (ours, theirs) == ((-1, -1) if last else (number, layers[number]))


def test_any_other_student_compares_the_last_hidden_states() -> None:
    for arch in (
        ArchConfig(init="models/other", layers=2),
        ArchConfig(d_model=8, n_layers=2, n_heads=2, d_ff=8),
    ):
        found = with_layers(KD, arch, student=2, teacher=30)
        assert (found.hidden_state_student_layers, found.hidden_state_teacher_layers) == ((-1,), (-1,))


def test_a_list_in_the_config_decides_and_may_name_only_layers_that_there_are() -> None:
    arch = ArchConfig(init="teacher", layers=2)
    given = KDConfig(hidden_state_student_layers=[0, 2], hidden_state_teacher_layers=[1, 30])
    assert with_layers(given, arch, student=2, teacher=30) is given
    with pytest.raises(
        ConfigError, match=r"^kd.hidden_state_teacher_layers: must be at most 29, .*, got \[1, 30\]$"
    ):
        with_layers(given, arch, student=2, teacher=29)
    with pytest.raises(
        ConfigError, match=r"^kd.hidden_state_student_layers: must be at most 1, .*, got \[0, 2\]$"
    ):
        with_layers(given, arch, student=1, teacher=30)
