"""The answers of `bench/tool_calls.py`: BFCL's calls as a model writes them, and validators for them by everyone."""

from __future__ import annotations

import codecs
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fastjsonschema
import jsonschema_rs
import msgspec

from kdfast import ToolSchema
from kdfast._rust import Tokenizer
from kdfast.importers.bfcl import CALL_CATEGORIES, import_bfcl

OPENING, CLOSING = "<tool_call>", "</tool_call>"
PROSE = "I will look that up for you.\n"

Validate = Callable[[Any], bool]


@dataclass
class Answer:
    """One text with the validators of its tools, compiled by everyone."""

    text: str
    data: bytes
    ids: list[int]
    pieces: list[bytes]
    tokens: list[str]
    schema: ToolSchema
    jsonschema_rs: dict[str, Validate]
    fastjsonschema: dict[str, Validate]
    msgspec: dict[str, msgspec.json.Decoder[Any]]


def jsonschema_rs_validator(parameters: dict[str, Any]) -> Validate:
    """jsonschema-rs's question."""
    return jsonschema_rs.validator_for(parameters).is_valid


def fast_validator(parameters: dict[str, Any]) -> Validate:
    """fastjsonschema's compiled function, as a question."""
    check = fastjsonschema.compile(parameters, use_default=False)

    def is_valid(arguments: Any) -> bool:
        try:
            check(arguments)
        except fastjsonschema.JsonSchemaValueException:
            return False
        return True

    return is_valid


def python_type(schema: dict[str, Any]) -> Any:
    """The type that msgspec checks a value against: as much of the schema as types can say."""
    if enum := schema.get("enum"):
        return Literal[tuple(enum)] if all(type(value) in (str, int) for value in enum) else Any
    if (kind := schema.get("type")) == "array":
        return list[python_type(schema.get("items", {}))]  # type: ignore[misc]
    if kind == "object":
        return struct(schema) if "properties" in schema else dict[str, Any]
    return {"string": str, "integer": int, "number": float, "boolean": bool}.get(str(kind), Any)


def struct(schema: dict[str, Any]) -> type[msgspec.Struct]:
    """A struct for an object's schema."""
    required = set(schema.get("required", ()))
    fields = [
        (f"field_{index}", python_type(value))
        if name in required
        else (f"field_{index}", python_type(value) | msgspec.UnsetType, msgspec.UNSET)
        for index, (name, value) in enumerate(schema["properties"].items())
    ]
    fields.sort(key=len)
    names = {f"field_{index}": name for index, name in enumerate(schema["properties"])}
    return msgspec.defstruct("Arguments", fields, rename=names, gc=False)


def msgspec_decoder(parameters: dict[str, Any]) -> msgspec.json.Decoder[Any]:
    """Decodes and validates arguments."""
    whole = parameters.get("type") == "object" and "properties" in parameters
    return msgspec.json.Decoder(struct(parameters) if whole else dict[str, Any])


def written(calls: Sequence[dict[str, Any]], rng: random.Random) -> str:
    """The calls as a model writes them; sometimes one argument is missing."""
    calls = [{"name": call["name"], "arguments": dict(call["arguments"])} for call in calls]
    spoiled = rng.choice(calls)["arguments"]
    if spoiled and rng.random() < 0.25:
        del spoiled[rng.choice(list(spoiled))]
    bodies = (json.dumps(call, ensure_ascii=False) for call in calls)
    return PROSE + "\n".join(f"{OPENING}\n{body}\n{CLOSING}" for body in bodies)


def answers_of(wheel: Path, tokenizer: Tokenizer) -> list[Answer]:
    """All records that call a tool, in the order of the import.

    Everyone's validators are made apart from the others', as in a program that uses them alone: so nobody's lie
    scattered between the others' in memory.
    """
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        summary = import_bfcl(wheel, Path(folder), categories=CALL_CATEGORIES)
        lines = summary.train_path.read_text().splitlines()
        lines += summary.validation_path.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    functions = [[tool["function"] for tool in record["tools"]] for record in records]
    calls = [[call["function"] for call in record["truth_message"]["tool_calls"]] for record in records]
    texts = [written(each, rng) for each in calls]
    ids = [tokenizer.encode(text) for text in texts]
    pieces = [[tokenizer.token_bytes(token) for token in each] for each in ids]
    columns = [
        texts,
        [text.encode() for text in texts],
        ids,
        pieces,
        [decoded(each) for each in pieces],
        [ToolSchema(tools) for tools in functions],
        *(
            [{tool["name"]: make(tool["parameters"]) for tool in tools} for tools in functions]
            for make in (jsonschema_rs_validator, fast_validator, msgspec_decoder)
        ),
    ]
    return [Answer(*fields) for fields in zip(*columns, strict=True)]


def decoded(pieces: list[bytes]) -> list[str]:
    """The tokens' texts: a character that is cut comes with its last token."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(piece) for piece in pieces]
