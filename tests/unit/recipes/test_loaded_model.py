"""What a recipe runs: the folder behind a name, the model, its prompts and hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_run import TOOL, write_config

from kdfast.errors import DataError
from kdfast.recipes.loaded_model import LoadedModel, load
from kdfast.recipes.requests import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("loaded_model")
    write_config(directory)
    return directory


def opened(folder: Path, *, leave_out_bad_tools: bool = False, **changes) -> LoadedModel:
    settings = {
        "prompts": folder / "validation.jsonl",
        "template": "hermes",
        "device": "cpu",
        "max_new_tokens": 7,
    }
    return load(
        folder / "teacher",
        Settings(**settings | changes),
        name="candidate",
        leave_out_bad_tools=leave_out_bad_tools,
    )


def test_a_model_with_its_prompts(folder: Path) -> None:
    loaded = opened(folder, limit=3, dtype="bf16")
    assert [prompt.line for prompt in loaded.prompts] == [1, 2, 3]
    assert json.loads(loaded.prompts[0].tools) == [TOOL]
    assert next(loaded.model.parameters()).dtype == torch.bfloat16
    assert not loaded.model.training
    end = loaded.tokenizer.special_id("<|im_end|>")
    assert (loaded.options.max_new_tokens, loaded.options.warmup) == (7, 1)
    assert end in loaded.options.eos_ids


def test_hashes_and_machine(folder: Path) -> None:
    one, other = (opened(folder, limit=limit).provenance() for limit in (2, 3))
    known = {"prompts", "truth", "dataset", "model", "tokenizer", "template", "config"}
    assert set(one.fingerprints) == known
    differing = {name for name, value in one.fingerprints.items() if value != other.fingerprints[name]}
    assert differing == {"prompts", "truth"}
    assert (one.hardware.device, one.hardware.dtype, one.export) == ("cpu", "fp32", False)


def test_threads_are_set(folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert opened(folder, threads=1).provenance().hardware.torch_threads == 1
    finally:
        torch.set_num_threads(before)


def test_records_with_bad_tools_are_left_out_only_if_asked(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "validation.jsonl").read_text().splitlines()[:4]
    bad = json.loads(lines[1]) | {"tools": [{"name": "bad", "parameters": {"type": "dict"}}]}
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join([lines[0], json.dumps(bad), *lines[2:]]))
    with pytest.raises(DataError, match=r'prompts\.jsonl:2: tool "bad": parameters/type'):
        opened(folder, prompts=prompts)
    for _ in range(2):  # the second time, the token store is found
        loaded = opened(folder, prompts=prompts, leave_out_bad_tools=True, limit=2)
        assert [one.line for one in loaded.left_out] == [2]
        assert [prompt.line for prompt in loaded.prompts] == [1, 3]
        assert loaded.dataset.path == prompts
        assert loaded.dataset.store_paths[0].parent == tmp_path / ".kdfast"
    assert opened(folder, leave_out_bad_tools=True).left_out == ()


def test_a_prompt_that_is_too_long_names_its_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation\.jsonl:1: the prompt has \d+ tokens"):
        opened(folder, max_new_tokens=2000)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        opened(folder, prompts=tmp_path / "empty.jsonl")
