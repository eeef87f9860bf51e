import numpy as np
import pytest
import torch

from kdfast.data.collate import _FIELDS
from kdfast.errors import CheckpointError, DataError
from kdfast.shapes import (
    ShapeUse,
    StepSampler,
    sample_enumerated_shape,
    shape_probabilities,
    shape_use,
    truncate_batch_to_shape,
)
from kdfast.shapes.truncate import SEQUENCES

FOUR = [512, 1024, 2048, 4096]


def shares(shapes, probs=None, steps=4000, **options):
    drawn = [sample_enumerated_shape(shapes, probs, step=step, seed=3, **options) for step in range(steps)]
    return [drawn.count(shape) / steps for shape in shapes]


def test_default_production_mix_4_shapes():
    assert shape_probabilities(FOUR).tolist() == [0.5, 0.3, 0.15, 0.05]
    assert shape_probabilities(FOUR[:3]).tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert shape_probabilities(FOUR[:2]).tolist() == [0.7, 0.3]
    assert shares(FOUR) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.025)
    with pytest.raises(ValueError, match="no production mix for 5 shapes"):
        shape_probabilities([1, 2, 3, 4, 5])


def test_custom_shape_probs():
    assert shape_probabilities(FOUR, [2, 1, 1, 0]).tolist() == [0.5, 0.25, 0.25, 0.0]
    assert shares(FOUR, [2, 1, 1, 0]) == pytest.approx([0.5, 0.25, 0.25, 0.0], abs=0.025)
    for bad in ([1.0], [0.5, 0.5, -0.1, 0.1], [0, 0, 0, 0], [1, 1, 1, float("nan")], "natural"):
        with pytest.raises(ValueError, match="probs must"):
            sample_enumerated_shape(FOUR, bad, step=0, seed=0)


def test_renormalised_over_shapes_that_have_rows():
    available = [True, False, True, False]
    assert shape_probabilities(FOUR, available=available).tolist() == pytest.approx(
        [0.5 / 0.65, 0, 0.15 / 0.65, 0]
    )
    assert shares(FOUR, steps=300, available=available)[1::2] == [0.0, 0.0]
    with pytest.raises(ValueError, match="has rows a chance"):
        shape_probabilities(FOUR, [0, 1, 0, 1], available=available)


def test_periodic_upweight_rare():
    up = {"upweight_every": 100, "upweight_factor": 2.0}
    plain = shape_probabilities(FOUR).tolist()
    for step in (0, 1, 99, 101):
        assert shape_probabilities(FOUR, step=step, **up).tolist() == plain
    for step in (100, 200):
        assert shape_probabilities(FOUR, step=step, **up).tolist() == pytest.approx(
            [0.5 / 1.05, 0.3 / 1.05, 0.15 / 1.05, 0.1 / 1.05]
        )
    # the rarest of those that have rows
    there = [True, True, True, False]
    assert shape_probabilities(FOUR, step=100, available=there, **up).tolist() == pytest.approx(
        [0.5 / 1.1, 0.3 / 1.1, 0.3 / 1.1, 0]
    )


@pytest.mark.parametrize("shapes", [[], [0, 8], [8, 8], [16, 8]])
def test_shapes_must_be_positive_sorted_unique(shapes):
    with pytest.raises(ValueError, match="shapes must be positive, sorted and unique"):
        shape_probabilities(shapes)


def batch(kind):
    labels = [[-100, 5, 6, -100, -100, -100], [-100, -100, 7, -100, -100, -100]]
    arrays = {
        "input_ids": np.arange(12).reshape(2, 6),
        "attention_mask": np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]),
        "labels": np.array(labels),
        "response_mask": np.array(labels) != -100,
        "teacher_topk_ids": np.arange(48).reshape(2, 6, 4),
        "teacher_logits": np.arange(120.0).reshape(2, 6, 10),
        "teacher_prefix_ids": np.arange(12).reshape(2, 6),
        "source": np.array([0, 1]),
    }
    made = {key: torch.from_numpy(value) for key, value in arrays.items()} if kind == "torch" else arrays
    return {**made, "metadata": ["a", {"b": 1}], "step": 7}


KINDS = pytest.mark.parametrize("kind", ["torch", "numpy"])


@KINDS
def test_truncate_sequence_keys(kind):
    cut = truncate_batch_to_shape(batch(kind), 4)
    for key in ("input_ids", "attention_mask", "labels", "response_mask"):
        assert cut[key].tolist() == [row[:4] for row in batch(kind)[key].tolist()], key
    assert truncate_batch_to_shape(batch(kind), 6)["input_ids"].shape == (2, 6)
    assert truncate_batch_to_shape(batch(kind), 99)["input_ids"].shape == (2, 6)


@KINDS
def test_truncate_sequence_vocab_keys(kind):
    cut = truncate_batch_to_shape(batch(kind), 4)
    for key, width in (("teacher_logits", 10), ("teacher_topk_ids", 4)):
        assert tuple(cut[key].shape) == (2, 4, width)
        assert cut[key].tolist() == [row[:4] for row in batch(kind)[key].tolist()]


@KINDS
def test_preserve_metadata_keys(kind):
    whole = batch(kind)
    cut = truncate_batch_to_shape(whole, 4)
    assert list(cut) == list(whole)
    for key in ("teacher_prefix_ids", "source", "metadata", "step"):
        assert cut[key] is whole[key]


@KINDS
def test_truncate_refuses_to_cut_a_response_unless_told(kind):
    with pytest.raises(DataError, match=r"response of row\(s\) \[0, 1\] does not fit into 2 tokens"):
        truncate_batch_to_shape(batch(kind), 2)
    assert truncate_batch_to_shape(batch(kind), 2, cut_response=True)["labels"].tolist() == [
        [-100, 5],
        [-100, -100],
    ]
    no_labels = {key: batch(kind)[key] for key in ("input_ids", "attention_mask")}
    with pytest.raises(DataError, match=r"row\(s\) \[1\]"):
        truncate_batch_to_shape(no_labels, 4)
    with pytest.raises(DataError, match=r"row\(s\) \[0, 1\]"):
        truncate_batch_to_shape({"input_ids": no_labels["input_ids"]}, 5)
    ends = {"response_start": np.array([1, 2]), "response_length": np.array([2, 3])}
    with pytest.raises(DataError, match=r"row\(s\) \[1\]"):
        truncate_batch_to_shape({"input_ids": no_labels["input_ids"], **ends}, 4)


@KINDS
def test_truncate_finds_the_length_without_input_ids(kind):
    whole = batch(kind)
    for first in ("labels", "attention_mask", "response_mask", "teacher_topk_ids", "teacher_logits"):
        some = {key: whole[key] for key in ("source", "teacher_prefix_ids", first)}
        cut = truncate_batch_to_shape(some, 3, cut_response=True)
        assert cut[first].tolist() == [row[:3] for row in whole[first].tolist()], first
        assert cut["teacher_prefix_ids"] is whole["teacher_prefix_ids"]
    with pytest.raises(DataError, match=r"response of row\(s\) \[0, 1\] does not fit into 2 tokens"):
        truncate_batch_to_shape({"labels": whole["labels"]}, 2)
    # nothing says what is supervised, so every token counts
    with pytest.raises(DataError, match=r"row\(s\) \[0, 1\]"):
        truncate_batch_to_shape({"teacher_logits": whole["teacher_logits"]}, 5)


def test_truncate_says_what_it_looked_for():
    found = "it needs one of input_ids, labels, attention_mask, .*, and has teacher_prefix_ids, metadata$"
    with pytest.raises(DataError, match=f"^no field gives the length of the batch; {found}"):
        truncate_batch_to_shape({"teacher_prefix_ids": np.ones((2, 6)), "metadata": ["a", "b"]}, 4)
    with pytest.raises(DataError, match=r"and has no fields$"):
        truncate_batch_to_shape({}, 4)


@KINDS
def test_truncate_refuses_fields_that_do_not_fit_together(kind):
    whole = batch(kind)
    with pytest.raises(
        DataError, match=r"^input_ids: must be \[B,T\] or .* batch axis with value\[None\]: \[6\]$"
    ):
        truncate_batch_to_shape({"input_ids": whole["input_ids"][0]}, 4)
    ragged = [[1, 2, 3], [4]]
    with pytest.raises(
        DataError, match=r"^labels: must be a tensor or an array \[B,T\]; .*collate_kd_batch: list$"
    ):
        truncate_batch_to_shape({**whole, "labels": ragged}, 4)
    message = r"must have the 2 rows and 6 positions of input_ids: "
    with pytest.raises(DataError, match=rf"^labels: {message}\[1, 6\]$"):
        truncate_batch_to_shape({**whole, "labels": whole["labels"][:1]}, 4)
    with pytest.raises(DataError, match=rf"^teacher_topk_ids: {message}\[2, 5, 4\]$"):
        truncate_batch_to_shape({**whole, "teacher_topk_ids": whole["teacher_topk_ids"][:, :5]}, 4)
    # also where nothing would be cut
    with pytest.raises(DataError, match=rf"^labels: {message}\[2, 5\]$"):
        truncate_batch_to_shape({**whole, "labels": whole["labels"][:, :5]}, 9)


@KINDS
def test_truncate_takes_none_as_an_absent_field(kind):
    whole = {**batch(kind), "labels": None, "teacher_topk_mask": None}
    cut = truncate_batch_to_shape(whole, 4)
    assert cut["labels"] is None
    assert tuple(cut["input_ids"].shape) == (2, 4)


def test_truncate_needs_a_length():
    with pytest.raises(ValueError, match="length must be at least 1: 0"):
        truncate_batch_to_shape(batch("numpy"), 0)


def test_truncate_knows_the_sequences_that_collation_makes():
    assert set(_FIELDS.per_token) <= set(SEQUENCES)


def test_rows_go_to_the_smallest_shape_and_padding_is_counted():
    assert shape_use([8, 9, 16, -1, 4], [8, 16, 32]) == [
        ShapeUse(8, 2, 12, 0.25),
        ShapeUse(16, 2, 25, 1 - 25 / 32),
        ShapeUse(32, 0, 0, 0.0),
    ]


def test_natural_probabilities_are_the_shares_of_the_data():
    sampler = StepSampler([4] * 30 + [12] * 10, [8, 16, 32], rows_per_step=2, seed=5)
    drawn = [sampler.plan(step)[0] for step in range(2000)]
    assert drawn.count(8) / 2000 == pytest.approx(0.75, abs=0.03)
    assert drawn.count(32) == 0


def test_a_bucket_smaller_than_a_step_runs_on_into_its_next_order():
    sampler = StepSampler([4, 4, 4], [8], rows_per_step=7, seed=0)
    rows = np.concatenate([sampler.plan(step)[1] for step in range(3)])
    assert np.bincount(rows).tolist() == [7, 7, 7]
    assert all(sorted(rows[i : i + 3]) == [0, 1, 2] for i in range(0, 21, 3))


def test_rows_without_a_place_are_refused_or_never_drawn():
    with pytest.raises(DataError, match=r"row\(s\) \[1\] do not fit the largest shape 8: \[9\] tokens"):
        StepSampler([4, 9], [8], rows_per_step=1, seed=0)
    with pytest.raises(DataError, match="no row to draw from"):
        StepSampler([-1, -1], [8], rows_per_step=1, seed=0)
    sampler = StepSampler([4, -1, 4], [8], rows_per_step=2, seed=0)
    assert sorted(sampler.plan(0)[1]) == [0, 2]


def test_state_of_other_data_is_refused():
    state = StepSampler([4, 4, 4], [8], rows_per_step=2, seed=0).state_dict(3)
    with pytest.raises(CheckpointError, match=r"another bucket_rows.*: \[3\], now \[2\]"):
        StepSampler([4, 4], [8], rows_per_step=2, seed=0).load_state_dict(state)
    with pytest.raises(CheckpointError, match="another seed"):
        StepSampler([4, 4, 4], [8], rows_per_step=2, seed=1).load_state_dict(state)
