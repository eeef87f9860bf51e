import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_store

from kdfast import _rust
from kdfast.errors import DataError

K, VOCAB = 4, 500


def open_writer(directory, **changes):
    return _rust.TeacherWriter.open(
        directory, "teacher", **({"k": K, "vocab_size": VOCAB, "samples": 0} | changes)
    )


def open_store(directory):
    return _rust.TeacherStore.open(_rust.TeacherStore.path_of(directory, "teacher"))


def scores(lengths, seed=0, opening=True):
    """Keys and random scores of rows with these lengths, in `append`'s order."""
    rng, total = np.random.default_rng(seed), sum(lengths)
    keys = rng.integers(0, 256, (len(lengths), 16), dtype=np.uint8)
    ids = rng.integers(0, VOCAB, (total, K), dtype=np.int32)
    logp = np.log(rng.dirichlet(np.ones(K + 1), total)).astype(np.float32)
    count = np.array(lengths, dtype=np.int64)
    extra = [np.log(rng.uniform(size=total)).astype(np.float32)] if opening else []
    return [keys, ids, np.ascontiguousarray(logp[:, :K]), np.ascontiguousarray(logp[:, K]), count, *extra]


def drawn(total, samples, seed=0):
    """Drawn ids and counts of so many tokens, as `append` takes them by name."""
    rng = np.random.default_rng(seed)
    counts = -np.sort(-rng.multinomial(samples, np.ones(samples) / samples, total))
    ids = rng.integers(0, VOCAB, (total, samples), dtype=np.int32) * (counts > 0)
    return {"sample_ids": ids.astype(np.int32), "sample_counts": counts.astype(np.uint16)}


def test_rows_come_back_renormalised(tmp_path):
    keys, ids, logp, tail, lengths, opening = scores([3, 1, 5])
    with open_writer(tmp_path) as writer:
        assert writer.append(keys, ids, logp, tail, lengths, opening) == 3
        assert (len(writer), writer.bytes_per_token) == (3, 4 * 6 + 4)
    store, start = open_store(tmp_path), 0
    assert (store.k, store.vocab_size, store.logprob_temperature, store.fingerprint) == (
        K,
        VOCAB,
        1.0,
        "teacher",
    )
    for key, length in zip(keys, lengths, strict=True):
        row, tokens = store.row(key), slice(start, start + length)
        start += length
        assert np.array_equal(row["topk_ids"], ids[tokens])
        assert np.allclose(np.exp(row["topk_logp"]).sum(1) + np.exp(row["tail_logp"]), 1, atol=1e-6)
        assert np.allclose(row["topk_logp"], logp[tokens], atol=0.01, rtol=2e-3)
        assert np.allclose(row["tail_logp"], tail[tokens], atol=0.01, rtol=2e-3)
        assert np.allclose(row["call_opening_logp"], opening[tokens], atol=0.01, rtol=2e-3)


def test_196_bytes_a_token_at_k_32(tmp_path):
    with open_writer(tmp_path, k=32) as writer:
        assert writer.bytes_per_token == 196


def test_the_file_is_about_as_large_as_said(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.append(*scores([200] * 50))
        assert writer.path.stat().st_size < 1.05 * writer.bytes_per_token * 200 * 50


def test_a_row_is_never_stored_twice(tmp_path):
    first = scores([2, 2])
    twice = [np.concatenate([column, column]) for column in first]
    with open_writer(tmp_path) as writer:
        assert writer.append(*twice) == 2
        assert writer.append(*first) == 0
    with open_writer(tmp_path) as writer:
        assert len(writer) == 2
        assert writer.append(*first) == 0
        assert writer.contains(first[0]).tolist() == [True, True]
        assert writer.contains(scores([1], seed=9)[0]).tolist() == [False]
    assert len(open_store(tmp_path)) == 2


def test_missing_lists_what_is_to_be_scored_once(tmp_path):
    data = tiny_store.build(tmp_path / "data", [*tiny_store.RECORDS, tiny_store.RECORDS[2]])
    keys = data.row_keys("teacher")
    with open_writer(tmp_path) as writer:
        assert writer.missing(data).tolist() == [0, 1, 2, 3, 4, 5]
        columns = scores([1, 1])
        writer.append(keys[[1, 3]], *columns[1:])
        assert writer.missing(data).tolist() == [0, 2, 4, 5]
    assert open_store(tmp_path).missing(data).tolist() == [0, 2, 4, 5]


def test_call_opening_is_optional_row_by_row(tmp_path):
    with open_writer(tmp_path) as writer:
        with_opening, without = scores([2], seed=1), scores([2], seed=2, opening=False)
        writer.append(*with_opening)
        writer.append(*without)
    store = open_store(tmp_path)
    assert store.row(with_opening[0][0])["call_opening_logp"].shape == (2,)
    assert store.row(without[0][0])["call_opening_logp"] is None


def test_very_small_tails_stay_finite(tmp_path):
    columns = scores([2], opening=False)
    columns[3] = np.array([-1e9, -np.inf], dtype=np.float32)
    with open_writer(tmp_path) as writer:
        writer.append(*columns)
    assert np.isfinite(open_store(tmp_path).row(columns[0][0])["tail_logp"]).all()


def test_pyarrow_opens_it(tmp_path):
    columns = scores([3, 2])
    with open_writer(tmp_path) as writer:
        writer.append(*columns)
        path = writer.path
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    assert table.schema.metadata[b"kdfast.k"] == b"4"
    assert table["key"].to_pylist() == [key.tobytes() for key in columns[0]]
    assert table["length"].to_pylist() == [3, 2]
    assert table["topk_ids"].to_pylist()[0] == columns[1][:3].ravel().tolist()


def test_drawn_ids_come_back(tmp_path):
    columns, samples = scores([3, 1]), drawn(4, 6)
    with open_writer(tmp_path, samples=6) as writer:
        assert writer.append(*columns, **samples) == 2
        assert (writer.samples, writer.bytes_per_token) == (6, 10 * 6 + 4)
        path = writer.path
    store = open_store(tmp_path)
    assert (store.samples, store.bytes_per_token) == (6, 10 * 6 + 4)
    for key, tokens in zip(columns[0], (slice(0, 3), slice(3, 4)), strict=True):
        row = store.row(key)
        for name, given in samples.items():
            assert row[name].dtype == given.dtype
            assert np.array_equal(row[name], given[tokens])
    assert store.audit() == []
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    assert table.schema.metadata[b"kdfast.samples"] == b"6"
    assert table.schema.field("sample_counts").type.value_type == pa.uint16()
    assert table["sample_ids"].to_pylist()[0] == samples["sample_ids"][:3].ravel().tolist()
    assert table["sample_counts"].to_pylist()[1] == samples["sample_counts"][3].tolist()


def test_a_store_without_samples_has_no_trace_of_them(tmp_path):
    columns = scores([3])
    with open_writer(tmp_path) as writer:
        writer.append(*columns)
        path = writer.path
    assert open_store(tmp_path).samples == 0
    assert "sample_ids" not in open_store(tmp_path).row(columns[0][0])
    with pa.memory_map(str(path)) as source:
        schema = pa.ipc.open_stream(source).schema
    assert b"kdfast.samples" not in schema.metadata
    assert not [name for name in schema.names if name.startswith("sample")]


def test_drawn_ids_that_cannot_be_are_refused(tmp_path):
    columns, good = scores([3]), drawn(3, 6)
    both = "must both be given to a store with samples and to no other"
    with open_writer(tmp_path / "without") as writer, pytest.raises(ValueError, match=f"{both}.*: 0"):
        writer.append(*columns, **good)
    with pytest.raises(ValueError, match="samples must be at most 65535, got 65536"):
        open_writer(tmp_path / "many", samples=65536)
    with open_writer(tmp_path, samples=6) as writer:
        for some in ({}, {"sample_ids": good["sample_ids"]}, {"sample_counts": good["sample_counts"]}):
            with pytest.raises(ValueError, match=f"{both}.*: 6"):
                writer.append(*columns, **some)
        with pytest.raises(ValueError, match=r"sample_counts \[N, 6\]"):
            writer.append(*columns, **drawn(2, 6))
        few = good | {"sample_counts": good["sample_counts"].copy()}
        few["sample_counts"][1, 0] -= 1
        with pytest.raises(
            DataError, match="scored row 0: the sample counts of token 1 must add up to 6, got 5"
        ):
            writer.append(*columns, **few)
        for outside in (-1, VOCAB):
            bad = good | {"sample_ids": good["sample_ids"].copy()}
            bad["sample_ids"][2, 0] = outside
            with pytest.raises(DataError, match=f"a drawn id outside the vocabulary of 500: {outside}"):
                writer.append(*columns, **bad)
        assert len(writer) == 0


def test_audit_names_a_row_with_a_flipped_count(tmp_path):
    columns, samples = scores([3, 2, 4]), drawn(9, 60)
    with open_writer(tmp_path, samples=60) as writer:
        writer.append(*columns, **samples)
        path = writer.path
    content = bytearray(path.read_bytes())
    content[content.index(samples["sample_counts"][5].tobytes()) + 1] ^= 4
    path.write_bytes(content)
    assert open_store(tmp_path).audit() == [2]


@pytest.mark.parametrize("samples", [0, 5])
@pytest.mark.parametrize("cut", [1, 7, 64, 200, 777])
def test_a_torn_tail_is_ignored_by_readers_and_cut_off_by_the_next_writer(tmp_path, cut, samples):
    first, second = scores([3, 2], seed=1), scores([40], seed=2)
    more = drawn(40, samples) if samples else {}
    with open_writer(tmp_path, samples=samples) as writer:
        writer.append(*first, **{name: values[:5] for name, values in more.items()})
        whole = writer.path.stat().st_size
        writer.append(*second, **more)
        path = writer.path
    os.truncate(path, path.stat().st_size - cut)
    store = open_store(tmp_path)
    assert len(store) == 2
    assert store.torn_bytes == path.stat().st_size - whole
    with open_writer(tmp_path, samples=samples) as writer:
        assert writer.recovered_bytes == store.torn_bytes
        assert path.stat().st_size == whole
        assert writer.append(*second, **more) == 1
    assert len(open_store(tmp_path)) == 3
    assert open_store(tmp_path).torn_bytes == 0
    assert open_store(tmp_path).audit() == []


def test_zeros_after_a_power_failure_are_a_torn_tail_but_rubbish_is_damage(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.append(*scores([3]))
        path = writer.path
    good = path.read_bytes()
    path.write_bytes(good + bytes(4096))
    assert (len(open_store(tmp_path)), open_store(tmp_path).torn_bytes) == (1, 4096)
    path.write_bytes(good + b"rubbish that is no message")
    with pytest.raises(DataError, match=f"damaged at byte {len(good)}"):
        open_store(tmp_path)


def test_audit_names_a_row_with_a_flipped_bit(tmp_path):
    columns = scores([3, 2, 4])
    with open_writer(tmp_path) as writer:
        writer.append(*columns)
        path = writer.path
    assert open_store(tmp_path).audit() == []
    content = bytearray(path.read_bytes())
    content[content.index(columns[1][3:5].tobytes()) + 1] ^= 4
    path.write_bytes(content)
    assert open_store(tmp_path).audit() == [1]


def test_two_writers_exclude_each_other(tmp_path):
    with open_writer(tmp_path):
        with pytest.raises(DataError, match="another process is writing"):
            open_writer(tmp_path)
        other = _rust.TeacherWriter.open(tmp_path, "other", k=K, vocab_size=VOCAB, samples=0)
        other.close()
    open_writer(tmp_path).close()


def test_a_closed_writer_says_so(tmp_path):
    writer = open_writer(tmp_path)
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append(*scores([1]))


@pytest.mark.parametrize(
    "changes", [{"k": 5}, {"vocab_size": 501}, {"logprob_temperature": 2.0}, {"samples": 1}]
)
def test_other_settings_need_another_directory(tmp_path, changes):
    open_writer(tmp_path).close()
    with pytest.raises(DataError, match="use another directory"):
        open_writer(tmp_path, **changes)


def test_impossible_settings_and_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="k must be between 1 and"):
        open_writer(tmp_path, k=0)
    with open_writer(tmp_path) as writer:
        columns = scores([3])
        with pytest.raises(ValueError, match="append needs"):
            writer.append(*columns[:4], np.array([4]))
        with pytest.raises(ValueError, match="uint8"):
            writer.contains(np.zeros((1, 15), np.uint8))
        columns[2][1, 1] = np.nan
        with pytest.raises(DataError, match="log-probability must be at most 0: NaN"):
            writer.append(*columns)
        columns = scores([3])
        columns[1][0, 0] = VOCAB
        with pytest.raises(DataError, match="outside the vocabulary of 500: 500"):
            writer.append(*columns)
        assert len(writer) == 0


def test_unknown_keys_and_missing_stores(tmp_path):
    open_writer(tmp_path).close()
    with pytest.raises(KeyError):
        open_store(tmp_path).row(np.zeros(16, np.uint8))
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path / "none")


def test_a_full_disk_leaves_whole_rows_only(tmp_path):
    first, second = scores([3], seed=1), scores([2000], seed=2)
    with open_writer(tmp_path) as writer:
        writer.append(*first)
        size = writer.path.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, limits[1]))
        try:
            with pytest.raises(OSError, match=str(writer.path)):
                writer.append(*second)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert writer.path.stat().st_size == size
        assert writer.contains(second[0]).tolist() == [False]
        assert writer.append(*second) == 1
    assert len(open_store(tmp_path)) == 2
    assert open_store(tmp_path).audit() == []


APPEND_FOREVER = """
import pathlib, sys
import test_teacher_store as t
with t.open_writer(pathlib.Path(sys.argv[1]), samples=3) as writer:
    for seed in range(10**6):
        writer.append(*t.scores([50] * 4, seed=seed), **t.drawn(200, 3))
        print(seed, flush=True)
"""


@pytest.mark.slow
def test_kill_9_loses_no_row_that_was_stored(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path])}
    stored = -1
    for lines in (3, 11):
        with subprocess.Popen(
            [sys.executable, "-c", APPEND_FOREVER, str(tmp_path)], env=environment, stdout=subprocess.PIPE
        ) as process:
            for _ in range(lines):
                stored = max(stored, int(process.stdout.readline()))
            process.kill()
            stored = max([stored, *map(int, process.stdout.read().split())])
    store = open_store(tmp_path)
    assert len(store) >= 4 * (stored + 1)
    for seed in range(stored + 1):
        assert store.contains(scores([50] * 4, seed=seed)[0]).all()
    assert store.audit() == []
    with open_writer(tmp_path, samples=3) as writer:
        assert len(writer) == len(store)
