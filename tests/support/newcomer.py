"""A newcomer's folder: records as OpenAI's files have them, a tiny Qwen3, and the commands that are typed there."""

from __future__ import annotations

import contextlib
import csv
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from commands import Finished, run_command
from tiny import write_tokenizer

CITIES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
NO_THOUGHT = "<think>\n\n</think>\n\n"

TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- '# Tools\n<tools>' }}
    {%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}
    {{- '\n</tools><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.last %}{{- '<think>\n' + (message.reasoning_content or '') + '\n</think>\n\n' }}{%- endif %}
        {{- message.content or '' }}
        {%- for call in message.tool_calls or [] %}
            {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
            {%- if call.function.arguments is string %}{{- call.function.arguments }}
            {%- else %}{{- call.function.arguments | tojson }}{%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
"""


def record(number: int) -> dict[str, Any]:
    """A record as OpenAI's fine-tuning files have them: every fourth one answers without a call."""
    city = CITIES[number % len(CITIES)]
    question = f"What is the weather in {city} on day {number}?"
    messages = [{"role": "developer", "content": "Use the tool."}, {"role": "user", "content": question}]
    called = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    answer: dict[str, Any] = {"role": "assistant", "content": None}
    if number % 4 == 3:
        answer["content"] = f"{city} is lovely on every day."
    else:
        answer["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": called}]
    result: dict[str, Any] = {"messages": [*messages, answer], "tools": [TOOL]}
    if number == 2:
        result["metdata"] = {"id": 2}
    if number == 7:  # as before 2024
        call = {"role": "assistant", "content": None, "function_call": called}
        turns = [call, {"role": "function", "name": "get_weather", "content": "21 degrees"}]
        result["messages"] = [*messages, *turns, answer]
    if number == 9:
        messages[1]["role"] = "human"
        result["messages"] = [*messages, answer]
    return result


def write_model(directory: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    write_tokenizer(directory)
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["chat_template"] = TEMPLATE
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(7)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen3Config(
        vocab_size=512, max_position_embeddings=512, tie_word_embeddings=True, **sizes, **heads
    )
    Qwen3ForCausalLM(config).save_pretrained(directory)


@dataclass(frozen=True)
class Newcomer:
    """Types commands in a folder of his own."""

    folder: Path

    def types(self, line: str) -> Finished:
        with contextlib.chdir(self.folder):
            result = run_command(*shlex.split(line))
        assert "Traceback" not in result.stdout + result.stderr
        return result

    def does(self, line: str, code: int = 0) -> str:
        """A right command: what it printed."""
        result = self.types(line)
        assert (result.returncode, result.stderr) == (code, "")
        return result.stdout

    def errs(self, line: str, error: str) -> None:
        """A wrong turn: one line says what is wrong, and no file is changed or made."""
        before = self.files()
        result = self.types(line)
        assert (result.returncode, result.stderr) == (2, f"error: {error}\n")
        assert self.files() == before

    def files(self) -> dict[Path, bytes]:
        """All files, but for the token stores that kdfast keeps beside records."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in found if ".kdfast" not in path.parts}

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def write_folder(folder: Path) -> Newcomer:
    """Writes 41 records (`all.jsonl`; the last is the first once more), the same as one JSON array, and `model`."""
    write_model(folder / "model")
    records = [record(number) for number in range(40)]
    records.append(records[0])
    (folder / "all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    (folder / "all.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    return Newcomer(folder)
