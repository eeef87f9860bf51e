"""All that a small run needs: records, a tokenizer, a teacher of two layers, a config. It takes seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from tiny import write_tokenizer

CITIES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


def record(number: int) -> dict[str, Any]:
    """The record with this number. Three of four need a call; of these, one in five also has a teacher's answer."""
    rng = random.Random(number)
    city, days = rng.choice(CITIES), rng.randint(1, 9)
    question = f"What is the weather in {city} for {days} days, please" + " please" * rng.randint(0, 40)
    base: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "tools": [TOOL]}
    if number % 4 == 3:
        answer = {"role": "assistant", "content": f"Sorry, I cannot look up {city}."}
        return base | {"truth_message": answer, "tool_should_be_used": False, "metadata": {"id": number}}
    call = {"name": "get_weather", "arguments": {"city": city, "days": days}}
    truth = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}
    accepted = [{"get_weather": {"city": [city], "days": [days]}}]
    whole = base | {"truth_message": truth, "metadata": {"id": number, "accepted": accepted}}
    if number % 5 == 0:
        whole["teacher_text"] = f"I think of {city}."
    return whole


def write_records(path: Path, numbers: range) -> Path:
    """Writes the records with these numbers to a JSONL file."""
    path.write_text("".join(json.dumps(record(number)) + "\n" for number in numbers), encoding="utf-8")
    return path


def write_teacher(directory: Path) -> Path:
    """Writes a random Llama of two layers with the tiny tokenizer, as a Hugging Face directory."""
    from transformers import LlamaConfig, LlamaForCausalLM

    write_tokenizer(directory)
    vocab = len(json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=vocab + 16,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def write_config(directory: Path, **changes: Any) -> Path:
    """Writes all that a run needs into `directory`, and returns the config; `changes` are `section__key=value`."""
    config: dict[str, dict[str, Any]] = {
        "arch": {"init": "teacher"},
        "data": {
            "train": str(write_records(directory / "train.jsonl", range(48))),
            "validation": str(write_records(directory / "validation.jsonl", range(48, 60))),
            "tokenizer": str(write_teacher(directory / "teacher")),
            "shapes": [192, 256, 512],
            "threads": 1,
        },
        "teacher": {
            "model": str(directory / "teacher"),
            "store": str(directory / "store"),
            "k": 8,
            "device": "cpu",
        },
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2},
        "train": {
            "num_steps": 8,
            "micro_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "validate_every_steps": 4,
            "checkpoint_every_steps": 2,
            "device": "cpu",
            "threads": 1,
        },
        # With the latency losses, so that tests of runs also cover them and their average over steps.
        "kd": {"length_weight": 0.05, "early_tool_ce_weight": 0.01, "early_tool_prior_weight": 0.001},
        "io": {"run_dir": str(directory / "run")},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        config[section][key] = value
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
