"""The answer to a BFCL record: tool calls from the ground truth, or a refusal in plain words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from kdfast.errors import DataError
from kdfast.importers.bfcl_schema import conforms

_MISSING = object()

_REFUSALS = (
    "None of the available tools ({tools}) can do this, so I am not making a call.",
    "I cannot do this with the tools at hand: {tools} cannot answer the request.",
    "This needs a tool that I do not have. Available: {tools}, which does not fit the request.",
    "No call made: the request is outside what {tools} can do.",
)
_NAMED_TOOLS = 3


class BrokenTruthError(ValueError):
    """A ground truth that breaks its own tool definition. The message is the reason under which it is counted."""


def ground_truth_calls(
    ground_truth: Sequence[dict[str, dict[str, Any]]], schemas: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The calls that BFCL's `ground_truth` asks for, as `{"name", "arguments"}`, in its order.

    Each argument gets its first accepted value that is not empty and that its schema allows. An accepted `""`
    marks the argument as optional: it is left out, unless the schema requires it. An object inside an argument has
    accepted values per key, one level deep; they are chosen in the same way.

    Args:
        ground_truth: one `{function name: {argument: [accepted values]}}` per call.
        schemas: the JSON Schema of each function's parameters, by function name.

    Raises:
        BrokenTruthError: a call names a function that is not in `schemas`, or no choice of accepted values
            satisfies the schema.

    Example:
        >>> schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        >>> ground_truth_calls([{"f": {"n": [3, 4], "unit": ["cm", ""]}}], {"f": schema})
        [{'name': 'f', 'arguments': {'n': 3}}]
    """
    calls = []
    for call in ground_truth:
        ((name, accepted),) = call.items()
        if name not in schemas:
            raise BrokenTruthError("the ground truth calls a function that is not among the tools")
        arguments = _resolve_object(accepted, schemas[name])
        unknown = [key for key in arguments if key not in schemas[name].get("properties", {})]
        if unknown:
            raise BrokenTruthError("the ground truth has an argument that the tool does not define")
        if not conforms(arguments, schemas[name]):
            raise BrokenTruthError("no accepted value satisfies the tool's schema")
        calls.append({"name": name, "arguments": arguments})
    return calls


def refusal(question_id: str, tool_names: Sequence[str], seed: int) -> str:
    """A short answer to a request that no tool fits. It names the tools and says that none of them can do it.

    The wording depends only on `seed` and `question_id`, not on the order of the records.

    Example:
        >>> refusal("irrelevance_0", ["math.sum"], seed=0)
        'No call made: the request is outside what math.sum can do.'

    Raises:
        DataError: there are no tools.
    """
    if not tool_names:
        raise DataError(f"a refusal needs at least one tool name, got none for {question_id!r}")
    named = ", ".join(tool_names[:_NAMED_TOOLS])
    more = len(tool_names) - _NAMED_TOOLS
    tools = f"{named} and {more} more" if more > 0 else named
    return random.Random(f"{seed}:{question_id}").choice(_REFUSALS).format(tools=tools)  # noqa: S311


def _resolve_object(accepted: dict[str, Any], schema: dict[str, Any], nested: bool = False) -> dict[str, Any]:
    properties = schema.get("properties", {})
    chosen = {}
    for name, values in accepted.items():
        required = name in schema.get("required", [])
        choices = values if isinstance(values, list) else [values]
        value = _choose(choices, properties.get(name, {}), required, nested)
        if value is not _MISSING:
            chosen[name] = value
    return chosen


def _choose(accepted: list[Any], schema: dict[str, Any], required: bool, nested: bool) -> Any:
    if "" in accepted and not required:
        return _MISSING
    if not accepted:
        raise BrokenTruthError("the ground truth has an argument without any accepted value")
    filled = [value for value in accepted if value != ""] or accepted
    candidates = filled if nested else [_resolve(value, schema) for value in filled]
    return next((value for value in candidates if conforms(value, schema)), candidates[0])


def _resolve(value: Any, schema: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return _resolve_object(value, schema, nested=True)
    if isinstance(value, list):
        return [_resolve(item, schema.get("items", {})) for item in value]
    return value
