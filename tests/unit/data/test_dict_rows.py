"""Rows that are plain dicts: what is collated, what is refused and how it is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kdfast.data import collate_kd_batch
from kdfast.errors import DataError

SCALARS = {
    "tool_should_be_used": True,
    "required_fields_present": True,
    "response_start": 1,
    "response_length": 2,
    "teacher_length": 2,
    "source": 0,
}


def row(length: int = 3, **fields: Any) -> dict[str, Any]:
    """A row with tokens 1, 2, ...; `fields` are added, and None takes a field away."""
    ids = torch.arange(1, length + 1)
    base = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids + 1}
    return {name: value for name, value in (base | fields).items() if value is not None}


def refused(rows: list[dict[str, Any]], message: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        collate_kd_batch(rows, **options)
    assert str(caught.value) == message


def test_a_misspelt_field_is_refused_with_a_close_match() -> None:
    logp = torch.zeros(3, 2)
    refused(
        [row(), row(teacher_topk_logprobs=logp), row(teacher_topk_logprobs=logp)],
        "teacher_topk_logprobs: unknown field, did you mean 'teacher_topk_logp'? Rename it, remove it, or name it in "
        "keep=[...] to have its values as a list: row(s) [1, 2]",
    )


def test_fields_of_other_trainers_are_refused_with_their_place_here() -> None:
    refused(
        [row(teacher_logits=torch.zeros(3, 9))],
        "teacher_logits: unknown field; a batch has no dense logits; give them to the loss as "
        "`kdfast.losses.DenseTeacher`. Remove it, or name it in keep=[...] to have its values as a list: row(s) [0]",
    )
    refused(
        [row(prompt_text="a")] * 10,
        "prompt_text: unknown field; remove it, or name it in keep=[...] to have its values as a list: "
        "row(s) [0, 1, 2, 3, 4, 5, 6, 7] and 2 more",
    )


@pytest.mark.parametrize(
    "name", [*SCALARS, "labels", "attention_mask", "response_mask", "teacher_prefix_ids"]
)
def test_a_field_of_some_rows_only_is_refused(name: str) -> None:
    values: dict[str, Any] = SCALARS | {"teacher_prefix_ids": [4], "response_mask": [0, 1, 1]}
    having = row(**({name: values[name]} if name in values else {}))
    lacking = row(**{name: None})
    refused(
        [having, lacking, having],
        f"{name}: row(s) [0, 2] have it, row(s) [1] lack it; give it to every row or to none",
    )
    assert name not in collate_kd_batch([lacking, lacking])


def test_the_teachers_fields_and_masks_of_calls_may_be_missing_in_some_rows() -> None:
    known = row(
        2,
        teacher_topk_ids=torch.tensor([[3, 4], [5, 6]], dtype=torch.int32),
        teacher_topk_logp=torch.full((2, 2), -1.0),
        teacher_tail_logp=torch.tensor([-2.0, -3.0]),
        teacher_topk_mask=torch.tensor([True, False]),
        tool_call_mask=torch.tensor([True, True]),
    )
    batch = collate_kd_batch([row(), known])
    assert batch["teacher_topk_ids"].tolist() == [[[0, 0]] * 3, [[3, 4], [5, 6], [0, 0]]]
    assert batch["teacher_topk_logp"][0].eq(-torch.inf).all()
    assert batch["teacher_tail_logp"].tolist() == [[0, 0, 0], [-2, -3, 0]]
    assert batch["teacher_topk_mask"].tolist() == [[False] * 3, [True, False, False]]
    assert batch["tool_call_mask"].tolist() == [[False] * 3, [True, True, False]]


def test_none_is_an_absent_field() -> None:
    batch = collate_kd_batch([row() | {"teacher_topk_ids": None, "source": None}])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_lists_numpy_and_numbers_become_tensors() -> None:
    first = {"input_ids": [1, 2], "labels": np.array([2, -100]), "source": np.int8(1), "row": 7}
    batch = collate_kd_batch([first, first], shapes=[3], pad_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 9]] * 2
    assert batch["labels"].tolist() == [[2, -100, -100]] * 2
    assert (batch["source"].tolist(), batch["row"].tolist()) == ([1, 1], [7, 7])


def test_prefixes_of_different_lengths_are_padded() -> None:
    batch = collate_kd_batch([row(teacher_prefix_ids=ids) for ids in ([], [4, 5, 6], [7])])
    assert batch["teacher_prefix_ids"].tolist() == [[-100] * 3, [4, 5, 6], [7, -100, -100]]
    assert batch["teacher_prefix_ids"].dtype == torch.int64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": [1] * 5}, "labels: row 1 must have one entry for each of the 3 input_ids: 5"),
        ({"labels": [1, 2]}, "labels: row 1 must have one entry for each of the 3 input_ids: 2"),
        ({"labels": [[1, 2, 3]]}, "labels: row 1 must be [L]: [1, 3]"),
        ({"labels": 5}, "labels: row 1 must be [L]: []"),
        ({"teacher_topk_ids": [1, 2, 3]}, "teacher_topk_ids: row 1 must be [L,K]: [3]"),
        (
            {"input_ids": [[1, 2, 3]]},
            "input_ids: row 1 must be the token ids [L] of one row, at least one: [1, 3]",
        ),
        ({"input_ids": []}, "input_ids: row 1 must be the token ids [L] of one row, at least one: [0]"),
        ({"input_ids": None}, "input_ids: row(s) [0] have it, row(s) [1] lack it; give it to every row"),
    ],
)
def test_a_wrong_length_names_field_and_row(fields: dict[str, Any], message: str) -> None:
    refused([row(), row(**fields)], message)


def test_values_of_a_row_must_be_single_ones() -> None:
    values = SCALARS | {"teacher_prefix_ids": [4]}
    good = row(**values)
    refused([good, row(**values | {"source": [0]})], "source: row 1 must be one value: [1]")
    refused(
        [good, row(**values | {"teacher_prefix_ids": [[4]]})],
        "teacher_prefix_ids: row 1 must be a list [N]: [1, 1]",
    )


def test_a_text_is_no_field_of_a_token() -> None:
    with pytest.raises(DataError, match=r"^labels: row 1 cannot be made a tensor \(.*\): 'abc'$"):
        collate_kd_batch([row(), row(labels="abc")])


def test_all_rows_have_the_same_number_of_teacher_ids() -> None:
    two, three = (row(teacher_topk_ids=torch.zeros(3, k, dtype=torch.int32)) for k in (2, 3))
    refused([row(), two, three], "teacher_topk_ids: row 2 must have the 2 entries a token of row 1: 3")


def test_rows_without_tokens_are_refused() -> None:
    refused([{"input_id": [1, 2]}], "input_id: unknown field, did you mean 'input_ids'? Rename it, remove it, or name "
            "it in keep=[...] to have its values as a list: row(s) [0]")  # fmt: skip
    refused([{"labels": [1, 2]}], "input_ids: no row has this field; the first has labels")


def test_own_fields_are_kept_as_lists() -> None:
    rows = [row(id="a", note=None), row(2, id="b", note={"x": 1})]
    rows[0]["note"] = None
    batch = collate_kd_batch(rows, keep=["id", "note"])
    assert batch["id"] == ["a", "b"]
    assert batch["note"] == [None, {"x": 1}]
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 2, 0]]


def test_own_fields_must_be_in_every_row() -> None:
    rows = [row(sample="a"), row()]
    refused(rows, "sample: row(s) [0] have it, row(s) [1] lack it; give it to every row", keep=["sample"])
    refused(
        [row()],
        "sample: no row has this field; the first has input_ids, attention_mask, labels",
        keep=["sample"],
    )
    for keep in (["labels"], "id"):
        with pytest.raises(ValueError, match="keep must be a list of names that are no fields of a batch"):
            collate_kd_batch([row(id="a")], keep=keep)
