"""What a recipe runs: the folder behind a name, the model, its prompts and hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_export import write_export
from tiny_run import TOOL, write_config

from kdfast.errors import ConfigError, DataError
from kdfast.recipes.loaded_model import LoadedModel, load
from kdfast.recipes.requests import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("loaded_model")
    write_config(directory)
    return directory


@pytest.fixture(scope="module")
def export(folder: Path) -> Path:
    return write_export(folder / "export", folder / "teacher")


def opened(
    folder: Path, *, leave_out_bad_tools: bool = False, model: Path | None = None, **changes
) -> LoadedModel:
    settings = {
        "prompts": folder / "validation.jsonl",
        "template": "hermes",
        "device": "cpu",
        "max_new_tokens": 7,
    }
    return load(
        model or folder / "teacher",
        Settings(**settings | changes),
        name="candidate",
        leave_out_bad_tools=leave_out_bad_tools,
    )


def test_a_model_with_its_prompts(folder: Path) -> None:
    loaded = opened(folder, limit=3, dtype="bf16")
    assert [prompt.line for prompt in loaded.prompts] == [1, 2, 3]
    assert json.loads(loaded.prompts[0].tools) == [TOOL]
    assert loaded.model is not None
    assert next(loaded.model.parameters()).dtype == torch.bfloat16
    assert not loaded.model.training
    assert loaded.export is None
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


def test_an_export_beside_the_model_that_it_is_of(folder: Path, export: Path) -> None:
    with opened(folder, limit=3) as loaded, opened(folder, model=export, limit=3, threads=1) as exported:
        assert exported.model is None
        assert exported.export is not None
        assert exported.prompts == loaded.prompts
        assert exported.options == loaded.options
        assert exported.runtime.context == loaded.runtime.context == 1024
        one, other = loaded.provenance(), exported.provenance()
        assert (one.export, other.export) == (False, True)
        assert (other.hardware.torch_threads, other.hardware.dtype) == (1, "gguf")
        assert one.hardware.key != other.hardware.key
        same = {"prompts", "truth", "dataset", "tokenizer", "template"}
        assert {name for name, value in one.fingerprints.items() if other.fingerprints[name] == value} == same
        gguf = export / "student-f32.gguf"
        assert other.fingerprints["model"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
        assert other.fingerprints["config"] == "c0" * 32  # of the run that was exported
        ids = loaded.tokenizer.encode(loaded.prompts[0].text)
        answers = []
        for side in (loaded, exported):
            side.engine.prefill(ids)
            answers.append([side.engine.next() for _ in range(7)])
        assert answers[0] == answers[1]
    with pytest.raises(RuntimeError, match="closed"):
        exported.engine.reset()


def test_an_export_without_the_runs_fingerprint_names_its_own_config(folder: Path, tmp_path: Path) -> None:
    model = write_export(tmp_path / "export", folder / "teacher", fingerprints={})
    with opened(folder, model=model, limit=1) as exported:
        expected = hashlib.sha256((model / "config.json").read_bytes()).hexdigest()
        assert exported.fingerprints["config"] == expected


def test_exports_that_are_not_what_was_exported(folder: Path, export: Path, tmp_path: Path) -> None:
    model = shutil.copytree(export, tmp_path / "export")
    content = (model / "student-f32.gguf").read_bytes()
    (model / "student-f32.gguf").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"student-f32\.gguf: not as it was exported"):
        opened(folder, model=model, limit=1)
    cut = write_export(tmp_path / "cut", folder / "teacher", files=[])
    (cut / "student-f32.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"student-f32\.gguf: llama.cpp cannot load the model"):
        opened(folder, model=cut, limit=1)


def test_an_export_must_fit_its_tokenizer_and_its_prompts(folder: Path, export: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation\.jsonl:1: the prompt has \d+ tokens.*: 1024$"):
        opened(folder, model=export, max_new_tokens=2000)
    model = shutil.copytree(export, tmp_path / "export")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab |= {f"<more{number}>": len(vocab) + number for number in range(40)}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        ConfigError, match=r"^candidate: the tokenizer has \d+ ids and student-f32\.gguf has rows"
    ):
        opened(folder, model=model, limit=1)
