"""Batches: each way in which one can be wrong is seen by its check, and by no other."""

from __future__ import annotations

import re

import pytest
import torch
from preflight_objects import assert_only_fails, clean, look

from kdfast.recipes.preflight.check import Finding
from kdfast.recipes.preflight.checks_batch import CHECKS

NAMES = [check.name for check in CHECKS]


def place(batch, *, call):
    """The first row of a batch that has a call, or has none."""
    return batch["tool_call_mask"].any(dim=1).tolist().index(call)


def end_of(batch, row):
    return int(batch["attention_mask"][row].sum())


def learn(batch, row, position):
    """The token after `position` becomes a target."""
    batch["labels"][row, position] = batch["input_ids"][row, position + 1]
    batch["response_mask"][row, position] = True


def forget(batch, row, position):
    """The token after `position` is no target any more."""
    batch["labels"][row, position] = -100
    batch["response_mask"][row, position] = False


def wrong_shape(batch):
    rows = clean().get("sample_rows")
    batch.update(rows.collate(batch["row"].tolist(), shapes=[batch["input_ids"].shape[1] + 8]))


def padding_in_the_loss(batch):
    batch["labels"][0, end_of(batch, 0)] = 0


def padding_in_a_mask(batch):
    batch["tool_args_mask"][0, end_of(batch, 0)] = True


def padding_is_read(batch):
    batch["attention_mask"][0, end_of(batch, 0)] = 1


def not_shifted(batch):
    batch["labels"] = torch.where(batch["response_mask"], batch["input_ids"], -100)


def shifted_twice(batch):
    batch["labels"] = torch.where(batch["response_mask"], batch["input_ids"].roll(-2, dims=1), -100)


def mask_without_a_label(batch):
    position = int(batch["response_start"][0]) + 2
    batch["labels"][0, position] = -100


def prompt_learned(batch):
    for position in range(3, 9):
        learn(batch, 0, position)


def a_token_not_learned(batch):
    forget(batch, 0, int(batch["response_start"][0]) + 2)


def turn_end_masked(batch):
    for row in range(len(batch["row"])):
        forget(batch, row, end_of(batch, row) - 2)


def answer_cut(batch):
    """The last three tokens of an answer are padding, and every field agrees."""
    row = place(batch, call=False)
    end = end_of(batch, row) - 3
    batch["input_ids"][row, end:] = 0
    batch["attention_mask"][row, end:] = 0
    batch["teacher_attention_mask"][row, end:] = 0
    for position in range(end - 1, end + 2):
        forget(batch, row, position)
        batch["teacher_topk_mask"][row, position] = False
        batch["teacher_topk_logp"][row, position] = -torch.inf
        batch["teacher_topk_ids"][row, position] = 0
    for name in ("response_length", "teacher_length"):
        batch[name][row] -= 3


def start_moved(batch):
    batch["response_start"][0] += 1
    batch["response_length"][0] -= 1


def teacher_too_long(batch):
    batch["teacher_length"][0] += 5


def moved(name):
    def move(batch):
        batch[name] = batch[name].roll(1, dims=1)

    move.__name__ = f"{name}_moved_by_one"
    return move


def mass_missing(batch):
    batch["teacher_topk_logp"] -= 0.5


def nan_of_the_teacher(batch):
    position = batch["teacher_topk_mask"][0].tolist().index(True)
    batch["teacher_topk_logp"][0, position, 0] = torch.nan


def id_twice(batch):
    batch["teacher_topk_ids"][..., 1] = batch["teacher_topk_ids"][..., 0]


def id_too_high(batch):
    batch["teacher_topk_ids"][..., 1] += 100_000


def above_padding(batch):
    batch["teacher_topk_logp"][:, -1] = -1.0


FAULTS = [
    (wrong_shape, "shapes", r"padded to \d+ tokens, its longest row has"),
    (padding_in_the_loss, "padding", r"1 position\(s\) of padding are inside the loss"),
    (padding_is_read, "padding", r"attention_mask is 1 on \d+: padding is read"),
    (not_shifted, "labels_are_next_tokens", r"(\d+) of \d+ labels .*; \1 of these are the token at its own"),
    (shifted_twice, "labels_are_next_tokens", "it is shifted twice"),
    (
        prompt_learned,
        "prompt_is_not_learned",
        r"6 token\(s\) in 1 of \d+ rows; the first is token 4 of row \d+",
    ),
    (a_token_not_learned, "answer_is_learned", r"1 token\(s\) in 1 of \d+ rows"),
    (turn_end_masked, "turn_end_is_learned", r"the student will not stop: .*'<\|im_end\|>'"),
    (answer_cut, "answer_is_whole", r"its answer has (\d+) tokens, the batch has \d+ of them"),
    (start_moved, "lengths_agree", r"response_start is \d+ and response_length \d+; the answer is from \d+"),
    (moved("tool_call_mask"), "tool_masks_decode", r"tool_call_mask marks .* have '<tool_call>"),
    (moved("tool_name_mask"), "tool_masks_decode", "tool_name_mask marks .* have 'get_weather' there"),
    (moved("tool_args_mask"), "tool_masks_decode", "tool_args_mask marks .*city"),
    (mass_missing, "teacher_is_a_distribution", r"sum to 0\.\d+, not to 1"),
    (id_twice, "teacher_is_a_distribution", r"gives id \d+ twice at a position"),
]
MORE_FAULTS = [
    (padding_in_a_mask, "padding", "tool_args_mask is set on padding"),
    (mask_without_a_label, "labels_are_next_tokens", "mark different positions in 1 of"),
    (teacher_too_long, "lengths_agree", r"teacher_length is \d+"),
    (nan_of_the_teacher, "teacher_is_a_distribution", "sum to nan, not to 1"),
    (id_too_high, "teacher_is_a_distribution", r"id 100\d+ is outside the vocabulary of \d+"),
    (above_padding, "teacher_is_a_distribution", "above -inf where teacher_topk_mask is off"),
]


def with_fault(break_batch):
    """The objects with one batch broken: the first one with a call and without, and with padding."""
    batches = [{name: value.clone() for name, value in batch.items()} for batch in clean().get("batches")]
    chosen = next(
        batch
        for batch in batches
        if len(set(batch["tool_call_mask"].any(dim=1).tolist())) == 2
        and end_of(batch, 0) + 2 < batch["input_ids"].shape[1]
    )
    break_batch(chosen)
    return clean().replaced(batches=batches)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_as_training_makes_it_passes(name):
    found = look(name, clean())
    assert (found.status, found.remedy) == ("pass", ""), found.text


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name", "text"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
def test_a_fault_is_seen_by_its_check_alone(fault, name, text):
    found = assert_only_fails(f"batch.{name}", with_fault(fault))
    assert re.search(text, found.text), found.text
    assert found.remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "name", "text"), MORE_FAULTS, ids=[fault.__name__ for fault, _, _ in MORE_FAULTS]
)
def test_a_rarer_fault_is_seen_by_its_check(fault, name, text):
    found = look(f"batch.{name}", with_fault(fault))
    assert found.status == "fail"
    assert re.search(text, found.text), found.text


@pytest.mark.slow
def test_every_check_has_a_fault():
    assert {f"batch.{name}" for _, name, _ in FAULTS} == set(NAMES)


@pytest.mark.slow
def test_a_row_with_a_call_is_shown_decoded():
    shown = dict(line.split(": ", 1) for line in look("batch.tool_masks_decode", clean()).shown[1:])
    assert shown["tool_name_mask"] == "'get_weather'"
    assert "<tool_call>\\n" in shown["tool_call_mask"]
    assert '"city": ' in shown["tool_args_mask"]
    assert shown["end of turn"] == "'<|im_end|>'"
    assert shown["learned"].endswith("<|im_end|>'")


@pytest.mark.slow
def test_without_a_teacher_there_is_no_distribution_to_look_at():
    batches = [
        {name: value for name, value in batch.items() if not name.startswith("teacher_t")}
        for batch in clean().get("batches")
    ]
    found = look("batch.teacher_is_a_distribution", clean().replaced(batches=batches))
    assert found == Finding(status="skip", text="no log-probabilities of a teacher are read")


def sampled_with(**changes):
    """The sample, whose first row's answer has no end of turn."""
    first, *others = clean().get("sampled")
    without_end = first | {"spans": first["spans"] | {"turn_end": first["spans"]["turn_end"][:0]}}
    return clean().replaced(sampled=[without_end | changes, *others])


@pytest.mark.slow
def test_an_answer_without_an_end_is_cut_unless_its_limit_ended_it():
    found = look("batch.answer_is_whole", sampled_with(finish_reason="stop"))
    assert (found.status, "has no end of turn, and its finish_reason is 'stop'" in found.text) == (
        "fail",
        True,
    )
    found = look("batch.answer_is_whole", sampled_with(finish_reason="length"))
    assert (found.status, "1 ended at the length limit" in found.text) == ("pass", True)
