"""The student: each way in which it can be wrong is seen by its check, and by no other."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
import torch
from preflight_objects import assert_only_fails, clean, look
from torch import nn

from kdfast.errors import ConfigError
from kdfast.recipes.preflight.checks_model import CHECKS, embeddings_are_tied, is_trained, memory_suffices
from kdfast.recipes.preflight.facts import PreflightRequest
from kdfast.recipes.preflight.made.objects import Objects

NAMES = [check.name for check in CHECKS]


def without_mask(student):
    for layer in student.model.layers:
        layer.self_attn.is_causal = False


def later_tokens_leak(student):
    def add_the_mean(_layer, inputs):
        (hidden, *others) = inputs
        return (hidden + 0.05 * hidden.mean(dim=1, keepdim=True), *others)

    student.model.layers[0].register_forward_pre_hook(add_the_mean)


def input_is_not_read(student):
    with torch.no_grad():
        student.model.norm.weight.zero_()


def attention_mask_is_ignored(student):
    def read_padding(_model, inputs, named):
        positions = torch.arange(named["input_ids"].shape[1])[None]
        return inputs, named | {"attention_mask": None, "position_ids": positions}

    student.model.register_forward_pre_hook(read_padding, with_kwargs=True)


def untied_copy(student):
    student.lm_head.weight = nn.Parameter(student.lm_head.weight.detach().clone())


def bf16_weights(student):
    student.to(torch.bfloat16)


def one_bf16_layer(student):
    student.model.layers[1].to(torch.bfloat16)


def nan_weight(student):
    with torch.no_grad():
        student.model.layers[1].mlp.up_proj.weight[3, 5] = torch.nan


def infinite_weight(student):
    with torch.no_grad():
        student.model.layers[0].mlp.up_proj.weight[0, 0] = torch.inf


def too_few_positions(student):
    student.config.max_position_embeddings = 64


def a_shape_too_long(student):
    student.config.max_position_embeddings = 400


def small_vocabulary(student):
    student.resize_token_embeddings(300)


def frozen(student):
    student.requires_grad_(False)


def frozen_layer(student):
    student.model.layers[0].requires_grad_(False)


FAULTS = [
    (without_mask, "is_causal", "another token at position 12 changes logits before it by"),
    (later_tokens_leak, "is_causal", "sees what it is to predict"),
    (attention_mask_is_ignored, "padding_changes_nothing", "padding on the left, as in generation, change"),
    (untied_copy, "embeddings_are_tied", "have weights of their own, and .* tie_word_embeddings true"),
    (
        bf16_weights,
        "weights_are_fp32",
        r"20 weights are not fp32, the first is model\.embed_tokens.*bfloat16",
    ),
    (one_bf16_layer, "weights_are_fp32", r"9 weights are not fp32, the first is model\.layers\.1"),
    (nan_weight, "weights_are_finite", r"1 weights hold NaN or infinity, the first is model\.layers\.1\.mlp"),
    (too_few_positions, "positions_suffice", "knows 64 positions, the longest of data.shapes is 512"),
    (small_vocabulary, "vocabulary_covers_ids", "embeddings have 300 rows, the output layer 300"),
    (frozen, "is_trained", "all 34,688 parameters are frozen"),
]
MORE_FAULTS = [
    (input_is_not_read, "is_causal", "fail", "changes no logits there: its input is not read"),
    (nan_weight, "is_causal", "skip", "see model.weights_are_finite"),
    (nan_weight, "padding_changes_nothing", "skip", "see model.weights_are_finite"),
    (infinite_weight, "weights_are_finite", "fail", "hold NaN or infinity"),
    (small_vocabulary, "is_causal", "skip", "see model.vocabulary_covers_ids"),
    (one_bf16_layer, "padding_changes_nothing", "skip", "see model.weights_are_fp32"),
    (without_mask, "padding_changes_nothing", "skip", "see model.is_causal"),
    (a_shape_too_long, "positions_suffice", "warn", "knows 400 positions"),
    (frozen_layer, "is_trained", "fail", r"9 weights are frozen; .*model\.layers\.0"),
]


def with_fault(break_student):
    student = copy.deepcopy(clean().get("student"))
    break_student(student)
    return clean().replaced(student=student)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_student_as_training_builds_it_passes(name):
    found = look(name, clean())
    assert (found.status, found.remedy) == ("pass", ""), found.text


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name", "text"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
def test_a_fault_is_seen_by_its_check_alone(fault, name, text):
    found = assert_only_fails(f"model.{name}", with_fault(fault))
    assert re.search(text, found.text), found.text
    assert found.remedy


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name", "status", "text"), MORE_FAULTS)
def test_what_else_a_check_says_of_a_fault(fault, name, status, text):
    found = look(f"model.{name}", with_fault(fault))
    assert (found.status, re.search(text, found.text) is not None) == (status, True), found.text


@pytest.mark.slow
def test_a_student_that_cannot_be_built_is_one_failure():
    def damaged():
        raise ConfigError("arch.init: the directory is damaged")

    there = {name: clean().get(name) for name in clean()._makers if name in clean()._there}
    given = {name: clean().get(name) for name in ("config", "request", "work")}
    kept = {name: value for name, value in (there | given).items() if name != "student"}
    found = assert_only_fails("model.is_built", Objects({**clean()._makers, "student": damaged}, kept))
    assert "arch.init: the directory is damaged" in found.text


@pytest.mark.slow
def test_the_student_stays_in_training_mode():
    student = copy.deepcopy(clean().get("student")).train()
    look("model.is_causal", clean().replaced(student=student))
    look("model.padding_changes_nothing", clean().replaced(student=student))
    assert student.training


@pytest.mark.slow
def test_a_stand_in_is_named():
    found = look("model.is_built", clean().replaced(student_note="2 layers, 0.1 M parameters, for 3.0 M"))
    assert found.status == "pass"
    assert found.text.startswith("a stand-in of the same family, 2 layers, 0.1 M parameters, for 3.0 M")
    assert "the student has 34,688, 34,688 trained" in found.text


def arch(**changes):
    config = clean().get("config")
    return replace(config, arch=replace(config.arch, **changes))


@pytest.mark.slow
def test_tying_must_be_as_the_config_asks():
    student = clean().get("student")
    assert embeddings_are_tied(student, arch(tie_word_embeddings=True)).status == "pass"
    found = embeddings_are_tied(student, arch(tie_word_embeddings=False))
    assert (found.status, "arch.tie_word_embeddings is false" in found.text) == ("fail", True)


@pytest.mark.slow
def test_frozen_embeddings_are_frozen_and_nothing_else():
    student, config = copy.deepcopy(clean().get("student")), arch(freeze_embeddings=True)
    found = is_trained(student, config)
    assert (found.status, found.text.endswith("model.embed_tokens.weight")) == ("fail", True)
    student.get_input_embeddings().requires_grad_(False)
    assert (
        is_trained(student, config).text == "18,592 of 34,688 parameters are trained: all but the embeddings"
    )
    frozen_layer(student)
    assert is_trained(student, config).status == "fail"


def machine(**changes):
    return clean().replaced(machine=replace(clean().get("machine"), **changes))


@pytest.mark.slow
def test_too_little_memory_is_seen_by_its_check_alone():
    found = assert_only_fails("model.memory_suffices", machine(memory_total=5_000_000))
    assert re.search(r"needs about 10\.\d MB \(weights 0\.1 MB, .*\); the memory is 5\.0 MB", found.text), (
        found.text
    )


NEED = 10_000_000 + 50_000


def memory(*, note="", train=None, trains_next=False, full=False, **changes):
    objects, config = machine(**changes), clean().get("config")
    figures = {"weights_bytes": 4_000_000, "gradients_bytes": 2_000_000, "activations_bytes": 4_050_000}
    config = replace(config, train=replace(config.train, **(train or {})))
    request = PreflightRequest(trains_next=trains_next, full=full)
    return memory_suffices(figures, note, config, objects.get("machine"), request)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        ({"memory_total": 40 * NEED}, "pass", "training needs about 10.1 MB"),
        ({"memory_total": 2 * NEED, "memory_available": NEED // 2}, "warn", "are free now"),
        ({"memory_total": NEED + 9}, "warn", "the memory is 10.1 MB"),
        ({"memory_total": NEED - 9}, "fail", "the memory is 10.0 MB"),
        ({"memory_total": NEED - 9, "note": "2 layers"}, "warn", "it cannot be trained here"),
        (
            {"memory_total": NEED - 9, "note": "2 layers", "trains_next": True},
            "fail",
            "the memory is 10.0 MB",
        ),
        ({"memory_total": 0}, "skip", "the memory is not known"),
        (
            {"memory_total": 40 * NEED, "memory_available": 5_999_999, "full": True},
            "fail",
            "--full trains the student itself on this machine: its weights, gradients and averages need 6.0 MB",
        ),
        ({"memory_total": 40 * NEED, "memory_available": 6_000_001, "full": True}, "warn", "are free now"),
        (
            {"memory_total": 9, "memory_available": 9, "full": True, "note": "", "train": {"device": "cuda"}},
            "fail",
            "and 0.0 MB of memory are free",
        ),
        (
            {"memory_total": 40 * NEED, "memory_available": 0, "full": True},
            "warn",
            "0.0 MB of it are free now",
        ),
        ({"memory_total": 40 * NEED, "train": {"dtype": "bf16"}}, "pass", "forward pass 2.0 MB"),
        ({"train": {"device": "cuda"}, "gpu_memory": ()}, "skip", "the memory of the GPU is not known"),
        ({"train": {"device": "cuda"}, "gpu_memory": (9 * NEED, NEED // 2)}, "fail", "of the GPU is 5.0 MB"),
        (
            {"train": {"device": "auto"}, "gpu_memory": (9 * NEED,)},
            "pass",
            "the memory of the GPU is 90.5 MB",
        ),
    ],
)
def test_memory_of_the_device_that_trains(given, status, text):
    room = {"memory_available": 10**12} if "memory_available" not in given else {}
    found = memory(**given, **room)
    assert (found.status, text in found.text) == (status, True), found.text
