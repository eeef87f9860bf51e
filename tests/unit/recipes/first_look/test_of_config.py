"""A first look at the files of a config: each mistake is said by its key, before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny_run import write_records

from kdfast.config import Config, config_from_dict
from kdfast.errors import ConfigError, DataError, KdfastError, TeacherError
from kdfast.recipes.first_look.of_config import (
    look_before_estimating,
    look_before_preparing,
    look_before_training,
)
from kdfast.recipes.first_look.of_teacher import look_before_teaching

LOOKS = (look_before_training, look_before_teaching, look_before_preparing)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Records, and a teacher's directory without weights: nothing of them is read."""
    write_records(tmp_path / "train.jsonl", range(8))
    write_records(tmp_path / "validation.jsonl", range(8, 12))
    tiny.write_tokenizer(tmp_path / "teacher")
    (tmp_path / "teacher" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "0123.teacher.arrow").touch()
    return tmp_path


def config(files: Path, **changes: Any) -> Config:
    values: dict[str, dict[str, Any]] = {
        "arch": {"init": "teacher"},
        "data": {
            "train": str(files / "train.jsonl"),
            "validation": str(files / "validation.jsonl"),
            "tokenizer": str(files / "teacher"),
        },
        "teacher": {"model": str(files / "teacher"), "store": str(files / "store")},
        "gates": {},
        "kd": {},
        "io": {"run_dir": str(files / "run")},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        values[section][key] = None if value is None else str(value)
    return config_from_dict(values)


def test_good_files_pass(files: Path) -> None:
    for look in LOOKS:
        look(config(files))
    assert not (files / "run").exists()


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("data.train", "none.jsonl", "no such file (check the path): {}"),
        ("data.train", "store", "is a directory (name a file instead): {}"),
        ("data.validation", "none.jsonl", "no such file (check the path): {}"),
        ("data.tokenizer", "none", "no such file or directory (check the path): {}"),
        ("data.template", "none.jinja", "no such file (check the path): {}"),
        ("data.cache", "train.jsonl", "must be a folder, choose another path; this is a file: {}"),
    ],
)
def test_a_wrong_path_names_its_key(files: Path, key: str, name: str, message: str) -> None:
    wrong = config(files, **{key.replace(".", "__"): files / name})
    for look in LOOKS:
        with pytest.raises(ConfigError) as caught:
            look(wrong)
        assert str(caught.value) == f"{key}: {message.format(files / name)}"


def test_all_wrong_paths_are_said_at_once(files: Path) -> None:
    wrong = config(files, data__train="a.jsonl", data__tokenizer="t", gates__baseline="b.json")
    with pytest.raises(ConfigError) as caught:
        look_before_training(wrong)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "data.train",
        "data.tokenizer",
        "gates.baseline",
    ]


def test_a_key_of_a_file_is_said_with_its_place(files: Path) -> None:
    values = config(files).to_dict()
    placed = config_from_dict(values)
    object.__setattr__(placed, "origins", {"data.train": "run.yaml:7"})
    (files / "train.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"train.jsonl \(run.yaml:7\)$"):
        look_before_training(placed)


@pytest.mark.parametrize(
    ("key", "name", "error", "message"),
    [
        ("io.run_dir", "train.jsonl", ConfigError, "io.run_dir: must be a folder, choose another path"),
        ("io.run_dir", "train.jsonl/run", ConfigError, "io.run_dir: must be a folder, choose another path"),
        ("gates.baseline", "none.json", ConfigError, r"gates.baseline: no such file \(check the path\)"),
        ("gates.baseline", "teacher/config.json", DataError, "not a baseline: kind must be"),
        ("arch.init", "none", ConfigError, "arch.init: no such file or directory; give a Hugging Face"),
        ("arch.init", "store", ConfigError, "arch.init: no readable config.json"),
        ("teacher.model", "none", TeacherError, "teacher.model: no such file or directory; give a Hugging"),
        ("teacher.model", "none.gguf", TeacherError, r"teacher.model: no such file \(check the path\)"),
        ("teacher.model", "train.jsonl", TeacherError, "teacher.model: this is a file; give a Hugging Face"),
        ("teacher.store", "none", ConfigError, "teacher.store: holds nothing of this teacher.*kdfast teach"),
    ],
)
def test_what_training_reads_besides_the_data(
    files: Path, key: str, name: str, error: type[KdfastError], message: str
) -> None:
    with pytest.raises(error, match=message):
        look_before_training(config(files, **{key.replace(".", "__"): files / name}))


def test_without_a_teacher_the_store_must_be_one(files: Path) -> None:
    alone = {"teacher__model": None, "arch__init": files / "teacher"}
    look_before_training(config(files, **alone))
    with pytest.raises(ConfigError, match=r"teacher.store: no such file or directory \(check the path\)"):
        look_before_training(config(files, **alone, teacher__store=files / "none"))
    (files / "store" / "4567.teacher.arrow").touch()
    with pytest.raises(
        ConfigError, match=r"teacher.store: must be a teacher store, or .* exactly one, found 2"
    ):
        look_before_training(config(files, **alone))


def test_a_teacher_that_nothing_reads_is_not_looked_at(files: Path) -> None:
    unused = config_from_dict(
        {
            **config(files, teacher__model=files / "none", arch__init=files / "teacher").to_dict(),
            "kd": {"kl_weight": 0.0},
        }
    )
    look_before_training(unused)
    with pytest.raises(TeacherError):
        look_before_teaching(unused)


def test_a_live_teacher_is_looked_at_and_needs_no_store(files: Path) -> None:
    def live(**teacher: Path | None) -> Config:
        values = config(files, arch__init=files / "teacher").to_dict()
        values["teacher"] |= {"live": True} | {key: path and str(path) for key, path in teacher.items()}
        return config_from_dict(values)

    look_before_training(live(store=None))
    look_before_training(live(store=files / "none"))  # no term reads it
    with pytest.raises(TeacherError, match=r"^teacher.model: no such file or directory"):
        look_before_training(live(store=None, model=files / "none"))
    with pytest.raises(
        ConfigError, match=r"^teacher.store: needed by `kdfast teach`; .*teacher.live needs none"
    ):
        look_before_teaching(live(store=None))


def test_teaching_needs_a_teacher_and_a_place_for_its_answers(files: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher.model: needed by `kdfast teach`"):
        look_before_teaching(config(files, teacher__model=None, arch__init=files / "teacher"))
    with pytest.raises(ConfigError, match=r"teacher.store: must be a folder, choose another path"):
        look_before_teaching(config(files, teacher__store=files / "train.jsonl"))
    (files / "small.gguf").write_bytes(b"<html>")
    with pytest.raises(TeacherError, match=r"teacher.model: this is no GGUF file, fetch it again"):
        look_before_teaching(config(files, teacher__model=files / "small.gguf"))


def test_records_are_looked_at_as_the_config_says(files: Path) -> None:
    (files / "validation.jsonl").write_text(json.dumps([{"prompt": "a"}]), encoding="utf-8")
    for look in LOOKS:
        with pytest.raises(DataError, match=r"validation.jsonl: holds no JSON lines"):
            look(config(files))
    (files / "train.jsonl").write_text('no JSON\n{"prompt": "a", "teacher_text": "b"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"train.jsonl:1:"):
        look_before_training(config(files))
    write_records(files / "validation.jsonl", range(8, 12))
    look_before_training(config(files, data__on_error="quarantine"))


def test_the_estimate_reads_the_tokenizer_only_for_its_size(files: Path) -> None:
    missing = {"data": {"train": "t.jsonl", "tokenizer": "none"}, "io": {"run_dir": "run"}}
    sizes = {"d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8}
    look_before_estimating(config_from_dict({**missing, "arch": {**sizes, "vocab_size": 300}}))
    with pytest.raises(ConfigError, match=r"^data.tokenizer: no such file or directory"):
        look_before_estimating(config_from_dict({**missing, "arch": sizes}))
