import multiprocessing

import naive_collate
import numpy as np
import pytest
import tiny_store
import torch
from defaults import collate

from kdfast import _rust
from kdfast.data import collate_kd_batch
from kdfast.errors import DataError

PAD = 7


def check(ours, naive):
    assert set(ours) - {"row"} == set(naive)
    for name, expected in naive.items():
        assert ours[name].shape == expected.shape, name
        assert np.array_equal(ours[name], expected), name


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store.build(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def teacher(store, tmp_path_factory):
    """Scores for rows 0, 2 and 3."""
    directory = tmp_path_factory.mktemp("teacher")
    rng, rows = np.random.default_rng(0), [0, 2, 3]
    lengths = np.array([store.row(row)["response_length"] for row in rows])
    total = lengths.sum()
    logp = np.log(rng.dirichlet(np.ones(5), total)).astype(np.float32)
    with _rust.TeacherWriter.open(directory, "t", k=4, vocab_size=486, samples=0) as writer:
        ids = rng.integers(0, 486, (total, 4), dtype=np.int32)
        writer.append(store.row_keys("t")[rows], ids, logp[:, :4].copy(), logp[:, 4].copy(), lengths)
        return _rust.TeacherStore.open(writer.path)


@pytest.fixture(scope="module")
def sampling_teacher(store, tmp_path_factory):
    """Scores and three drawn ids a token for rows 0 and 3."""
    rng, rows = np.random.default_rng(1), [0, 3]
    lengths = np.array([store.row(row)["response_length"] for row in rows])
    total = lengths.sum()
    ids = rng.integers(0, 486, (total, 3), dtype=np.int32)
    counts = np.tile(np.array([[2, 1, 0]], np.uint16), (total, 1))
    directory = tmp_path_factory.mktemp("sampling")
    with _rust.TeacherWriter.open(directory, "t", k=1, vocab_size=486, samples=3) as writer:
        half = np.full((total, 1), np.log(0.5), np.float32)
        keys = store.row_keys("t")[rows]
        writer.append(keys, ids[:, :1].copy(), half, half[:, 0], lengths, None, ids, counts)
        return _rust.TeacherStore.open(writer.path)


def score(store, teacher, row):
    key = store.row_keys("t")[row]
    return teacher.row(key) if teacher.contains(key[None])[0] else None


def test_the_contract_of_a_batch(store, teacher):
    batch = collate(store, np.arange(6), 512, PAD, teacher)
    grid, row = (6, 512), (6,)
    contract = {
        "input_ids": (grid, np.int64),
        "attention_mask": (grid, np.int64),
        "labels": (grid, np.int64),
        "response_mask": (grid, np.bool_),
        "tool_call_mask": (grid, np.bool_),
        "tool_name_mask": (grid, np.bool_),
        "tool_args_mask": (grid, np.bool_),
        "teacher_topk_ids": ((6, 512, 4), np.int32),
        "teacher_topk_logp": ((6, 512, 4), np.float32),
        "teacher_tail_logp": (grid, np.float32),
        "teacher_topk_mask": (grid, np.bool_),
        "tool_should_be_used": (row, np.bool_),
        "required_fields_present": (row, np.bool_),
        "response_start": (row, np.int64),
        "response_length": (row, np.int64),
        "teacher_length": (row, np.int64),
        "teacher_prefix_ids": ((6, 25), np.int64),
        "teacher_attention_mask": (grid, np.int64),
        "source": (row, np.int8),
        "row": (row, np.int64),
    }
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == contract
    assert all(array.flags["C_CONTIGUOUS"] and array.flags["WRITEABLE"] for array in batch.values())


@pytest.mark.parametrize("rows", [[0], [3, 1, 3], [5, 4, 3, 2, 1, 0]])
@pytest.mark.parametrize("length", [396, 512])
def test_equal_to_the_naive_collation(store, teacher, rows, length):
    data = [store.row(row) for row in rows]
    ours = collate(store, np.array(rows), length, PAD, teacher)
    check(ours, naive_collate.collate(data, length, PAD, [score(store, teacher, row) for row in rows]))
    check(collate(store, np.array(rows), length, PAD), naive_collate.collate(data, length, PAD))
    assert ours["row"].tolist() == rows


def test_targets_are_the_next_token_exactly_where_the_response_mask_is(store):
    batch = collate(store, np.arange(6), 512, PAD)
    rows, positions = np.nonzero(batch["response_mask"])
    assert np.array_equal(batch["labels"][rows, positions], batch["input_ids"][rows, positions + 1])
    assert np.array_equal(batch["labels"] == -100, ~batch["response_mask"])
    for name in ("tool_call_mask", "tool_name_mask", "tool_args_mask"):
        assert not (batch[name] & ~batch["response_mask"]).any()
        assert batch[name].any()
    for row in range(6):
        first = np.flatnonzero(batch["response_mask"][row])[0]
        assert first == batch["response_start"][row] - 1


def test_the_last_label_is_the_turn_end(store):
    batch = collate(store, np.array([0]), 300, PAD)
    assert batch["labels"][0][batch["response_mask"][0]][-1] == 2


def test_teacher_fields_are_absent_without_a_scored_row(store, teacher):
    assert "teacher_topk_mask" not in collate(store, np.array([1, 4]), 512, PAD, teacher)
    mixed = collate(store, np.array([1, 0]), 512, PAD, teacher)
    assert mixed["teacher_topk_mask"].any(axis=1).tolist() == [False, True]
    assert np.array_equal(mixed["teacher_topk_mask"][1], mixed["response_mask"][1])
    outside = ~mixed["teacher_topk_mask"]
    assert np.isneginf(mixed["teacher_topk_logp"][outside]).all()
    assert not mixed["teacher_topk_ids"][outside].any()
    assert not mixed["teacher_tail_logp"][outside].any()


def test_drawn_ids_stand_where_the_teacher_is_known(store, sampling_teacher):
    batch = collate(store, np.array([1, 0, 3]), 512, PAD, sampling_teacher)
    ids, counts = batch["teacher_sample_ids"], batch["teacher_sample_counts"]
    assert (ids.shape, ids.dtype, counts.shape, counts.dtype) == (2 * ((3, 512, 3), np.dtype(np.int32)))
    known = batch["teacher_topk_mask"]
    assert known.any(axis=1).tolist() == [False, True, True]
    assert (counts[known] == [2, 1, 0]).all()
    assert not counts[~known].any()
    assert not ids[~known].any()
    rows = [1, 0, 3]
    naive = naive_collate.collate(
        [store.row(row) for row in rows], 512, PAD, [score(store, sampling_teacher, row) for row in rows]
    )
    check(batch, naive)


def test_drawn_ids_are_absent_without_a_scored_row(store, teacher, sampling_teacher):
    assert "teacher_sample_ids" not in collate(store, np.array([1]), 512, PAD, sampling_teacher)
    assert "teacher_sample_ids" not in collate(store, np.array([0]), 512, PAD, teacher)


def test_dicts_with_drawn_ids_are_padded_with_0():
    bare = {"input_ids": torch.tensor([5, 6, 7])}
    drawn = {
        "input_ids": torch.tensor([5, 6]),
        "teacher_sample_ids": torch.tensor([[3, 0], [4, 5]], dtype=torch.int32),
        "teacher_sample_counts": torch.tensor([[2, 0], [1, 1]], dtype=torch.int32),
    }
    batch = collate_kd_batch([bare, drawn], shapes=[4])
    nothing = [0, 0]
    assert batch["teacher_sample_ids"].tolist() == [[nothing] * 4, [[3, 0], [4, 5], nothing, nothing]]
    assert batch["teacher_sample_counts"].tolist() == [[nothing] * 4, [[2, 0], [1, 1], nothing, nothing]]
    assert batch["teacher_sample_counts"].dtype == torch.int32


def test_a_row_that_is_cut_keeps_its_response_and_its_teacher(store, teacher):
    full, short = (collate(store, np.array([3]), length, PAD, teacher) for length in (512, 302))
    assert short["attention_mask"].sum() < full["attention_mask"].sum()
    for name in ("labels", "teacher_topk_logp", "teacher_topk_ids", "teacher_tail_logp", "tool_args_mask"):
        assert np.array_equal(short[name][short["response_mask"]], full[name][full["response_mask"]]), name
    cut = store.row(3, max_length=302)
    check(short, naive_collate.collate([cut], 302, PAD, [score(store, teacher, 3)]))


def test_a_row_too_long_names_row_line_and_lengths(store):
    with pytest.raises(DataError, match=r"row 3 \(line 4 of the dataset\) has 396 tokens .* length 100"):
        collate(store, np.array([2, 3]), 100, PAD)
    with pytest.raises(DataError, match="row must be below 6, got 6"):
        collate(store, np.array([6]), 100, PAD)
    with pytest.raises(DataError, match="must not be negative, got -1"):
        collate(store, np.array([-1]), 100, PAD)


def test_scores_of_another_length_are_refused(store, tmp_path):
    with _rust.TeacherWriter.open(tmp_path, "t", k=1, vocab_size=486, samples=0) as writer:
        one = np.zeros((1, 1), np.float32)
        writer.append(store.row_keys("t")[:1], np.zeros((1, 1), np.int32), one, one[0], np.array([1]))
        wrong = _rust.TeacherStore.open(writer.path)
    with pytest.raises(DataError, match="1 tokens for the row of line 1, which has"):
        collate(store, np.array([0]), 512, PAD, wrong)


def test_no_rows_make_an_empty_batch(store):
    batch = collate(store, np.array([], dtype=np.int64), 64, PAD)
    assert batch["input_ids"].shape == (0, 64)


@pytest.mark.parametrize("threads", [1, 2, 5, 0])
def test_threads_do_not_change_a_batch(store, teacher, threads):
    rows = np.tile(np.arange(6), 9)
    one = collate(store, rows, 512, PAD, teacher, threads=1)
    many = collate(store, rows, 512, PAD, teacher, threads=threads)
    assert all(np.array_equal(one[name], many[name]) for name in one)


def _collate_in_child(store, queue):
    queue.put(collate(store, np.arange(6), 512, PAD, threads=3)["input_ids"].sum())


def test_a_forked_worker_collates_as_its_parent_did(store):
    mine = collate(store, np.arange(6), 512, PAD, threads=3)["input_ids"].sum()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_collate_in_child, args=(store, queue))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == mine
