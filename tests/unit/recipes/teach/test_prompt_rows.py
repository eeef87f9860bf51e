"""Prompts as training will see them: what it would refuse is refused before anything is paid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import write_tokenizer
from tiny_run import TOOL

from kdfast import KDDataset
from kdfast.config import DataConfig
from kdfast.data.token_rows import Reader
from kdfast.errors import DataError
from kdfast.recipes.teach.prompt_rows import prompt_rows
from kdfast.teacher.prompts import read_prompts

Write = Callable[..., tuple[Path, DataConfig]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def write(tmp_path: Path, tokenizer: Path) -> Write:
    def written(*lines: Any, **settings: Any) -> tuple[Path, DataConfig]:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(("" if line is None else json.dumps(line)) + "\n" for line in lines))
        return path, DataConfig(**{"train": path, "tokenizer": tokenizer, "shapes": (256,)} | settings)

    return written


def ask(text: str, **keys: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} | keys


def test_prompts_have_the_tokens_that_training_gives_them(write: Write) -> None:
    lines = [
        ask("Is it raining <|im_end|> in Oslo?", tools=[TOOL]),
        None,
        {"prompt": "Once upon"},
        ask("é東"),
    ]
    path, data = write(*lines)
    prompts = read_prompts(path, data)
    assert [(prompt.line, prompt.index) for prompt in prompts] == [(1, 0), (3, 1), (4, 2)]
    with prompt_rows(prompts, Reader.of(data), max_new_tokens=8) as rows:
        found = [rows.ids(prompt) for prompt in rows.prompts]
        ends = rows.turn_end_ids
    answered = path.with_name("answered.jsonl")
    answered.write_text("".join(json.dumps(line | {"truth_text": "Yes."}) + "\n" for line in lines if line))
    dataset = KDDataset(answered, data.tokenizer, shapes=data.shapes)
    assert found == [dataset.store.prompt_ids(row).tolist() for row in range(3)]
    assert ends == dataset.turn_end_ids


def test_what_cannot_be_learned_is_refused_with_its_line(write: Write) -> None:
    broken_tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "nothing"}}}
    path, data = write(ask("good"), None, ask("bad", tools=[broken_tool]), ask("long " * 400))
    prompts, reader = read_prompts(path, data), Reader.of(data)
    with pytest.raises(DataError) as error, prompt_rows(prompts, reader, 8):
        pass
    assert (error.value.source, error.value.line) == (str(path), 3)
    assert error.value.message.startswith("an answer to this prompt could not be learned (and 1 more): ")


def test_quarantine_leaves_out_what_cannot_be_learned(write: Write) -> None:
    path, data = write(ask("good"), ask("long " * 400), ask("also good"), on_error="quarantine")
    with prompt_rows(read_prompts(path, data), Reader.of(data), max_new_tokens=250) as rows:
        assert [prompt.line for prompt in rows.prompts] == [1, 3]
        assert list(rows.left_out) == [2]
        assert "does not fit the largest of data.shapes" in rows.left_out[2]
        assert rows.short_of_room == 2
    path, data = write(ask("long " * 400), on_error="quarantine")
    with (
        pytest.raises(DataError, match="could not be learned"),
        prompt_rows(read_prompts(path, data), Reader.of(data), 8),
    ):
        pass
