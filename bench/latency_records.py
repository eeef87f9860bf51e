"""The records, tokenizer and template of bench/latency_losses.py: synthetic tool calls, seeded."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Literal

Kind = Literal["base", "plain", "cut", "rambling"]

CITIES = [
    "Paris",
    "Rome",
    "Oslo",
    "Lima",
    "Cairo",
    "Quito",
    "Tokyo",
    "Delhi",
    "Bonn",
    "Turin",
    "Accra",
    "Dakar",
    "Minsk",
    "Riga",
    "Sofia",
    "Perth",
]
NAMES = [
    "Ann",
    "Ben",
    "Cem",
    "Dora",
    "Emil",
    "Finn",
    "Gita",
    "Hugo",
    "Ivan",
    "Jana",
    "Karl",
    "Lena",
    "Mia",
    "Noor",
    "Olga",
    "Pia",
]
MONEY = ["euros", "dollars", "pesos", "yen", "francs", "rupees", "kronor", "pounds"]
TOPICS = ["music", "lunch", "taxes", "travel", "sports", "garden", "homework", "paint"]
NUMBERS = range(2, 30)
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "get_weather": ('What is the weather in "{city}" for {days} days?', {"city": CITIES, "days": NUMBERS}),
    "find_train": ('Find a train from "{origin}" to "{target}".', {"origin": CITIES, "target": CITIES}),
    "book_room": ('Book a room for {people} people in "{city}".', {"people": NUMBERS, "city": CITIES}),
    "convert_money": ('How much is {amount} "{currency}"?', {"amount": NUMBERS, "currency": MONEY}),
    "set_alarm": ('Wake "{name}" at {hour}.', {"name": NAMES, "hour": NUMBERS}),
    "send_note": ('Write "{name}" a note about "{topic}".', {"name": NAMES, "topic": TOPICS}),
}
TALK = ("Do you like {topic}?", "Who is {name}?", "Tell me a story about {city}.")
UNKNOWN = ("something", "somebody", "anything", "anybody")
EXTRA = (" None of them fits.", " Please ask me something else.", " I am only a small model.")
STARTS = ("Okay", "First", "Next", "Then", "So")
FILLER = [
    "well",
    "maybe",
    "perhaps",
    "indeed",
    "certainly",
    "likely",
    "again",
    "still",
    "also",
    "rather",
    "quite",
    "surely",
    "now",
    "here",
    "there",
    "then",
]
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }} {% endfor %}<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def record(number: int, kind: Kind, *, held_out: bool = False) -> dict[str, Any]:
    """The record of this number: two calls due for each prompt that must not get one.

    - `plain`: the teacher calls, or refuses in one to four sentences. A prompt must not get a call when it is small
      talk, or when an argument is missing.
    - `cut`: the same, but 19 of 20 answers are cut somewhere (`finish_reason: length`).
    - `rambling`: none to five sentences of filler come before calls and refusals alike, and one due call of ten is
      refused.
    - `base`: what the students know before: to name tool and arguments in another format, half of the time after
      filler, half of the time after repeating the request; never an end of turn.
    """
    rng = random.Random(number)
    name = rng.choice(list(TOOLS))
    question, slots = TOOLS[name]
    values = {key: rng.choice(pool) for key, pool in slots.items()}
    due = rng.random() < 2 / 3
    offered = [name, *rng.sample([other for other in TOOLS if other != name], 2)]
    rng.shuffle(offered)
    asked = question.format(**values) if due else _no_call(rng, question, values)
    made = {
        "messages": [{"role": "user", "content": asked}],
        "tools": [_definition(tool) for tool in offered],
        "tool_should_be_used": due,
        "metadata": {"accepted": [{name: {key: [value] for key, value in values.items()}}] if due else []},
    }
    if kind == "base":
        known = f"{name} {json.dumps(values)}" if due else "none"
        filler = _ramble(rng) if rng.random() < 0.5 else ""
        repeated = f"{asked}\n" if rng.random() < 0.5 else ""
        return made | {"teacher_text": filler + repeated + known, "finish_reason": "length"}
    answer = f"<tool_call>\n{json.dumps({'name': name, 'arguments': values})}\n</tool_call>"
    rambling = kind == "rambling"
    forgotten = rambling and not held_out and rng.random() < 0.1
    if forgotten or not due:
        answer = "Sorry, I cannot do that." + "".join(EXTRA[: rng.randint(0, 3)])
    text = (_ramble(rng) if rambling else "") + answer
    if kind == "cut" and not held_out and rng.random() < 0.95:
        return made | {"teacher_text": text[: rng.randint(10, len(text) - 1)], "finish_reason": "length"}
    return made | {"teacher_text": text}


def _no_call(rng: random.Random, question: str, values: dict[str, Any]) -> str:
    """A prompt that must not get a call."""
    if rng.random() < 0.5:
        words = {"topic": rng.choice(TOPICS), "name": rng.choice(NAMES), "city": rng.choice(CITIES)}
        return rng.choice(TALK).format(**words)
    missing = rng.choice([key for key, value in values.items() if isinstance(value, str)])
    return question.replace(f'"{{{missing}}}"', rng.choice(UNKNOWN)).format(**values)


def _ramble(rng: random.Random) -> str:
    starts = STARTS[: rng.randint(0, len(STARTS))]
    return "".join(f"{start}, {' '.join(rng.choices(FILLER, k=rng.randint(2, 5)))}. " for start in starts)


def _definition(name: str) -> dict[str, Any]:
    """A tool as prompts carry it."""
    types = {True: "integer", False: "string"}
    arguments = {key: {"type": types[isinstance(pool, range)]} for key, pool in TOOLS[name][1].items()}
    parameters = {"type": "object", "properties": arguments, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def write_records(path: Path, first: int, rows: int, kind: Kind, *, held_out: bool = False) -> Path:
    """A JSONL file of `rows` records, numbered from `first`."""
    made = (record(number, kind, held_out=held_out) for number in range(first, first + rows))
    path.write_text("".join(json.dumps(each) + "\n" for each in made), encoding="utf-8")
    return path


def write_tokenizer(directory: Path) -> Path:
    """A byte-level BPE tokenizer that knows the records' words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    records = [record(number, "rambling") for number in range(2000)]
    texts = [f"{each['messages'][0]['content']}\n{each['teacher_text']}" for each in records]
    roles = f"system\nuser\nassistant\n{' '.join(TOOLS)} "
    tokenizer.train_from_iterator([*texts, *[roles] * 99], trainer)
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory
