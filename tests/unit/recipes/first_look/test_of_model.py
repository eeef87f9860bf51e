"""A first look at a model and its prompts."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
from tiny_run import write_records

from kdfast.errors import ConfigError, DataError
from kdfast.llama_cpp.library import load_library
from kdfast.recipes.first_look.of_model import (
    check_export_settings,
    check_model,
    check_not_failed,
    check_prompts,
    check_same_engine,
    check_unconstrained,
    export_of,
    export_warning,
    model_folder,
)
from kdfast.recipes.requests import ModelSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tiny.write_tokenizer(tmp_path / "model")
    (directory / "config.json").write_text("{}", encoding="utf-8")
    return directory


def test_the_folder_behind_a_name(model: Path, tmp_path: Path) -> None:
    assert model_folder(model) == model
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    with pytest.raises(ConfigError, match="blessed: this run has no student yet"):
        model_folder(run, name="blessed")
    (run / "student").mkdir()
    assert model_folder(run) == run / "student"
    with pytest.raises(ConfigError, match="candidate: no such directory"):
        model_folder(tmp_path / "none", name="candidate")


def test_a_model_has_a_config_and_a_tokenizer(model: Path) -> None:
    assert check_model(model) == model
    (model / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"^blessed: has no tokenizer.json; give a Hugging Face"):
        check_model(model, name="blessed")
    (model / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"^model: no readable config.json"):
        check_model(model)
    (model / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"^model: has no config.json, but a GGUF file; .*kdfast convert"):
        check_model(model)
    with pytest.raises(ConfigError, match=r"^model: this is a file; .*kdfast convert"):
        check_model(model / "small.gguf")


@pytest.fixture
def export(model: Path, tmp_path: Path) -> Path:
    """An export of which no weight is read."""
    folder = shutil.copytree(model, tmp_path / "export")
    (folder / "m.gguf").write_bytes(b"GGUF")
    manifest = {
        "schema_version": "1.0",
        "kind": "kdfast.export",
        "target": "gguf",
        "files": [{"file": "m.gguf", "bytes": 4}],
        "gguf": {"file": "m.gguf"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_an_export_is_a_model(model: Path, export: Path, tmp_path: Path) -> None:
    assert check_model(export) == model_folder(export) == export
    found = export_of(export)
    assert found is not None
    assert found.path == export
    assert export_of(model) is None
    with pytest.raises(
        ConfigError, match=f"^blessed: this is a file of an export; name the folder {export}: "
    ):
        check_model(export / "m.gguf", name="blessed")
    with pytest.raises(ConfigError, match=rf"^model: this folder holds exports; name one of them .*{export}"):
        check_model(tmp_path)


def test_a_run_with_exports_is_a_run(model: Path, export: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run / "student")
    shutil.copytree(export, run / "export" / "gguf")
    (run / "config.yaml").touch()
    assert check_model(run) == run / "student"
    assert export_of(run) is None
    assert export_of(run / "export" / "gguf") is not None


def test_an_export_for_hugging_face_is_a_model_directory(export: Path) -> None:
    (export / "m.gguf").unlink()
    manifest = {"schema_version": "1.0", "kind": "kdfast.export", "target": "hf"}
    (export / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert check_model(export) == export
    assert export_of(export) is None
    check_export_settings(export, ModelSettings(dtype="bf16"))


def test_an_export_whose_manifest_is_gone_says_so(export: Path) -> None:
    told = rf"^candidate: this folder has a \.gguf file and no manifest\.json.*kdfast export.*: {export}$"
    for content in (None, '{"kind": "web_app"}'):
        if content is None:
            (export / "manifest.json").unlink()
        else:
            (export / "manifest.json").write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=told):
            check_model(export, name="candidate")
    (export / "model.safetensors").touch()  # a model directory that also has a GGUF file
    assert check_model(export) == export


def with_parity(export: Path, target: str = "gguf", **statuses: str) -> Path:
    document = json.loads((export / "manifest.json").read_text())
    document |= {"target": target, "parity": {name: {"status": one} for name, one in statuses.items()}}
    (export / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return export


PASSED = dict.fromkeys(("weights", "logits", "prompt", "calls"), "passed")


def test_an_export_that_failed_is_refused_and_warned_of(model: Path, export: Path) -> None:
    for target in ("gguf", "hf"):
        with_parity(export, target, **PASSED | {"prompt": "failed", "calls": "failed"})
        told = rf"^blessed: this export differs from what was trained: prompt, calls; .*kdfast export.*: {export}$"
        with pytest.raises(ConfigError, match=told):
            check_not_failed(export, name="blessed")
        assert (
            export_warning(export)
            == "this export differs from what was trained: prompt, calls; do not ship it"
        )
    with_parity(export, **PASSED | {"prompt": "waived"})
    for fine in (export, model):
        check_not_failed(fine)
        assert export_warning(fine) is None


def test_an_export_that_was_not_compared_is_warned_of(export: Path) -> None:
    told = "this export was not compared with what was trained: "
    assert export_warning(export) == told + "weights, logits, prompt, calls"
    with_parity(export, **PASSED | {"logits": "not_measured"})
    check_not_failed(export)
    assert export_warning(export) == told + "logits"
    with_parity(export, "hf", **PASSED | {"logits": "not_measured", "calls": "not_measured"})
    assert export_warning(export) is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "m.gguf"])
def test_an_export_without_one_of_its_files(export: Path, name: str) -> None:
    (export / name).unlink()
    with pytest.raises((ConfigError, DataError), match=rf"{name}.*export again"):
        check_model(export)


def test_an_export_whose_file_is_no_gguf_or_cut(export: Path) -> None:
    (export / "m.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="no GGUF file"):
        check_model(export)
    (export / "m.gguf").write_bytes(b"GGU")
    with pytest.raises(DataError, match="not as it was exported"):
        check_model(export)


def test_what_an_export_cannot_do_is_refused(model: Path, export: Path) -> None:
    check_export_settings(export, ModelSettings(device="cpu"))
    with pytest.raises(ConfigError, match=r"^--device: an export runs on the CPU.*: cuda$"):
        check_export_settings(export, ModelSettings(device="cuda"))
    with pytest.raises(ConfigError, match=r"^--dtype: an export runs with the numbers of its file.*: bf16$"):
        check_export_settings(export, ModelSettings(dtype="bf16"))
    check_unconstrained(model)
    with pytest.raises(ConfigError, match=r"^--constrained: an export answers freely only"):
        check_unconstrained(export)


def test_an_export_and_a_model_in_pytorch_do_not_compare(model: Path, export: Path) -> None:
    check_same_engine(model, model)
    check_same_engine(export, export)
    with pytest.raises(
        ConfigError, match=f"^--blessed: the candidate model is an export.*kdfast export.*: {model}$"
    ):
        check_same_engine(export, model)
    with pytest.raises(ConfigError, match=f"^--candidate: the blessed model is an export.*: {model}$"):
        check_same_engine(model, export)


def test_missing_prompts_say_whose_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(ConfigError) as caught:
        check_prompts(path)
    assert str(caught.value) == f"--prompts: no such file (check the path): {path}"
    with pytest.raises(ConfigError) as caught:
        check_prompts(path, Path("runs/first"))
    assert str(caught.value) == (
        f"no such file (check the path): {path}, which is data.validation of the run runs/first; name another with "
        "--prompts"
    )
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="a Parquet table"):
        check_prompts(path)
    check_prompts(write_records(path, range(3)))


def test_an_export_without_llama_cpp_says_what_to_install(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_library.cache_clear()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    try:
        with pytest.raises(ConfigError, match=r"pip install 'kdfast\[export\]'"):
            check_model(export)
    finally:
        load_library.cache_clear()
