"""A real server answers, and a student learns: llama.cpp with SmolLM2-135M-Instruct on one thread."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import yaml
from commands import run_command
from llama_server import ask

from kdfast import _rust
from kdfast.config import DataConfig
from kdfast.data import KDDataset, collate_kd_batch
from kdfast.teacher.api.align import teacher_topk
from kdfast.teacher.api.journal import Journal

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
CALL = {
    "type": "object",
    "properties": {
        "name": {"const": "get_weather"},
        "arguments": {
            "type": "object",
            "properties": {
                "city": {"enum": list(tiny_run.CITIES)},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arguments"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "call", "schema": CALL}}
SAME_AGAIN = {"cache_prompt": False}  # what is in llama.cpp's cache changes the last bits
CALLS_DUE = [number for number in range(16) if number % 4 != 3][:10]


def question(number: int) -> Json:
    """A prompt that needs a call, and its right answer."""
    record = tiny_run.record(number)
    record.pop("teacher_text", None)
    return record


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """kdfast's template without the marks around a call: the server writes the bare object."""
    hermes = (ROOT / "python/kdfast/templates/hermes.jinja").read_text(encoding="utf-8")
    marked = "<tool_call>\\n", "\\n</tool_call>"
    assert all(mark in hermes for mark in marked)
    path = tmp_path / "bare.jinja"
    path.write_text(hermes.replace(marked[0], "").replace(marked[1], ""), encoding="utf-8")
    return path


def write_config(folder: Path, server: str, converted: Path, prompts: list[Json], **changes: Json) -> Path:
    """A config that teaches by the server and trains a student of 2 layers from scratch."""
    folder.mkdir(exist_ok=True)
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
    config: dict[str, Json] = {
        "arch": {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "tie_word_embeddings": True},
        "data": {
            "train": str(folder / "answers.jsonl"),
            "tokenizer": str(converted),
            "shapes": [256, 512],
            "threads": 1,
        },
        "teacher": {
            "kind": "api",
            "prompts": str(file),
            "out": str(folder / "answers.jsonl"),
            "max_new_tokens": 64,
        },
        "api": {
            "base_url": server,
            "model": "teacher",
            "key_from_env": None,
            "extra_body": SAME_AGAIN,
            "concurrency": 2,
        },
        # A token of a prompt is a millionth, one of an answer two: the cost is a whole number.
        "price": {"input": 1.0, "output": 2.0},
        "optimizer": {"warmup_steps": 0},
        "train": {
            "num_steps": 2,
            "micro_batch_size": 2,
            "device": "cpu",
            "threads": 1,
            "validate_every_steps": 0,
            "checkpoint_every_steps": 0,
            "eval_prompts": 0,
            "eval_irrelevance_prompts": 0,
        },
        # No truth: where the teacher is right, a record has one row, and it is the teacher's.
        "kd": {"kl_weight": 0.0, "ce_teacher_weight": 1.0, "ce_truth_weight": 0.0},
        "io": {"run_dir": str(folder / "run")},
    }
    for section, keys in changes.items():
        config[section] |= keys
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> None:
    done = run_command(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def records(config: Path) -> list[Json]:
    lines = (config.parent / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def replies(config: Path) -> list[Json]:
    """What came back, by the prompts' order."""
    with Journal(config.parent / "answers.jsonl.db", read_only=True) as journal:
        return [json.loads(answer.body) for answer in journal.all_answers()]


# ------------------------------------------------------------------ the server itself


def test_it_writes_the_object_of_the_schema_and_the_same_again(server: str) -> None:
    body = {
        "model": "teacher",
        "messages": question(0)["messages"],
        "temperature": 0,
        "max_tokens": 64,
        "response_format": RESPONSE_FORMAT,
        **SAME_AGAIN,
    }
    first, second = ask(server, "/chat/completions", body), ask(server, "/chat/completions", body)
    assert first["choices"] == second["choices"]
    assert first["usage"] == second["usage"]
    call = json.loads(first["choices"][0]["message"]["content"])
    assert call["name"] == "get_weather"
    assert _rust.ToolSchema([tiny_run.TOOL]).is_valid(json.dumps(call))


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_its_log_probabilities_are_those_of_the_converted_tokenizer(
    server: str, converted: Path, path: str
) -> None:
    tokenizer = _rust.Tokenizer.from_file(converted)
    words = "Which colours does a rainbow have?"
    chat = path == "/chat/completions"
    asked = {"messages": [{"role": "user", "content": words}], "logprobs": True, "top_logprobs": 5}
    raw = {"prompt": f"<|im_start|>user\n{words}<|im_end|>\n<|im_start|>assistant\n", "logprobs": 5}
    body = {"model": "teacher", "temperature": 0, "max_tokens": 24, **SAME_AGAIN, **(asked if chat else raw)}
    choice = ask(server, path, body)["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    topk, reason = teacher_topk(choice, text, tokenizer)
    assert topk is not None, reason
    for ids, logprobs, chosen in zip(topk["ids"], topk["logprobs"], tokenizer.encode(text), strict=True):
        assert len(ids) >= 5
        # At temperature 0 the drawn token is the likeliest.
        assert max(zip(logprobs, ids, strict=True))[1] == chosen
        assert 0 < sum(map(math.exp, logprobs)) <= 1 + 5e-3


# ------------------------------------------------------------------ `kdfast teach`


def test_calls_become_a_dataset_and_a_student(
    tmp_path: Path, server: str, converted: Path, bare: Path
) -> None:
    changes: dict[str, Json] = {
        "data": {"template": str(bare), "tool_call_format": "object"},
        "api": {"extra_body": SAME_AGAIN | {"response_format": RESPONSE_FORMAT}},
    }
    prompts = [question(number) for number in CALLS_DUE]
    config = write_config(tmp_path / "one", server, converted, prompts, **changes)
    run("teach", "--no-preflight", config)
    learned = records(config)
    assert len(learned) >= 8
    schema = _rust.ToolSchema([tiny_run.TOOL])
    for record in learned:
        (call,) = record["teacher_message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        assert schema.is_valid(json.dumps(call["function"]))

    usages = [reply["usage"] for reply in replies(config)]
    assert len(usages) == len(prompts)
    journal_file = config.parent / "answers.jsonl.db"
    with Journal(journal_file, read_only=True) as journal:
        money, stats = journal.money(), journal.stats()
    assert money.spent_micro == sum(
        usage["prompt_tokens"] + 2 * usage["completion_tokens"] for usage in usages
    )
    assert money.in_flight_micro == 0

    first = (config.parent / "answers.jsonl").read_bytes()
    run("teach", "--no-preflight", config)
    with Journal(journal_file, read_only=True) as journal:
        assert journal.stats() == stats, "a second run asks nothing"
    assert (config.parent / "answers.jsonl").read_bytes() == first
    run("journal", "verify", journal_file, "--dataset", config.parent / "answers.jsonl")

    other = write_config(tmp_path / "two", server, converted, prompts, **changes)
    run("teach", "--no-preflight", other)
    assert [reply["choices"] for reply in replies(other)] == [reply["choices"] for reply in replies(config)]
    assert [record["teacher_message"] for record in records(other)] == [
        record["teacher_message"] for record in learned
    ]

    run("train", config)
    assert (config.parent / "run/student/model.safetensors").exists()


def test_log_probabilities_of_plain_answers_reach_the_student(
    tmp_path: Path, server: str, converted: Path
) -> None:
    said = "What is the capital of Norway?", "Say hello.", "Is water wet? Answer yes or no."
    prompts: list[Json] = [{"messages": [{"role": "user", "content": text}]} for text in said]
    api = {"top_logprobs": 5, "extra_body": SAME_AGAIN | {"stop": ["\n"]}}
    config = write_config(tmp_path / "plain", server, converted, prompts, api=api, kd={"kl_weight": 0.5})
    run("teach", "--no-preflight", config)
    learned = [record for record in records(config) if "teacher_topk" in record]
    assert learned, "an answer that ends, with tokens as data.tokenizer makes them"
    data = KDDataset.from_config(
        DataConfig(train=config.parent / "answers.jsonl", tokenizer=converted, shapes=(512,)),
        config.parent / "answers.jsonl",
    )
    batch = collate_kd_batch(data.__getitems__(range(len(data))))
    known = batch["teacher_topk_mask"]
    assert int(known.sum()) == sum(len(record["teacher_topk"]["ids"]) for record in learned)
    best = batch["teacher_topk_logp"][known].argmax(1, keepdim=True)
    assert (batch["teacher_topk_ids"][known].gather(1, best)[:, 0] == batch["labels"][known]).all()
    run("train", config)
    steps = (config.parent / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(steps[0])["kl"] > 0
