"""What is asked of a local teacher: everything that decides an answer is in the hash, and is read without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import write_tokenizer
from transformers import GenerationConfig, LlamaConfig

from kdfast._rust import Tokenizer
from kdfast.config import Config, config_from_dict
from kdfast.errors import TeacherError
from kdfast.runs.student import weights_fingerprint
from kdfast.speed import model_eos_ids
from kdfast.teacher.api.reply import read_reply
from kdfast.teacher.api.usage import Usage, read_usage
from kdfast.teacher.local.requests import LocalSettings, local_reply, local_request, model_end_ids
from kdfast.teacher.prompts import Prompt

SETTINGS = LocalSettings(
    model="5eed",
    dtype="fp32",
    tokenizer="70c3",
    end_ids=(2, 258),
    max_tokens=64,
    temperature=0.5,
    seed=7,
    answers_per_prompt=3,
)
PROMPT = Prompt(source=Path("prompts.jsonl"), line=9, index=5, prompt="Hi")


def write_files(directory: Path, **files: object) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / f"{name}.json").write_text(text, encoding="utf-8")
    return directory


def config_of(model: Path, **teacher: object) -> Config:
    return config_from_dict(
        {
            "arch": {"init": "teacher"},
            "data": {"train": "answers.jsonl", "tokenizer": str(model)},
            "io": {"run_dir": "run"},
            "teacher": {"model": str(model), "store": "store", **teacher},
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"dtype": "bf16"},
        {"tokenizer": "other"},
        {"template": "7e3"},
        {"end_ids": (2,)},
        {"max_tokens": 65},
        {"temperature": 0.25},
        {"seed": 8},
    ],
)
def test_whatever_decides_an_answer_is_in_the_hash(change: dict[str, object]) -> None:
    before = local_request(PROMPT, 1, [5, 9], SETTINGS)
    assert local_request(PROMPT, 1, [5, 9], replace(SETTINGS, **change)).hash != before.hash


def test_what_does_not_decide_it_is_not_in_the_hash() -> None:
    before = local_request(PROMPT, 1, [5, 9], SETTINGS)
    other = Prompt(source=Path("other.jsonl"), line=1, index=0, prompt="the same tokens")
    after = local_request(other, 1, [5, 9], replace(SETTINGS, answers_per_prompt=2))
    assert (before.hash, before.order, after.order) == (after.hash, 5 * 3 + 1, 1)
    assert local_request(PROMPT, 2, [5, 9], SETTINGS).hash != before.hash
    assert local_request(PROMPT, 1, [9, 5], SETTINGS).hash != before.hash


def test_the_seed_decides_nothing_without_a_temperature() -> None:
    greedy = replace(SETTINGS, temperature=0.0)
    request = local_request(PROMPT, 0, [5, 9], greedy)
    assert request.hash == local_request(PROMPT, 0, [5, 9], replace(greedy, seed=8)).hash
    assert request.body == {
        "model": "5eed",
        "dtype": "fp32",
        "prompt": [5, 9],
        "max_tokens": 64,
        "temperature": 0.0,
        "stop": [2, 258],
    }


@pytest.mark.parametrize("cut", [False, True])
def test_a_reply_is_read_as_a_server_s_is(cut: bool) -> None:
    body = local_reply("5eed", 'Grüße <"> \n', [3, 4], cut=cut, prompt_tokens=7)
    document = json.loads(body)
    (answer,) = read_reply(document).answers
    assert (answer.text, answer.finish, answer.problem) == ('Grüße <"> \n', "length" if cut else "stop", "")
    assert read_reply(document).origin.model == "5eed"
    assert read_usage(document) == Usage(input_tokens=7, output_tokens=2)
    assert document["choices"][0]["token_ids"] == [3, 4]
    assert document["usage"]["total_tokens"] == 9


@pytest.mark.parametrize(
    ("generation", "model", "expected"),
    [
        ({"eos_token_id": [3, 1]}, {"eos_token_id": 2}, (3, 1)),
        ({"eos_token_id": 0}, {"eos_token_id": 2}, (0,)),
        ({"eos_token_id": None}, {"eos_token_id": 2}, (2,)),
        ({}, {"eos_token_id": [2]}, (2,)),
        (None, {"eos_token_id": 2}, (2,)),
        (None, {"eos_token_id": None}, ()),
    ],
)
def test_the_end_ids_are_those_that_transformers_reads(
    tmp_path: Path, generation: dict[str, object] | None, model: dict[str, object], expected: tuple[int, ...]
) -> None:
    files = {} if generation is None else {"generation_config": generation}
    write_files(tmp_path, config={"model_type": "llama", **model}, **files)
    assert model_end_ids(tmp_path) == expected

    class Loaded:
        config = LlamaConfig.from_pretrained(tmp_path)
        generation_config = GenerationConfig.from_pretrained(tmp_path) if generation is not None else None

    assert model_eos_ids(Loaded()) == expected  # type: ignore[arg-type]


def test_a_model_that_says_nothing_has_no_end_ids(tmp_path: Path) -> None:
    assert model_end_ids(write_files(tmp_path, config={"model_type": "llama"})) == ()


@pytest.mark.parametrize("ids", ["2", True, -1, 2.0, [2, None], {"id": 2}])
def test_end_ids_of_another_form_are_refused(tmp_path: Path, ids: object) -> None:
    write_files(tmp_path, config={}, generation_config={"eos_token_id": ids})
    with pytest.raises(TeacherError, match=r"^teacher.model: eos_token_id must be .*generation_config.json$"):
        model_end_ids(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"eos_token_id": 2', '{"eos_token_id": NaN}', "\x00"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    write_files(tmp_path, config={}, generation_config=text)
    with pytest.raises(
        TeacherError, match=r"no JSON object; fetch the model again: .*generation_config.json$"
    ):
        model_end_ids(tmp_path)
    with pytest.raises(TeacherError, match=r"^teacher.model: no such file or directory"):
        model_end_ids(tmp_path / "missing")


def test_the_settings_of_a_config(tmp_path: Path) -> None:
    model = write_files(tmp_path / "model", config={"eos_token_id": [300, 257]})
    write_tokenizer(model)
    config = config_of(model, max_new_tokens=9, temperature=1, seed=4, answers_per_prompt=2, dtype="bf16")
    settings = LocalSettings.of(config, model, [10, 258], template="7e3")
    assert settings == LocalSettings(
        model=weights_fingerprint(model),
        dtype="bf16",
        tokenizer=Tokenizer.from_file(model).fingerprint,
        end_ids=(257, 258, 300),  # a line break before the end of a turn ends nothing
        max_tokens=9,
        temperature=1.0,
        seed=4,
        answers_per_prompt=2,
        template="7e3",
    )
    assert type(settings.temperature) is float


@pytest.mark.slow
def test_a_replay_needs_no_torch() -> None:
    code = "import sys, kdfast.teacher.local.requests; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
