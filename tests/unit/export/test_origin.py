"""What an export says of its source, teacher and data, and that it says neither paths nor addresses nor keys."""

import hashlib
import json

import made_run
import pytest
from tiny_models import TEMPLATE, write_model

from kdfast._rust import Tokenizer
from kdfast.config import config_from_dict
from kdfast.errors import DataError
from kdfast.export.origin import data_of, fingerprints_of, public_name, source_of, teacher_of
from kdfast.runs.student import weights_fingerprint


def config(**changes):
    return config_from_dict(made_run.config(**changes))


def test_a_run_is_told_by_name_and_step(tmp_path):
    run = made_run.write_run(tmp_path / "secret" / "first")
    student = run / "student"
    student.mkdir()
    origin = {
        "step": 24,
        "final": "last",
        "ended": "num_steps",
        "qat": "done",
        "format": "q4_0",
        "home": "/root",
    }
    (student / "kdfast.json").write_text(json.dumps(origin))
    told = {"final": "last", "ended": "num_steps", "qat": "done", "format": "q4_0"}
    assert source_of(run, student) == {"kind": "run", "name": "first", "step": 24, **told}


def test_a_plain_model_has_no_step(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    assert source_of(tmp_path / "model", tmp_path / "model") == {"kind": "model", "name": "model"}
    monkeypatch.chdir(tmp_path / "model")
    assert public_name(".") == "model"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not readable JSON"),
        ("[]", "must be an object"),
        ('{"step": "4"}', "step must be a number"),
        ('{"final": 3}', "final must be a text"),
    ],
)
def test_a_damaged_origin_is_refused(tmp_path, text, said):
    (tmp_path / "kdfast.json").write_text(text)
    with pytest.raises(DataError, match=f"kdfast.json.*{said}.*save the student again"):
        source_of(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/ada/teacher", "teacher"),
        ("models/teacher.gguf", "teacher.gguf"),
        ("C:\\models\\teacher", "teacher"),
        ("/x/hub/models--org--small--v2/snapshots/abc", "org/small--v2"),
    ],
)
def test_names_have_no_places(path, name):
    assert public_name(path) == name


def test_teachers_are_told_without_paths_addresses_or_keys():
    local = config(teacher__model="/home/ada/teacher", teacher__store="/home/ada/store")
    assert teacher_of(local) == {
        "kind": "local",
        "model": "teacher",
        "gives": ["log-probabilities"],
        "terms": "not stated",
    }
    hosted = config(
        teacher__kind="api",
        teacher__terms="acknowledged",
        api__base_url="https://example.com/v1",
        api__model="org/big-model:free",
        api__key_from_env="MY_KEY",
    )
    assert teacher_of(hosted) == {
        "kind": "api",
        "model": "org/big-model:free",
        "hosted": True,
        "terms": "acknowledged",
    }
    own = config(teacher__kind="api", api__base_url="http://127.0.0.1:1/v1", api__model="/models/big/v3")
    assert teacher_of(own) == {"kind": "api", "model": "v3", "hosted": False, "terms": "not stated"}
    assert teacher_of(config()) == {"kind": "none", "terms": "not stated"}
    assert teacher_of(None) == {"kind": "unknown", "terms": "not stated"}


def test_data_is_told_by_name_rows_and_hash(tmp_path):
    train, more = tmp_path / "train.jsonl", tmp_path / "more.jsonl"
    train.write_bytes(b'{"a": 1}\n\n{"a": 2}')
    more.write_bytes(b"{}\n")
    held_out = str(tmp_path / "gone.jsonl")
    found = data_of(config(data__train=[str(train), str(more)], data__validation=held_out))
    assert found == {
        "train": [
            {"file": "train.jsonl", "rows": 2, "sha256": hashlib.sha256(train.read_bytes()).hexdigest()},
            {"file": "more.jsonl", "rows": 1, "sha256": hashlib.sha256(b"{}\n").hexdigest()},
        ],
        "validation": [{"file": "gone.jsonl"}],
    }
    assert (
        data_of(config(data__train=str(train), data__validation=None, train__eval_prompts=0))["validation"]
        == []
    )
    assert data_of(None) == {}


def test_fingerprints_are_those_of_reports(tmp_path):
    directory = write_model(tmp_path / "model", layers=1)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    run = config()
    found = fingerprints_of(directory, run, dataset="ab" * 32)
    assert found == {
        "dataset": "ab" * 32,
        "tokenizer": Tokenizer.from_file(directory / "tokenizer.json").fingerprint,
        "template": hashlib.sha256(TEMPLATE.encode()).hexdigest(),
        "model": weights_fingerprint(directory),
        "config": run.fingerprint(),
    }
    (directory / "chat_template.jinja").unlink()
    plain = fingerprints_of(directory, None)
    assert plain.keys() == {"tokenizer", "model", "config"}
    assert plain["config"] == hashlib.sha256((directory / "config.json").read_bytes()).hexdigest()
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert fingerprints_of(directory, None)["template"] == found["template"]
    (directory / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config.json: not readable JSON"):
        fingerprints_of(directory, None)
