"""Compares tool calls with BFCL's accepted values.

`match_calls` follows the rules of BFCL's AST check (version 4, single-turn categories):

- the right number of calls, in any order;
- every required argument, and no unknown one;
- the type that the tool asks for. An int passes for a float; a value of the accepted value's own type always passes
  (BFCL calls this a "variable");
- a value among the accepted ones. Text is compared without case, spaces and `,./-_*^`; objects are compared key by key,
  one level deep.

It differs on purpose in four points:

- values are JSON values in every language (BFCL parses Java and JavaScript source text);
- if a list does not say the type of its items, they may have any type (BFCL takes them for text);
- where BFCL's check crashes, there is a mismatch;
- tools may have any JSON Schema. If it leaves a type open (BFCL's own data never does), the accepted values decide it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.scoring.parameters import Parameters, Schema

Call = tuple[str, Any]  # function name, arguments

_IGNORED = re.compile(r"[ ,./\-_*^]")
_PYTHON_TYPES: dict[str, type[Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


@dataclass(frozen=True)
class Mismatch:
    """Why calls do not match the ground truth.

    Attributes:
        reason: one of `count`, `function`, `required`, `unexpected`, `type`, `value`, `missing`; in a score also
            `no_truth` and `broken_call`.
        detail: the wrong argument or function, in words.
    """

    reason: str
    detail: str


def match_calls(
    calls: Sequence[Call], accepted: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> Mismatch | None:
    """Compares calls with BFCL's ground truth; None if they match.

    Each ground-truth call takes the first unused call that matches it, as in BFCL.

    Args:
        calls: (function name, arguments) of each call.
        accepted: BFCL's ground truth, one `{function name: {argument: [accepted values]}}` per call.
        tools: tool definitions with `parameters` as JSON Schema, plain or in OpenAI's form. Without tools, arguments
            must have the types of the accepted values.

    Example:
        >>> parameters = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
        >>> tool = {"name": "f", "parameters": parameters}
        >>> match_calls([("f", {"city": "new york"})], [{"f": {"city": ["New York", "NYC"]}}], [tool])
        >>> match_calls([("f", {"city": "Rome"})], [{"f": {"city": ["New York", "NYC"]}}], [tool])
        Mismatch(reason='value', detail="city: 'Rome' is none of ['New York', 'NYC']")
    """
    if len(calls) != len(accepted):
        return Mismatch("count", f"{len(calls)} calls instead of {len(accepted)}")
    return next((failure for failure in _pair(calls, accepted, tools) if failure is not None), None)


def count_right_calls(
    calls: Sequence[Call], accepted: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> int:
    """How many calls match a ground-truth call. Each ground-truth call is matched by at most one call.

    The numbers of calls may differ. `match_calls` returns None exactly if every call on both sides is matched here.

    Args:
        calls: (function name, arguments) of each call.
        accepted: BFCL's ground truth.
        tools: tool definitions.

    Example:
        >>> accepted = [{"f": {"n": [1]}}, {"f": {"n": [2]}}]
        >>> count_right_calls([("f", {"n": 2}), ("f", {"n": 2}), ("f", {"n": 3})], accepted, [])
        1
    """
    return sum(failure is None for failure in _pair(calls, accepted, tools))


def _pair(
    calls: Sequence[Call], accepted: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> Iterator[Mismatch | None]:
    """For each ground-truth call, None if an unused call matches it (the first one is taken), else why none does."""
    parameters = {tool.get("function", tool)["name"]: Parameters(tool) for tool in tools}
    unused = list(calls)
    for truth in accepted:
        ((name, values),) = truth.items()
        asked = parameters.get(name, _NO_ARGUMENTS) if tools else _ANY_ARGUMENTS
        failures = [_match_call(call, name, values, asked) for call in unused]
        if None in failures:
            del unused[failures.index(None)]
            yield None
            continue
        # Of several reasons, show that of a call of the right function: it says most.
        known = [failure for failure in failures if failure is not None]
        right_function = [failure for failure in known if failure.reason != "function"]
        yield next(iter(right_function + known), Mismatch("count", f"no call is left for {name}"))


def accepted_from_calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """The ground truth, in BFCL's form, that accepts exactly the values of `calls`.

    Example:
        >>> accepted_from_calls([("f", {"n": 3, "at": {"x": 1}})])
        [{'f': {'n': [3], 'at': [{'x': [1]}]}}]
    """
    return [
        {name: {key: [_accepting(value)] for key, value in arguments.items()}} for name, arguments in calls
    ]


def _accepting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: [entry] for key, entry in value.items()}
    if isinstance(value, list):
        return [_accepting(entry) if isinstance(entry, dict) else entry for entry in value]
    return value


def _asked_by(accepted: list[Any]) -> Schema:
    """The type of the accepted values, as a schema."""
    own = _type_of_accepted(accepted)
    return next(({"type": name} for name, python in _PYTHON_TYPES.items() if python is own), {})


def _has_objects(accepted: list[Any]) -> bool:
    entries = [entry for answer in accepted for entry in (answer if isinstance(answer, list) else [answer])]
    return any(isinstance(entry, dict) for entry in entries)


def _match_call(
    call: Call, name: str, accepted: Mapping[str, list[Any]], parameters: Parameters
) -> Mismatch | None:
    called, arguments = call
    if called != name:
        return Mismatch("function", f"{called} instead of {name}")
    if not isinstance(arguments, dict):
        return Mismatch("type", f"arguments are no object: {arguments!r}")
    for key in parameters.required:
        if key not in arguments:
            return Mismatch("required", f"{key} is not given")
    failures = (_argument_failure(key, value, accepted, parameters) for key, value in arguments.items())
    missing = (
        Mismatch("missing", f"{key} is not given and not optional")
        for key, values in accepted.items()
        if key not in arguments and "" not in values
    )
    return next((failure for failure in failures if failure is not None), None) or next(missing, None)


def _argument_failure(
    key: str, value: Any, accepted: Mapping[str, list[Any]], parameters: Parameters
) -> Mismatch | None:
    if key not in accepted or not parameters.may_be(key):
        return Mismatch("unexpected", f"{key} is not asked for")
    schema = parameters.asked(key, value)
    if schema is None or ("type" not in schema and _has_objects(accepted[key])):
        schema = _asked_by(accepted[key])
    reason = _value_failure(value, accepted[key], schema)
    if reason == "type":
        return Mismatch("type", f"{key}: {value!r} is no {schema.get('type', 'string')}")
    return Mismatch("value", f"{key}: {value!r} is none of {accepted[key]!r}") if reason else None


def _value_failure(value: Any, accepted: list[Any], schema: Schema) -> str | None:
    """None when `value` is right, else "type" or "value"."""
    expected = _python_type(schema)
    items = schema.get("items", {})
    item = _python_type(items) if expected is list and "type" in items else None
    if expected is float and type(value) is int:
        value = float(value)
    accepted_type = _type_of_accepted(accepted)
    if not _type_fits(value, expected, item, accepted):
        return "type"
    # A "variable": the ground truth has another type than the tool asks for. Compare the values unchanged.
    if accepted_type not in (None, expected) or type(value) is not expected:
        return None if value in accepted else "value"
    if expected is dict:
        right = any(_object_matches(value, answer) for answer in accepted if answer != "")
    elif expected is list:
        right = any(_items_match(value, answer) for answer in accepted)
    elif expected is str:
        right = _plain(value) in [_plain(answer) for answer in accepted if isinstance(answer, str)]
    else:
        right = value in accepted
    return None if right else "value"


def _python_type(schema: Schema) -> type[Any]:
    # A schema without a type is BFCL's `any`; its check treats it as text.
    return _PYTHON_TYPES.get(schema.get("type", "string"), str)


def _type_of_accepted(accepted: Iterable[Any]) -> type[Any] | None:
    return next((type(answer) for answer in accepted if answer != ""), None)


def _type_fits(value: Any, expected: type[Any], item: type[Any] | None, accepted: list[Any]) -> bool:
    if type(value) is not expected:
        return type(value) is _type_of_accepted(accepted)
    if item is None:
        return True
    # Compare the items with one accepted list at a time. If an accepted value is not a list, items may be anything.
    return any(
        not isinstance(answer, list) or all(_type_fits(entry, item, None, answer) for entry in value)
        for answer in accepted
    )


def _plain(value: Any) -> Any:
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _object_matches(value: Any, answer: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(answer, dict):
        return False
    return all(
        key in answer and _plain(entry) in [_plain(choice) for choice in _as_list(answer[key])]
        for key, entry in value.items()
    ) and all(key in value or "" in _as_list(choices) for key, choices in answer.items())


def _items_match(values: list[Any], answers: Any) -> bool:
    # An accepted "" also accepts an empty list.
    if not isinstance(answers, (list, str)) or len(values) != len(answers):
        return False
    return all(
        _object_matches(value, answer) if isinstance(answer, dict) else _plain(value) == _plain(answer)
        for value, answer in zip(values, answers, strict=True)
    )


def _as_list(choices: Any) -> list[Any]:
    return choices if isinstance(choices, list) else [choices]


_NO_ARGUMENTS = Parameters({"parameters": {"properties": {}}})  # for a function that is not among the tools
_ANY_ARGUMENTS = Parameters({})  # for a prompt without tools
