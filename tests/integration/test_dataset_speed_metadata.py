"""The metadata that the latency losses need: loaded right, derived right, padded right, all the way to a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_tokenizer
from tiny_run import TOOL
from torch.utils.data import DataLoader

from kdfast import KDDataset, collate_kd_batch
from kdfast.errors import DataError

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
LACKING = '<tool_call>\n{"name": "get_weather", "arguments": {"days": 2}}\n</tool_call>'
FIELDS = {
    "input_ids",
    "attention_mask",
    "labels",
    "response_mask",
    "tool_call_mask",
    "tool_name_mask",
    "tool_args_mask",
    "tool_should_be_used",
    "required_fields_present",
    "response_start",
    "response_length",
    "teacher_length",
    "teacher_prefix_ids",
    "teacher_attention_mask",
    "source",
    "row",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def dataset(directory: Path, tokenizer: Path, *records: dict[str, Any], **options: Any) -> KDDataset:
    path = directory / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return KDDataset(path, tokenizer_path=tokenizer, **{"max_seq_length": 2048, **options})


def plain(text: str, **more: Any) -> dict[str, Any]:
    return {"prompt": "weather in Paris?", "teacher_text": text, "tools": [TOOL], **more}


def test_given_values_are_loaded_as_they_are(tmp_path: Path, tokenizer: Path) -> None:
    row = dataset(
        tmp_path,
        tokenizer,
        plain(CALL, tool_should_be_used=False, teacher_prefix_ids=[7, 8, 9], required_fields_present=False),
    )[0]
    assert not row["tool_should_be_used"]
    assert not row["required_fields_present"]
    assert row["teacher_prefix_ids"].tolist() == [7, 8, 9] + [-100] * 22


def test_a_given_attention_mask_is_kept_and_its_sum_is_the_teachers_length(
    tmp_path: Path, tokenizer: Path
) -> None:
    length = int(dataset(tmp_path, tokenizer, plain("Sunny."))[0]["response_length"])
    mask = [1] * (length - 1) + [0]
    row = dataset(tmp_path, tokenizer, plain("Sunny.", teacher_attention_mask=mask))[0]
    start = int(row["response_start"])
    assert row["teacher_attention_mask"].tolist() == [0] * start + mask
    assert int(row["teacher_length"]) == length - 1
    with pytest.raises(DataError, match="teacher_attention_mask"):
        dataset(tmp_path, tokenizer, plain("Sunny.", teacher_attention_mask=[1, 1, 1, 0, 1]))


@pytest.mark.parametrize(
    ("text", "tool", "fields"),
    [(CALL, True, True), ("Sunny.", False, True), (LACKING, True, False)],
    ids=["valid call", "no call", "call that lacks a required argument"],
)
def test_tool_should_be_used_is_a_valid_call(
    tmp_path: Path, tokenizer: Path, text: str, tool: bool, fields: bool
) -> None:
    row = dataset(tmp_path, tokenizer, plain(text), invalid_calls="keep")[0]
    assert bool(row["tool_should_be_used"]) is tool
    assert bool(row["required_fields_present"]) is fields


@pytest.mark.parametrize(
    ("text", "expected"),
    [(CALL, True), (LACKING, False), ("Sunny.", False)],
    ids=["all", "lacks city", "no call"],
)
def test_required_fields_present_where_a_call_is_due(
    tmp_path: Path, tokenizer: Path, text: str, expected: bool
) -> None:
    row = dataset(tmp_path, tokenizer, plain(text, tool_should_be_used=True), invalid_calls="keep")[0]
    assert bool(row["required_fields_present"]) is expected


def test_teacher_prefix_is_the_start_of_the_first_call(tmp_path: Path, tokenizer: Path) -> None:
    data = dataset(tmp_path, tokenizer, plain("Let me look. " + CALL), prefix_tokens=6)
    prefix = data[0]["teacher_prefix_ids"].tolist()
    assert len(prefix) == 6
    text = data.tokenizer.decode(prefix)
    # the token that opens the call may hold the blank before it
    assert CALL.startswith(text.lstrip())
    assert text.lstrip().startswith("<")


def test_teacher_attention_mask_covers_the_response_and_the_end_of_turn(
    tmp_path: Path, tokenizer: Path
) -> None:
    row = dataset(tmp_path, tokenizer, plain("Sunny."))[0]
    start, length = int(row["response_start"]), int(row["response_length"])
    mask = row["teacher_attention_mask"].tolist()
    assert mask == [0] * start + [1] * length
    assert int(row["teacher_length"]) == length
    assert row["input_ids"][-1] == row["labels"][-2]  # the end of turn is a target


def test_a_cut_answer_has_no_end_of_turn(tmp_path: Path, tokenizer: Path) -> None:
    whole, cut = (
        dataset(tmp_path, tokenizer, plain("Sunny.", finish_reason=reason))[0]
        for reason in ("stop", "length")
    )
    assert int(whole["response_length"]) == int(cut["response_length"]) + 1
    assert whole["input_ids"][:-1].tolist() == cut["input_ids"].tolist()


def test_labels_and_masks_describe_the_next_token(tmp_path: Path, tokenizer: Path) -> None:
    data = dataset(tmp_path, tokenizer, plain("Look: " + CALL))
    row = data[0]
    ids = row["input_ids"].tolist()
    for t, label in enumerate(row["labels"].tolist()):
        supervised = bool(row["response_mask"][t])
        assert (label != -100) == supervised
        assert not supervised or label == ids[t + 1]
    named = [ids[t + 1] for t, flag in enumerate(row["tool_name_mask"].tolist()) if flag]
    assert "get_weather" in data.tokenizer.decode(named)
    arguments = [ids[t + 1] for t, flag in enumerate(row["tool_args_mask"].tolist()) if flag]
    assert '{"city": "Paris", "days": 2}' in data.tokenizer.decode(arguments)


def test_two_answers_give_two_rows(tmp_path: Path, tokenizer: Path) -> None:
    data = dataset(tmp_path, tokenizer, plain("Sunny.", truth_text=CALL), plain("Same.", truth_text="Same."))
    assert [int(data[index]["source"]) for index in range(len(data))] == [0, 1, 0]


def test_padding_and_shapes_of_a_batch(tmp_path: Path, tokenizer: Path) -> None:
    data = dataset(tmp_path, tokenizer, plain(CALL), plain("Sunny."), shapes=[64, 256, 512])
    batch = collate_kd_batch([data[0], data[1]], shapes=data.shapes, pad_id=3)
    longest = max(len(data[index]["input_ids"]) for index in (0, 1))
    length = min(shape for shape in data.shapes if shape >= longest)
    assert batch.keys() == FIELDS
    assert batch["input_ids"].shape == (2, length)
    for index in (0, 1):
        own = len(data[index]["input_ids"])
        assert (batch["input_ids"][index, own:] == 3).all()
        assert (batch["labels"][index, own:] == -100).all()
        assert not batch["attention_mask"][index, own:].any()
        assert not batch["teacher_attention_mask"][index, own:].any()
        assert not batch["response_mask"][index, own:].any()
    prefix = data.ids(0)[int(data[0]["response_start"]) :][:25]
    assert batch["teacher_prefix_ids"].tolist() == [prefix, [-100] * 25]
    assert batch["tool_should_be_used"].dtype == torch.bool
    assert batch["source"].dtype == torch.int8


def test_the_fast_batch_equals_the_slow_one(tmp_path: Path, tokenizer: Path) -> None:
    records = [plain(CALL), plain("Sunny."), plain("Hm. " + CALL), plain(LACKING, truth_text=CALL)]
    data = dataset(tmp_path, tokenizer, *records, shapes=[64, 256, 512], invalid_calls="keep")
    indices = [3, 0, 4, 1]
    fast = collate_kd_batch(data.__getitems__(indices))
    slow = collate_kd_batch([data[index] for index in indices], shapes=data.shapes)
    assert fast.keys() == slow.keys()
    for name, value in fast.items():
        assert value.dtype == slow[name].dtype, name
        assert torch.equal(value, slow[name]), name


def test_records_that_carry_log_probabilities(tmp_path: Path, tokenizer: Path) -> None:
    length = int(dataset(tmp_path, tokenizer, plain("Sunny."))[0]["response_length"])
    topk = {"ids": [[5, 6]] * length, "logprobs": [[-0.5, -1.5]] * length}
    data = dataset(tmp_path, tokenizer, plain("Sunny.", teacher_topk=topk), plain(CALL))
    with_topk, without = data[0], data[1]
    start = int(with_topk["response_start"])
    known = with_topk["teacher_topk_mask"]
    assert known.nonzero().flatten().tolist() == list(range(start - 1, start - 1 + length))
    assert with_topk["teacher_topk_ids"][known][:, :2].tolist() == [[5, 6]] * length
    logp = with_topk["teacher_topk_logp"][known][:, :2]
    torch.testing.assert_close(logp, torch.tensor([[-0.5, -1.5]] * length), atol=2e-3, rtol=0)
    assert "teacher_topk_ids" not in without or not without["teacher_topk_mask"].any()
    batch = collate_kd_batch(data.__getitems__([0, 1]))
    assert batch["teacher_topk_mask"].any(1).tolist() == [True, False]
    assert "teacher_topk_ids" not in collate_kd_batch(data.__getitems__([1]))


@pytest.mark.parametrize("workers", [0, 2])
def test_through_a_plain_dataloader(tmp_path: Path, tokenizer: Path, workers: int) -> None:
    records = [plain(CALL if number % 2 else "Sunny.") for number in range(6)]
    data = dataset(tmp_path, tokenizer, *records, shapes=[256, 512], threads=2)
    loader = DataLoader(data, batch_size=4, num_workers=workers, collate_fn=collate_kd_batch)
    batches = list(loader)
    assert [batch["row"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5]]
    for batch in batches:
        assert batch.keys() == FIELDS
        again = collate_kd_batch(data.__getitems__(batch["row"].tolist()))
        assert all(torch.equal(batch[name], again[name]) for name in again)


def test_the_origins_spelling(tmp_path: Path, tokenizer: Path) -> None:
    row = dataset(tmp_path, tokenizer, plain(CALL))[0]
    assert bool(row["tool_should_be_used"])
    assert bool(row["required_fields_present"])


def test_a_row_that_does_not_fit(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(DataError, match="larger shape") as caught:
        dataset(tmp_path, tokenizer, plain("Sunny."), plain("word " * 500), shapes=[128])
    assert caught.value.line == 2
    data = dataset(
        tmp_path,
        tokenizer,
        *[plain("Sunny.")] * 3,
        plain("word " * 500),
        shapes=[128],
        on_error="quarantine",
        max_rejected_fraction=0.5,
    )
    assert len(data) == 3
    assert data.too_long == [4]
