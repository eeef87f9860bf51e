"""A first look at a model and its prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from tiny_run import write_records

from kdfast.errors import ConfigError, DataError
from kdfast.recipes.first_look.of_model import check_model, check_prompts, model_folder


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
