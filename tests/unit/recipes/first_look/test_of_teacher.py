"""A first look at what `kdfast teach` needs when a teacher answers prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import write_tokenizer

from kdfast.config import Config, config_from_dict
from kdfast.errors import ConfigError, DataError, TeacherError
from kdfast.recipes.first_look.of_teacher import look_before_teaching


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_tokenizer(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Is it raining?"}\n')
    return tmp_path


def config(files: Path, **changes: Any) -> Config:
    values: dict[str, dict[str, Any]] = {
        "arch": {"init": str(files / "model")},
        "data": {"train": str(files / "out.jsonl"), "tokenizer": str(files / "model")},
        "teacher": {"kind": "api", "prompts": str(files / "prompts.jsonl"), "out": str(files / "out.jsonl")},
        "api": {"base_url": "http://127.0.0.1:1/v1", "model": "m"},
        "price": {"free": True},
        "io": {"run_dir": str(files / "run")},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        values[section][key] = value
    return config_from_dict(values)


def test_what_is_whole_passes_and_nothing_is_made(files: Path) -> None:
    look_before_teaching(config(files))
    look_before_teaching(
        config(files, teacher__kind="local", teacher__model=_model(files), teacher__store="s")
    )
    assert {path.name for path in files.iterdir()} == {"model", "prompts.jsonl"}


def test_a_replay_needs_a_journal(files: Path) -> None:
    with pytest.raises(ConfigError, match=r"^teacher\.journal: no such file"):
        look_before_teaching(config(files, teacher__kind="replay"))
    (files / "out.jsonl.db").touch()
    look_before_teaching(config(files, teacher__kind="replay"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"api__base_url": None}, "api.base_url: needed by teacher.kind 'api'"),
        ({"api__model": None}, "api.model: needed by teacher.kind 'api'"),
        ({"price__free": False}, "price: the teacher's price is not known"),
        ({"teacher__prompts": "nowhere"}, "teacher.prompts: no such file"),
        ({"teacher__prompts": None, "teacher__out": None}, "teacher.prompts: needed by teacher.kind 'api'"),
        ({"data__tokenizer": "nowhere"}, "data.tokenizer: no such file or directory"),
        ({"data__template": "nowhere.jinja"}, "data.template: no such file"),
        (
            {"api__base_url": "https://example.com/v1"},
            "teacher.terms: prompts leave this machine for example.com",
        ),
        ({"api__headers_from_env": {"x-key": "KDFAST_NOT_SET"}}, "KDFAST_NOT_SET"),
    ],
)
def test_what_is_missing_is_said_by_its_key(files: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        look_before_teaching(config(files, **changes))
    assert words in str(error.value)


def test_terms_are_not_asked_for_where_nothing_leaves(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "kd-0123456789")
    hosted = {"api__base_url": "https://example.com/v1"}
    look_before_teaching(config(files, **hosted, teacher__terms="acknowledged"))
    (files / "out.jsonl.db").touch()
    look_before_teaching(config(files, **hosted, teacher__kind="replay"))


def test_a_hosted_server_needs_a_key(files: Path) -> None:
    hosted = {"api__base_url": "https://example.com/v1", "teacher__terms": "acknowledged"}
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        look_before_teaching(config(files, **hosted))
    look_before_teaching(config(files, **hosted, api__key_from_env=None))


def test_all_mistakes_are_said_at_once(files: Path) -> None:
    wrong = {"teacher__prompts": "nowhere", "data__tokenizer": "nowhere", "data__template": "nowhere.jinja"}
    with pytest.raises(ConfigError) as error:
        look_before_teaching(config(files, **wrong))
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        "teacher.prompts",
        "data.tokenizer",
        "data.template",
    ]


def test_prompts_are_read_as_prompts(files: Path) -> None:
    path = files / "prompts.jsonl"
    path.write_text('{"prompt": "a", "teacher_text": "b"}\n')
    with pytest.raises(DataError, match="teacher_text belongs to an answer"):
        look_before_teaching(config(files))
    # a file that is longer than its head that is looked at
    path.write_text("".join(json.dumps({"prompt": f"{number} " * 500}) + "\n" for number in range(100)))
    look_before_teaching(config(files))


def test_a_local_teacher_must_be_a_model(files: Path) -> None:
    local = {"teacher__kind": "local", "teacher__store": "store"}
    with pytest.raises(TeacherError, match=r"^teacher\.model: no such file or directory"):
        look_before_teaching(config(files, **local, teacher__model="nowhere"))
    with pytest.raises(ConfigError, match=r"^data\.train: no such file"):
        look_before_teaching(config(files, **local, teacher__model=_model(files), data__train="other.jsonl"))


def _model(files: Path) -> str:
    (files / "model" / "config.json").write_text('{"model_type": "llama"}')
    return str(files / "model")
