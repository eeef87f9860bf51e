import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_store
from defaults import build_store
from tiny_store import build, call, user

from kdfast import _rust
from kdfast.errors import DataError


def again(directory, **options):
    tokenizer = _rust.Tokenizer.from_file(directory)
    return build_store(
        directory / "data.jsonl", directory / "cache", tokenizer, tiny_store.hermes(), **options
    )


def test_a_second_build_finds_the_first(tmp_path):
    store = build(tmp_path)
    report = again(tmp_path)
    assert (report.reused, report.path, report.records, report.rows) == (True, store.path, 5, 6)
    assert not again(tmp_path, prefix_tokens=3).reused
    assert not again(tmp_path, supervise="all").reused


def test_changed_data_is_another_store(tmp_path):
    first = build(tmp_path).path
    second = build(tmp_path, tiny_store.RECORDS[:2]).path
    assert first != second
    assert again(tmp_path).reused


def test_pyarrow_opens_it_with_every_buffer_aligned(tmp_path):
    store = build(tmp_path)
    with pa.memory_map(str(store.path)) as source:
        table = pa.ipc.open_stream(source).read_all()
        assert table.num_rows == len(store)
        assert table.schema.metadata[b"kdfast.kind"] == b"token_store"
        assert int(table.schema.metadata[b"kdfast.rows"]) == len(store)
        ids = table["ids"].to_pylist()
        addresses = [b.address for c in table["ids"].chunks for b in c.buffers() if b is not None]
    assert [store.row(index)["ids"].tolist() for index in range(len(store))] == ids
    assert all(address % 64 == 0 for address in addresses)


def test_threads_do_not_change_a_byte(tmp_path):
    records = [record | {"metadata": {"n": n}} for n in range(40) for record in tiny_store.RECORDS]
    one = build(tmp_path, records, threads=1).path
    first = one.read_bytes()
    one.unlink()
    assert again(tmp_path, threads=4).path.read_bytes() == first


def test_audit_names_a_row_with_a_flipped_bit(tmp_path):
    store = build(tmp_path)
    assert store.audit() == []
    content = bytearray(store.path.read_bytes())
    ids = store.row(2)["ids"].astype("<i4").tobytes()
    content[content.index(ids) + 4] ^= 1
    store.path.write_bytes(content)
    assert _rust.TokenStore.open(store.path).audit() == [2]


@pytest.mark.parametrize("cut", [1, 8, 9, 500])
def test_a_truncated_store_is_refused_with_the_remedy(tmp_path, cut):
    path = build(tmp_path).path
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match="build it again") as caught:
        _rust.TokenStore.open(path)
    assert caught.value.source == str(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not arrow at all", b"\xff\xff\xff\xff", b"\0" * 100])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="no kdfast store"):
        _rust.TokenStore.open(tmp_path / "x")


@pytest.mark.slow
def test_other_arrow_files_kinds_and_versions_are_told_apart(tmp_path):
    def write(metadata):
        schema = pa.schema([("a", pa.int32())], metadata=metadata)
        with pa.OSFile(str(tmp_path / "x"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(pa.record_batch([pa.array([1], pa.int32())], schema=schema))
        return tmp_path / "x"

    with pytest.raises(DataError, match="not one of kdfast's"):
        _rust.TokenStore.open(write({}))
    with pytest.raises(DataError, match="expected token_store, found teacher_store"):
        _rust.TokenStore.open(write({"kdfast.kind": "teacher_store", "kdfast.schema_version": "1"}))
    with pytest.raises(DataError, match=r"newer kdfast \(schema version 99"):
        _rust.TokenStore.open(write({"kdfast.kind": "token_store", "kdfast.schema_version": "99"}))
    with pytest.raises(DataError, match="columns"):
        _rust.TokenStore.open(write({"kdfast.kind": "token_store", "kdfast.schema_version": "1"}))


def test_missing_store_and_directory_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        _rust.TokenStore.open(tmp_path / "none")
    with pytest.raises(OSError, match=str(tmp_path)):
        _rust.TokenStore.open(tmp_path)


def test_a_row_out_of_range_names_the_limit(tmp_path):
    store = build(tmp_path)
    with pytest.raises(DataError, match="row must be below 6, got 6"):
        store.row(6)


def test_bad_lines_raise_or_go_to_quarantine_with_those_that_cannot_be_annotated(tmp_path):
    bad = {"prompt": "p", "teacher_text": "t", "teacher_attention_mask": [1] * 99}
    good = [{"prompt": f"p {n}", "teacher_text": "t"} for n in range(8)]
    build(tmp_path, good)
    path = tmp_path / "data.jsonl"
    lines = [json.dumps(record) for record in [*good[:3], bad, *good[3:]]] + ["{nope"]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="teacher_attention_mask") as caught:
        again(tmp_path)
    assert (caught.value.source, caught.value.line) == (str(path), 4)
    report = again(tmp_path, on_error="quarantine", max_rejected_fraction=0.5)
    assert (report.records, report.rows, report.rejected) == (8, 8, 2)
    assert (tmp_path / "data.jsonl.rejected.jsonl").read_text().splitlines() == [lines[3], lines[9]]
    assert again(tmp_path, on_error="quarantine", max_rejected_fraction=0.5).reused
    with pytest.raises(DataError, match="max_rejected_fraction"):
        again(tmp_path, on_error="quarantine", max_rejected_fraction=0.1)
    with pytest.raises(DataError, match="teacher_attention_mask"):
        again(tmp_path)


@pytest.mark.parametrize("option", [{"supervise": "some"}, {"on_error": "skip"}])
def test_unknown_options_name_what_is_allowed(tmp_path, option):
    build(tmp_path)
    with pytest.raises(ValueError, match=r"must be '.*' or '.*', got 's"):
        again(tmp_path, **option)


def test_a_cache_that_is_a_file_is_an_os_error(tmp_path):
    build(tmp_path)
    (tmp_path / "file").write_text("")
    tokenizer = _rust.Tokenizer.from_file(tmp_path)
    with pytest.raises(OSError, match="file"):
        build_store(tmp_path / "data.jsonl", tmp_path / "file", tokenizer, tiny_store.hermes())


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    build(tmp_path, tiny_store.RECORDS[:1])
    tiny_store.write_records(tmp_path / "data.jsonl", tiny_store.RECORDS * 50)
    before = set((tmp_path / "cache").glob("*.arrow"))
    with pytest.raises(OSError, match="arrow") as caught:
        _with_file_limit(20_000, lambda: again(tmp_path))
    assert caught.value.errno is not None
    assert set((tmp_path / "cache").glob("*.arrow")) == before
    assert not list((tmp_path / "cache").glob(".*.tmp"))


def _with_file_limit(size, work):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.slow
def test_a_killed_build_leaves_no_store(tmp_path):
    build(tmp_path, tiny_store.RECORDS[:1])
    before = {path.name for path in (tmp_path / "cache").glob("*.arrow")}
    records = [record | {"metadata": {"n": n}} for n in range(4000) for record in tiny_store.RECORDS]
    tiny_store.write_records(tmp_path / "data.jsonl", records)
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2])\n"
        "import test_token_store as t; print('go', flush=True); t.again(pathlib.Path(sys.argv[1]), threads=1)"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent), *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), folders[0]],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"go\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
    assert {path.name for path in (tmp_path / "cache").glob("*.arrow")} == before
    assert again(tmp_path).rows == 6 * 4000
    assert not list((tmp_path / "cache").glob(".*.tmp"))


def test_processes_that_need_the_same_store_share_one_build(tmp_path):
    build(tmp_path, tiny_store.RECORDS[:1])
    records = [record | {"metadata": {"n": n}} for n in range(300) for record in tiny_store.RECORDS]
    tiny_store.write_records(tmp_path / "data.jsonl", records)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: again(tmp_path, threads=1), range(4)))
    assert sorted(report.reused for report in reports) == [False, True, True, True]
    assert {report.rows for report in reports} == {1800}


def test_keys_change_with_tokens_supervision_and_teacher(tmp_path):
    records = [{"prompt": "p ", "teacher_text": "t"}, {"prompt": "p ", "teacher_text": "u"}]
    talk = {"messages": [user("a"), tiny_store.assistant("b"), user("c")], "teacher_text": "d"}
    last, every = build(tmp_path, [*records, talk]), build(tmp_path, [*records, talk], supervise="all")
    keys = last.row_keys("one")
    assert keys.shape == (3, 16)
    assert len(np.unique(keys, axis=0)) == 3
    assert not np.array_equal(keys, last.row_keys("two"))
    assert (every.row_keys("one") == keys).all(axis=1).tolist() == [True, True, False]
    assert np.array_equal(build(tmp_path, [talk, *records]).row_keys("one"), keys[[2, 0, 1]])


def test_metadata_tools_and_lines_are_kept_per_row(tmp_path):
    store = build(tmp_path)
    assert json.loads(store.metadata(1)) == {"id": "x"}
    assert json.loads(store.tools(0)) == tiny_store.TOOLS
    assert store.tools(2) is None
    assert [store.line(index) for index in range(6)] == [1, 2, 3, 4, 4, 5]
    assert store.header()["kdfast.turn_end_ids"] == "2"


def test_records_bring_their_own_log_probabilities(tmp_path):
    answer = "t"
    topk = {"ids": [[40, 41], [2, 40, 41]], "logprobs": [[-0.1, -3.0], [-5.0, -0.5, -1.5]]}
    store = build(
        tmp_path,
        [{"prompt": "p ", "teacher_text": answer, "teacher_topk": topk}, tiny_store.RECORDS[0]],
        record_k=2,
    )
    teacher = _rust.TeacherStore.open(store.record_teacher_path)
    assert (teacher.k, teacher.fingerprint, len(teacher)) == (2, "record", 1)
    row = teacher.row(store.row_keys("record")[0])
    assert row["topk_ids"].tolist() == [[40, 41], [40, 41]]
    mass = np.exp(row["topk_logp"]).sum(1) + np.exp(row["tail_logp"])
    assert np.allclose(mass, 1, atol=1e-6)
    assert np.allclose(np.exp(row["topk_logp"][1]), np.exp([-0.5, -1.5]), atol=2e-3)
    assert again(tmp_path, record_k=2).reused
    store.record_teacher_path.unlink()
    assert not again(tmp_path, record_k=2).reused
    assert build(tmp_path, tiny_store.RECORDS).record_teacher_path is None


@pytest.mark.parametrize(
    ("topk", "reason"),
    [
        ({"ids": [[1]], "logprobs": [[0.0], [0.0]]}, "lists of equal lengths"),
        ({"ids": [[1]] * 5, "logprobs": [[-1.0]] * 5}, r"one list a response token \(2, or 1 .*found 5"),
        (
            {"ids": [[1], [99999]], "logprobs": [[-1.0], [-1.0]]},
            "position 1 has an id outside the vocabulary",
        ),
        ({"ids": [[1], [2, 3]], "logprobs": [[-1.0], [-0.1, -0.2]]}, "position 1 .* sum to 1.72"),
    ],
)
def test_log_probabilities_that_cannot_be_are_refused(tmp_path, topk, reason):
    with pytest.raises(DataError, match=reason):
        build(tmp_path, [{"prompt": "p ", "teacher_text": "t", "teacher_topk": topk}])


def test_empty_lists_are_no_distribution(tmp_path):
    call_text = call(a=1, b=2)
    plain = build(tmp_path, [{"prompt": "p ", "teacher_text": call_text}]).row(0)
    topk = {
        "ids": [[5]] * (plain["response_length"] - 1),
        "logprobs": [[-0.1]] * (plain["response_length"] - 1),
    }
    store = build(tmp_path, [{"prompt": "p ", "teacher_text": call_text, "teacher_topk": topk}])
    teacher = _rust.TeacherStore.open(store.record_teacher_path)
    batch = _rust.collate(store, np.array([0]), len(plain["ids"]), 0, teacher, threads=0)
    known, targets = batch["teacher_topk_mask"][0], batch["response_mask"][0]
    assert known.sum() == targets.sum() - 1
    assert not known[len(plain["ids"]) - 2]
