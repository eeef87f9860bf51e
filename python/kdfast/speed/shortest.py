"""The length of the shortest right call to a prompt: no student can act earlier."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdfast._rust import Tokenizer, ToolCall, ToolCallStream, ToolSchema, find_tool_calls
from kdfast.config.choices import Thinking
from kdfast.scoring import FORMATS, Parameters, accepted_from_calls, match_calls

_LIST_OPENING = re.compile(r"(\[TOOL_CALLS\]\s*)?\[\s*$")

Accepted = Sequence[Mapping[str, Mapping[str, Any]]]


def shortest_call_tokens(
    reference: str,
    accepted: Accepted | None,
    tools: str,
    tokenizer: Tokenizer,
    formats: Sequence[str] = FORMATS,
    *,
    thinking_closing: str = "",
) -> int | None:
    """Number of tokens up to and including the one that completes the shortest right call.

    If the prompt opens a thinking block, what closes it is counted, and no thought.

    Two kinds of calls are tried:

    - each call of the reference, as it is written, if the reference is right;
    - each accepted call as compact JSON, in the reference's frame (`<tool_call>`), without optional arguments and, for
      each argument, with the accepted value that takes the fewest tokens.

    Args:
        reference: the right answer, or a teacher's; it shows which frame a call has.
        accepted: BFCL's accepted values, one `{function: {argument: [values]}}` per call; None = the reference's own.
        tools: the tool definitions as JSON text ("" = none).
        tokenizer: the student's tokenizer.
        formats: the call formats that count, see `kdfast.find_tool_calls`.
        thinking_closing: what closes the thinking block that the prompt opens; "" = it opens none.

    Returns:
        The number of tokens; None = the reference has no call, or none of the tried calls is valid.

    Raises:
        SchemaError: a tool's parameters are not a valid JSON Schema.
    """
    schema = ToolSchema(tools) if tools else None
    lengths = []
    thinking: Thinking = "open" if thinking_closing else "closed"
    calls = find_tool_calls(reference, formats, tools=schema, thinking=thinking)
    for text in _candidates(reference, calls, accepted, tools, tokenizer):
        stream = ToolCallStream(schema, formats, tokenizer, thinking=thinking)
        stream.feed_tokens(tokenizer.encode(thinking_closing + text))
        if stream.complete_at_token is not None:
            lengths.append(stream.complete_at_token + 1)
    return min(lengths, default=None)


def _candidates(
    reference: str, calls: list[ToolCall], accepted: Accepted | None, tools: str, tokenizer: Tokenizer
) -> Iterator[str]:
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
    """The part of the frame before the call's JSON, such as `<tool_call>`."""
    before = reference[: call.body[0]]
    if call.span[0] < call.body[0]:
        return before[call.span[0] :]
    in_list = _LIST_OPENING.search(before)
    return in_list[0] if in_list else ""


def _shortest(choices: Any, tokenizer: Tokenizer) -> Any:
    """The accepted value that takes the fewest tokens."""
    values = [_value(choice, tokenizer) for choice in _list(choices) if choice != ""]
    return min(values, key=lambda value: len(tokenizer.encode(_compact(value))), default="")


def _value(accepted: Any, tokenizer: Tokenizer) -> Any:
    """An accepted value as a call writes it. An accepted object has a list of values per key: take the shortest."""
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
