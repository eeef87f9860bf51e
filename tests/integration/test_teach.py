"""`kdfast teach`: every row once, whatever happens in between."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pyarrow.ipc
import pytest
import torch
from commands import run_command, start_process, wait_until
from tiny_run import record, write_config, write_records
from transformers import AutoModelForCausalLM

from kdfast import KDDataset, collate_kd_batch, load_config
from kdfast.recipes.teach import run as teach
from kdfast.teacher import LocalTeacher
from kdfast.teacher.local.plan import plan_teaching


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, teacher__batch_tokens=600)


def stored(directory: Path) -> list[bytes]:
    """The keys in the one store of a directory, as pyarrow reads them."""
    (file,) = (directory / "store").glob("*.teacher.arrow")
    with pyarrow.memory_map(str(file)) as source:
        return pyarrow.ipc.open_stream(source).read_all()["key"].to_pylist()


def drawn(directory: Path) -> dict[bytes, list[tuple[list[int], list[int]]]]:
    """The drawn ids and their counts by key, as pyarrow reads them."""
    (file,) = (directory / "store").glob("*.teacher.arrow")
    with pyarrow.memory_map(str(file)) as source:
        table = pyarrow.ipc.open_stream(source).read_all()
    columns = (table[name].to_pylist() for name in ("key", "sample_ids", "sample_counts"))
    return {key: (ids, counts) for key, ids, counts in zip(*columns, strict=True)}


def test_every_row_is_scored_once(config: Path, tmp_path: Path) -> None:
    result = run_command("teach", config)
    assert result.returncode == 0, result.stderr
    assert "52 bytes a token" in result.stdout  # k = 8: 8 x 6 + 4
    keys = stored(tmp_path)
    assert len(keys) == len(set(keys)) == 69
    again = run_command("teach", config)
    assert "0 of them to be scored" in again.stdout
    assert stored(tmp_path) == keys


@pytest.mark.slow
@pytest.mark.parametrize("samples", [0, 16])
def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path: Path, samples: int) -> None:
    config = write_config(tmp_path, teacher__batch_tokens=600, teacher__samples=samples)
    process = start_process("teach", config, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    files = (tmp_path / "store").glob
    wait_until(lambda: any(file.stat().st_size > 20_000 for file in files("*.teacher.arrow")), process)
    process.kill()
    process.wait()
    (file,) = files("*.teacher.arrow")
    with file.open("ab") as torn:
        torn.write(b"\xff\xff\xff\xff\x10\x02\x00\x00half a batch")
    result = run_command("teach", config)
    assert result.returncode == 0, result.stderr
    assert "69 of them to be scored" not in result.stdout
    keys = stored(tmp_path)
    assert len(keys) == len(set(keys)) == 69
    if samples:
        # what was drawn before and after the kill is what a run in one piece, in other batches, draws
        other = [f"teacher.store={tmp_path / 'whole' / 'store'}", "teacher.batch_tokens=4000"]
        assert teach.run(load_config(config, other)) == 0
        assert drawn(tmp_path) == drawn(tmp_path / "whole")


def test_reordering_and_adding_records_scores_only_what_is_new(config: Path, tmp_path: Path) -> None:
    assert run_command("teach", config).returncode == 0
    lines = write_records(tmp_path / "train.jsonl", range(46)).read_text().splitlines()
    new = write_records(tmp_path / "more.jsonl", range(100, 102)).read_text().splitlines()
    assert [record(number).get("teacher_text") for number in (100, 101)] == ["I think of Rome.", None]
    (tmp_path / "train.jsonl").write_text("\n".join([*new, *reversed(lines)]) + "\n")
    result = run_command("teach", config)
    assert "3 of them to be scored" in result.stdout  # record 100 has two answers


def test_the_store_holds_what_the_model_says(config: Path, tmp_path: Path) -> None:
    assert run_command("teach", config, "teacher.demonstrations=2").returncode == 0
    settings = load_config(config, ["teacher.demonstrations=2"])
    data = KDDataset.from_config(settings.data, settings.data.train)
    teacher = LocalTeacher(tmp_path / "teacher", device="cpu")
    plan = plan_teaching(settings.teacher, teacher.fingerprint, data, data.tokenizer.vocab_size)
    assert len(plan.shown) == 2
    file = data.teacher_file(tmp_path / "store", plan.fingerprint)
    data.open_teacher(file)
    assert data.teacher is not None
    known = data.teacher.contains(data.keys(plan.fingerprint))
    assert sorted(np.flatnonzero(~known).tolist()) == sorted(plan.shown)  # a shown row would only be copied
    row = data[int(np.flatnonzero(known)[0])]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")
    ids = torch.cat([torch.tensor(plan.prefix_ids), row["input_ids"]])
    with torch.no_grad():
        logits = model(ids[None]).logits[0, len(plan.prefix_ids) :, : data.tokenizer.vocab_size]
    expected = torch.log_softmax(logits, 1)
    mask = row["teacher_topk_mask"]
    assert torch.equal(mask, row["response_mask"])
    picked = expected.gather(1, row["teacher_topk_ids"].long())[mask]
    torch.testing.assert_close(row["teacher_topk_logp"][mask], picked, atol=5e-3, rtol=0)
    # the answer's own token and the end of turn are always among the k
    for t in mask.nonzero().flatten().tolist():
        kept = row["teacher_topk_ids"][t].tolist()
        assert int(row["labels"][t]) in kept
        assert data.turn_end_ids[-1] in kept


def test_samples_reach_the_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, teacher__samples=400)
    settings = load_config(config)
    assert teach.run(settings) == 0
    assert f"{(8 + 400) * 6 + 4} bytes a token" in capsys.readouterr().out
    data = KDDataset.from_config(settings.data, settings.data.train)
    teacher = LocalTeacher(tmp_path / "teacher", device="cpu")
    usable = data.tokenizer.vocab_size
    plan = plan_teaching(settings.teacher, teacher.fingerprint, data, usable)
    data.open_teacher(data.teacher_file(tmp_path / "store", plan.fingerprint))
    rows = data.__getitems__(range(8))
    batch = collate_kd_batch(rows)
    mask, counts = batch["response_mask"], batch["teacher_sample_counts"]
    assert batch["teacher_sample_ids"].shape == (8, batch["input_ids"].shape[1], 400)
    assert (counts[mask].sum(1) == 400).all()
    assert not counts[~mask].any()
    assert not batch["teacher_sample_ids"][~mask].any()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[..., :usable]
    expected = torch.softmax(logits[mask].double(), 1)
    # over all tokens each id comes up as often as the model says, within 5 standard deviations
    total = torch.zeros(len(expected), usable, dtype=torch.float64)
    total.scatter_add_(1, batch["teacher_sample_ids"][mask].long(), counts[mask].double())
    deviation = (400 * expected * (1 - expected)).sum(0).sqrt()
    assert ((total.sum(0) - 400 * expected.sum(0)).abs() <= 5 * deviation).all()


def test_a_teacher_with_another_vocabulary_is_refused(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher" / "tokenizer.json"
    other = tmp_path / "other"
    other.mkdir()
    text = path.read_text(encoding="utf-8")
    swapped = text.replace('"a":', '"\u0001":').replace('"b":', '"a":').replace('"\u0001":', '"b":')
    (other / "tokenizer.json").write_text(swapped, encoding="utf-8")
    result = run_command("teach", config, f"data.tokenizer={other}")
    assert result.returncode == 2
    assert "first" in result.stderr or "id" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
