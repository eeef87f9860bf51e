"""What is tried before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_llama
from tiny_run import write_teacher

from kdfast.errors import ConfigError
from kdfast.pretrained import check_readable, check_sizes, load_causal_lm, make_savable
from kdfast.recipes.train.trial_save import bytes_needed, check_room, checkpoint_bytes, try_saving
from kdfast.runs.folder import RunFolder
from kdfast.student import write_student


def writer(tokenizer: Path) -> Any:
    def write(model: Any, directory: Path, *, weights: bool = True) -> None:
        write_student(
            model, directory, tokenizer=tokenizer, chat_template="x", turn_end="<|im_end|>", weights=weights
        )

    return write


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return write_teacher(tmp_path / "model")


def load(folder: Path) -> Any:
    return load_causal_lm(folder, dtype=torch.float32, error=ConfigError, name="model")


def test_settings_that_cannot_be_saved_are_dropped_and_said(model_folder: Path, tmp_path: Path) -> None:
    settings = {"temperature": 0.6, "top_p": 0.9, "eos_token_id": 2, "transformers_version": "4.37.0"}
    (model_folder / "generation_config.json").write_text(json.dumps(settings))
    model = load(model_folder)
    model.generation_config.eos_token_id = (
        3  # as a student's is set; an unchanged one would only be warned about
    )
    with pytest.raises(ValueError, match="GenerationConfig"):
        model.save_pretrained(tmp_path / "lost")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    note = try_saving(model, torch.optim.AdamW(model.parameters()), run, writer(model_folder), keep_last=1)
    assert "all but its token ids is left out" in note
    assert "temperature" in note
    assert list(run.path.iterdir()) == []
    model.save_pretrained(tmp_path / "saved")
    assert model.generation_config.eos_token_id == 2  # the end of a turn
    assert make_savable(model) == ""


def test_what_transformers_would_not_read_is_refused(model_folder: Path) -> None:
    (model_folder / "generation_config.json").write_text("{")
    with pytest.raises(ConfigError, match="transformers would not read it again"):
        check_readable(model_folder, error=ConfigError, name="arch.init")


def test_a_large_model_is_tried_without_its_weights(model_folder: Path, tmp_path: Path) -> None:
    model, written = load(model_folder), []

    def write(student: Any, directory: Path, *, weights: bool = True) -> None:
        writer(model_folder)(student, directory, weights=weights)
        written.extend(file.name for file in directory.iterdir())

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    assert (
        try_saving(model, torch.optim.AdamW(model.parameters()), run, write, keep_last=1, whole_below=0) == ""
    )
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= set(written)
    assert "model.safetensors" not in written


def test_room() -> None:
    model = tiny_llama(seed=0, layers=1)
    frozen = model.get_input_embeddings()
    frozen.requires_grad_(False)
    weights = sum(p.numel() for p in model.parameters())
    trained = weights - frozen.weight.numel()
    assert checkpoint_bytes(model) == 4 * weights + 8 * trained
    assert bytes_needed(10, keep_last=3, there=0) == 50
    assert bytes_needed(10, keep_last=3, there=9) == 10
    check_room(10, 10, Path("x"))
    with pytest.raises(
        ConfigError, match=r"need about 2\.0 GB and the disk has 1\.0 GB free; lower train\.keep_last"
    ):
        check_room(2_000_000_000, 1_000_000_000, Path("x"))


def test_sizes_that_do_not_fit_have_both_numbers() -> None:
    config = tiny_llama(seed=0, layers=1).config
    rows, limit = config.vocab_size, config.max_position_embeddings
    check_sizes(config, ids=rows, longest=limit, error=ConfigError, name="model")
    with pytest.raises(ConfigError, match=rf"model: the tokenizer has {rows + 1} ids .* rows for {rows}"):
        check_sizes(config, ids=rows + 1, longest=1, error=ConfigError, name="model")
    with pytest.raises(ConfigError, match=rf"longest row has {limit + 1} tokens and the model reads {limit}"):
        check_sizes(config, ids=1, longest=limit + 1, error=ConfigError, name="model")
