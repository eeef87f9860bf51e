"""The checks of the teacher's model, store and journal: each passes on a good project, and each catches its fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import journals
import numpy as np
import pytest
from preflight_objects import assert_only_fails, clean, look
from preflight_teacher import CHEAP, config, objects
from safetensors.numpy import load_file, save_file

from kdfast import _rust
from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.recipes.preflight.check import Finding
from kdfast.recipes.preflight.checks_answers import store_knows_the_rows
from kdfast.recipes.preflight.made.fake_store import made_up
from kdfast.recipes.preflight.made.objects import Objects
from kdfast.recipes.teach.plan import plan
from kdfast.recipes.train.live_teacher import shared_ids
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.local.plan import plan_teaching
from kdfast.teacher.local.teacher import model_fingerprint

ROWS = 56
"""Training rows: 48 records, 8 of which have an answer of the teacher besides the ground truth."""


def of_teacher(directory: Path) -> Config:
    made: Config = clean().get("config")
    return replace(
        made, teacher=replace(made.teacher, model=directory), arch=replace(made.arch, init="teacher")
    )


def with_teacher(made: Config) -> Objects:
    """The clean project's objects, with a teacher of its own."""
    kept = {name: clean().get(name) for name in (*CHEAP, "plan")}
    return clean().replaced(**{**kept, "config": made})


def copied(work: Path) -> Path:
    made: Config = clean().get("config")
    assert made.teacher.model is not None
    return Path(shutil.copytree(made.teacher.model, work / "teacher"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("local_model_is_read", "2 layers and 0.0 M numbers are there; of the 1024 tokens that it reads"),
        ("scores_some_rows", "M parameters scored"),
    ],
)
def test_a_whole_teacher_passes(name: str, text: str) -> None:
    found = look(f"teacher.{name}", clean())
    assert found.status == "pass", found
    assert text in found.text


def test_a_live_teacher_is_looked_at_too(tmp_path: Path) -> None:
    made = of_teacher(copied(tmp_path))
    live = with_teacher(replace(made, teacher=replace(made.teacher, store=None, live=True)))
    for name in ("local_model_is_read", "scores_some_rows"):
        assert look(f"teacher.{name}", live).status == "pass"


def cut_off(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def a_layer_less(directory: Path) -> None:
    file = directory / "model.safetensors"
    kept = {name: one for name, one in load_file(file).items() if ".layers.1." not in name}
    save_file(kept, file, {"format": "pt"})


def a_layer_too_many(directory: Path) -> None:
    set_key(directory, '"num_hidden_layers": 2', '"num_hidden_layers": 1')


def short_context(directory: Path) -> None:
    set_key(directory, '"max_position_embeddings": 1024', '"max_position_embeddings": 64')


def set_key(directory: Path, old: str, new: str) -> None:
    file = directory / "config.json"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (cut_off, "cannot be read"),
        (a_layer_less, "config.json says 2 layers, and the weights have 1 (0 to 0)"),
        (a_layer_too_many, "config.json says 1 layers, and the weights have 2 (0 to 1)"),
        (short_context, "the model reads 64 (max_position_embeddings)"),
    ],
)
def test_a_broken_teacher_is_found(tmp_path: Path, fault: Callable[[Path], None], text: str) -> None:
    directory = copied(tmp_path)
    fault(directory)
    found = assert_only_fails("teacher.local_model_is_read", with_teacher(of_teacher(directory)))
    assert text in found.text


def test_demonstrations_count_among_the_teachers_tokens(tmp_path: Path) -> None:
    directory = copied(tmp_path)
    longest = int(clean().get("train_rows").lengths.max())
    set_key(directory, '"max_position_embeddings": 1024', f'"max_position_embeddings": {longest + 9}')
    made = of_teacher(directory)
    assert look("teacher.local_model_is_read", with_teacher(made)).status == "pass"
    shown = replace(made, teacher=replace(made.teacher, demonstrations=4))
    assert look("teacher.local_model_is_read", with_teacher(shown)).status == "fail"


def test_prompts_count_among_the_teachers_tokens(tmp_path: Path) -> None:
    directory = copied(tmp_path)
    asked = config(tmp_path, kind="local", model=directory, max_new_tokens=1020)
    found = look("teacher.local_model_is_read", with_teacher(asked))
    assert found.status == "fail"
    assert "an answer of full length have" in found.text


def test_nan_weights_are_found(tmp_path: Path) -> None:
    directory = copied(tmp_path)
    file = directory / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"] = np.full_like(
        weights["model.layers.1.mlp.up_proj.weight"], np.nan
    )
    save_file(weights, file, {"format": "pt"})
    found = assert_only_fails("teacher.scores_some_rows", with_teacher(of_teacher(directory)))
    assert "gives NaN on these rows" in found.text


def test_a_teacher_that_is_too_large_is_not_loaded() -> None:
    small = replace(clean().get("machine"), memory_available=1000)
    kept = {name: clean().get(name) for name in CHEAP}
    found = look("teacher.scores_some_rows", clean().replaced(**{**kept, "machine": small}))
    assert found.status == "skip"
    assert "more than half of the 0.0 GB" in found.text


def test_a_gguf_file_is_not_converted_here(tmp_path: Path) -> None:
    made = with_teacher(of_teacher(tmp_path / "teacher.gguf"))
    for name in ("local_model_is_read", "scores_some_rows"):
        found = look(f"teacher.{name}", made)
        assert (found.status, "not converted yet" in found.text) == ("skip", True)


# The store


def write_store(made: Config, rows: Sequence[int], *, temperature: float = 1.0) -> Path:
    """Writes what `kdfast teach` would, with made-up numbers, for these training rows."""
    train: KDDataset = clean().get("train_rows")
    settings = made.teacher
    assert settings.model is not None
    assert settings.store is not None
    usable = shared_ids(made, settings.model)
    fingerprint = plan_teaching(settings, model_fingerprint(settings.model), train, usable).fingerprint
    keys = train.keys(fingerprint)
    with _rust.TeacherWriter.open(
        settings.store,
        fingerprint,
        k=settings.k,
        vocab_size=usable,
        samples=0,
        logprob_temperature=temperature,
    ) as writer:
        for row in rows:
            whole = train.store.row(int(train.rows[row]))
            ids = np.asarray(whole["ids"], dtype=np.int32)
            said = np.concatenate([ids[start:end] for start, end in whole["supervised"]])
            top, logp = made_up(said, k=settings.k, vocab=usable)
            tail = np.full(len(said), np.log(0.05), dtype=np.float32)
            writer.append(keys[row][None], top, logp, tail, np.array([len(said)], dtype=np.int64))
        return Path(writer.path)


def with_store(work: Path) -> Config:
    made: Config = clean().get("config")
    return replace(made, teacher=replace(made.teacher, store=work / "store"))


def whole_store(made: Config) -> Path:
    return write_store(made, range(len(clean().get("train_rows"))))


def look_at_store(made: Config) -> Finding:
    return look("teacher.store_knows_the_rows", with_teacher(made))


def test_a_whole_store_passes_and_one_that_is_not_written_is_skipped(tmp_path: Path) -> None:
    made = with_store(tmp_path)
    found = look_at_store(made)
    assert (found.status, found.text) == ("skip", "teacher.store is not written yet: kdfast teach writes it")
    whole_store(made)
    found = look_at_store(made)
    assert (found.status, found.text) == ("pass", f"{ROWS} of {ROWS} rows scored, 8 ids a token")


def test_demonstrations_are_not_missed_in_the_store(tmp_path: Path) -> None:
    made = with_store(tmp_path)
    made = replace(made, teacher=replace(made.teacher, demonstrations=4))
    assert made.teacher.model is not None
    shown = plan_teaching(
        made.teacher, "", clean().get("train_rows"), shared_ids(made, made.teacher.model)
    ).shown
    write_store(made, [row for row in range(ROWS) if row not in shown])
    found = look_at_store(made)
    assert (found.status, found.text) == (
        "pass",
        f"{ROWS - 4} of {ROWS - 4} rows scored, 8 ids a token; 4 demonstrations are not",
    )


def of_other_settings(made: Config) -> Config:
    whole_store(made)
    return replace(made, teacher=replace(made.teacher, k=9))


def of_other_temperature(made: Config) -> Config:
    write_store(made, [0], temperature=2.0)
    return made


def damaged(made: Config) -> Config:
    file = whole_store(made)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    return made


def truncated(made: Config) -> Config:
    file = whole_store(made)
    file.write_bytes(file.read_bytes()[:40])
    return made


def without_rows(made: Config) -> Config:
    write_store(made, [])
    return made


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (of_other_settings, "holds nothing of this teacher and these settings"),
        (of_other_temperature, "are of the temperature 2.0, and kd.temperature is 1.0"),
        (damaged, "damaged"),
        (truncated, "store"),
        (without_rows, f"0 of {ROWS} rows scored"),
    ],
)
def test_a_store_that_does_not_fit_fails(
    tmp_path: Path, fault: Callable[[Config], Config], text: str
) -> None:
    found = look_at_store(fault(with_store(tmp_path)))
    assert found.status == "fail", found
    assert text in found.text


def test_rows_that_are_not_scored_are_counted(tmp_path: Path) -> None:
    made = with_store(tmp_path)
    write_store(made, range(30))
    found = look_at_store(made)
    assert found.status == "warn"
    assert found.text == f"30 of {ROWS} rows scored: the others are trained without the teacher"
    assert "kdfast teach" in found.remedy


def test_the_temperature_of_a_store_to_come_is_known(tmp_path: Path) -> None:
    made = with_store(tmp_path)
    made = replace(made, kd=replace(made.kd, temperature=2.0))
    rows, sample = clean().get("train_rows"), clean().get("sample")
    found = store_knows_the_rows(made, rows, sample)
    assert found.status == "fail"
    assert "kdfast teach writes log-probabilities of the temperature 1.0" in found.text


def test_without_a_loss_that_reads_it_no_store_is_looked_at(tmp_path: Path) -> None:
    made = with_store(tmp_path)
    made = replace(made, kd=replace(made.kd, kl_weight=0.0))
    assert store_knows_the_rows(made, clean().get("train_rows"), clean().get("sample")).status == "skip"


# The journal


def replay(work: Path, answered: int) -> Config:
    """A replay of a journal that answers so many of the prompts, and one other."""
    made = config(work, kind="replay")
    files = made.teacher.files
    assert files is not None
    asked = plan(made, files).asked
    with Journal(files.journal) as journal:
        for one in asked[:answered]:
            journals.answered(journal, one.request)
        journals.answered(journal, journals.request(99))
    return made


@pytest.mark.parametrize(
    ("answered", "status", "text"),
    [
        (8, "pass", "the journal answers 8 of 8 requests"),
        (3, "warn", "the journal answers 3 of 8 requests: the others are left out"),
        (0, "fail", "the journal answers 0 of 8 requests, and holds 1 other answers"),
    ],
)
def test_a_replay_counts_what_the_journal_answers(
    tmp_path: Path, answered: int, status: str, text: str
) -> None:
    found = look("teacher.journal_is_read", objects(replay(tmp_path, answered)))
    assert (found.status, found.text) == (status, text)


def test_only_the_journal_of_a_replay_is_wrong(tmp_path: Path) -> None:
    made = replay(tmp_path, 0)
    assert_only_fails("teacher.journal_is_read", objects(made))


def test_a_file_that_is_no_journal_is_found(tmp_path: Path) -> None:
    made = config(tmp_path)
    files = made.teacher.files
    assert files is not None
    assert look("teacher.journal_is_read", objects(made)).status == "skip"
    files.journal.write_text("no journal", encoding="utf-8")
    found = look("teacher.journal_is_read", objects(made))
    assert found.status == "fail"
    assert "not a journal" in found.text


def test_a_replay_needs_its_journal(tmp_path: Path) -> None:
    found = look("teacher.journal_is_read", objects(config(tmp_path, kind="replay")))
    assert found.status == "fail"
    assert "there is no journal to replay" in found.text


def test_no_journal_is_read_without_prompts() -> None:
    assert look("teacher.journal_is_read", clean()).status == "skip"
