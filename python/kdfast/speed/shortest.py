"""The length of the shortest right call to a prompt: what no student can be faster than."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdfast._rust import Tokenizer, ToolCall, ToolCallStream, ToolSchema, find_tool_calls
from kdfast.scoring import FORMATS, Parameters, accepted_from_calls, match_calls

_LIST_OPENING = re.compile(r"(\[TOOL_CALLS\]\s*)?\[\s*$")

Accepted = Sequence[Mapping[str, Mapping[str, Any]]]


def shortest_call_tokens(
    reference: str,
    accepted: Accepted | None,
    tools: str,
    tokenizer: Tokenizer,
    formats: Sequence[str] = FORMATS,
) -> int | None:
    """Tokens up to and with the one that completes the shortest right call.

    The shortest of: each call of the reference as it stands (where it is right), and, in the same frame, each accepted
    call as compact JSON, without its optional arguments and with the value of each argument that takes the fewest
    tokens.

    Args:
        reference: the right answer, or a teacher's: it shows the frame that calls stand in.
        accepted: BFCL's accepted values, one `{function: {argument: [values]}}` a call; None = the reference's own.
        tools: the tool definitions as JSON text ("" = none).
        tokenizer: the student's.
        formats: call formats that count, see `kdfast.find_tool_calls`.

    Returns:
        None where nothing right is known: no call in the reference, or none that is valid.

    Raises:
        SchemaError: a tool's parameters are no valid JSON Schema.
    """
    schema = ToolSchema(tools) if tools else None
    lengths = []
    for text in _candidates(reference, accepted, tools, tokenizer, formats):
        stream = ToolCallStream(schema, formats, tokenizer)
        stream.feed_tokens(tokenizer.encode(text))
        if stream.complete_at_token is not None:
            lengths.append(stream.complete_at_token + 1)
    return min(lengths, default=None)


def _candidates(
    reference: str, accepted: Accepted | None, tools: str, tokenizer: Tokenizer, formats: Sequence[str]
) -> Iterator[str]:
    calls = find_tool_calls(reference, formats)
    if not calls:
        return
    made = [(call.name, call.arguments) for call in calls]
    definitions = [tool.get("function", tool) for tool in json.loads(tools or "[]")]
    accepted = accepted_from_calls(made) if accepted is None else accepted
    if match_calls(made, accepted, definitions) is None:
        for call in calls:
            yield _opening(reference, call) + reference[call.body[0] : call.body[1]]
    required = {tool["name"]: Parameters(tool).required for tool in definitions}
    for truth in accepted:
        for name, values in truth.items():
            arguments = {
                key: _shortest(choices, tokenizer)
                for key, choices in values.items()
                if "" not in choices or key in required.get(name, ())
            }
            yield _opening(reference, calls[0]).strip() + _compact({"name": name, "arguments": arguments})


def _opening(reference: str, call: ToolCall) -> str:
    """What stands before a call in its frame."""
    before = reference[: call.body[0]]
    if call.span[0] < call.body[0]:
        return before[call.span[0] :]
    in_list = _LIST_OPENING.search(before)
    return in_list[0] if in_list else ""


def _shortest(choices: Any, tokenizer: Tokenizer) -> Any:
    """The value of the fewest tokens among accepted ones."""
    values = [_value(choice, tokenizer) for choice in _list(choices) if choice != ""]
    return min(values, key=lambda value: len(tokenizer.encode(_compact(value))), default="")


def _value(accepted: Any, tokenizer: Tokenizer) -> Any:
    """An accepted value as a call would give it: objects hold a list of accepted values for each key."""
    if isinstance(accepted, dict):
        return {
            key: _shortest(choices, tokenizer)
            for key, choices in accepted.items()
            if "" not in _list(choices)
        }
    if isinstance(accepted, list):
        return [_value(entry, tokenizer) if isinstance(entry, dict) else entry for entry in accepted]
    return accepted


def _list(choices: Any) -> list[Any]:
    return choices if isinstance(choices, list) else [choices]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
