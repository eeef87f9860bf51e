r"""Writes JSON Schema as rules of GBNF, llama.cpp's grammar notation.

A grammar cannot hold every keyword. One that is not held is left out, so that the rule allows more than the schema, and
it is reported with its place. What the schema allows and the rule does not:

- an object's properties in another order than the schema's, and others beside those that it names or requires (both as
  in llama.cpp's own converter);
- a value of another type, where a schema has keywords of one type and no `type`;
- names, and values of `enum` and `const`, in another spelling than that of `json.dumps` (`\u00e9` for `é`, `1.0` for
  `1`, keys in another order);
- numbers of more than 16 digits before or after the point or 3 in the exponent, and an integer written as `1.0`;
- other white space than up to two blanks or line feeds in one place, so most indented JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BASE_RULES = {
    "space": r"[ \n]{0,2}",
    "char": r"""[^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})""",
    "string": r'"\"" char* "\""',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": r'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "boolean": r'"true" | "false"',
    "null": r'"null"',
    "value": "object | array | string | number | boolean | null",
    "member": 'string space ":" space value',
    "object": '"{" space (member (space "," space member)*)? space "}"',
    "array": '"[" space (value (space "," space value)*)? space "]"',
}
"""Rules that every grammar has. White space is short: without a limit a weak model could write it for ever."""

MOST_REPEATS = 500
"""The longest length limit that is held: llama.cpp writes a repetition out, and refuses more than 2,000."""

_TYPES = ("string", "integer", "number", "boolean", "null", "object", "array")
_SILENT = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
_SILENT |= {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "nullable", "example"}
_HELD = {
    "string": {"minLength", "maxLength"},
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
}
_COMBINERS = ("anyOf", "oneOf", "allOf")


def literal(text: str) -> str:
    r"""A text as GBNF writes it.

    Examples:
        >>> print(literal('say "a\\b"'), literal("two\nlines"))
        "say \"a\\b\"" "two\nlines"
    """
    named = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    parts = (named.get(char) or (f"\\x{ord(char):02X}" if ord(char) < 32 else char) for char in text)
    return f'"{"".join(parts)}"'


def json_literal(value: Any) -> str:
    """A JSON value as the literal text that `json.dumps` and chat templates write."""
    return literal(json.dumps(value, ensure_ascii=False))


class SchemaRules:
    """Collects the rules of one schema.

    Attributes:
        rules: name -> body, in the order in which they were made.
        loosened: "place: keyword" of each keyword that the rules do not hold.

    Example:
        >>> rules = SchemaRules("t0", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
        >>> rules.start, rules.rules[rules.start]
        ('t0-1', '"{" space t0-0 space "}"')
    """

    def __init__(self, prefix: str, schema: Any) -> None:
        self.rules: dict[str, str] = {}
        self.loosened: list[str] = []
        self._prefix = prefix
        self._root = schema
        self._of_refs: dict[str, str] = {}
        # References met since the last bracket. To meet one again would be a rule that begins with itself.
        self._open: tuple[str, ...] = ()
        self.start = self._rule(schema, "arguments")

    def _name(self) -> str:
        name = f"{self._prefix}-{len(self.rules)}"
        self.rules[name] = ""  # takes the name; the caller sets the body
        return name

    def _rule(self, schema: Any, place: str) -> str:
        """The name of a rule for this schema; rules without a body of their own are shared."""
        body = self._body(schema, place)
        if body in BASE_RULES or body in self.rules:
            return body
        name = self._name()
        self.rules[name] = body
        return name

    def _body(self, schema: Any, place: str) -> str:
        if not isinstance(schema, Mapping):
            if schema is not True:
                self._loosen(place, "false" if schema is False else "a schema that is no object")
            return "value"
        for keyword, read in (("$ref", self._reference), ("const", self._const), ("enum", self._enum)):
            if keyword in schema:
                return read(schema, place)
        for keyword in _COMBINERS:
            if keyword in schema:
                return self._choice(schema, keyword, place)
        return self._typed(schema, place)

    def _loosen(self, place: str, *keywords: str) -> None:
        self.loosened += [f"{place}: {keyword}" for keyword in keywords]

    def _others(self, schema: Mapping[str, Any], place: str, *held: str) -> None:
        """Reports every keyword that is neither held nor a mere note."""
        self._loosen(place, *(key for key in schema if key not in held and key not in _SILENT))

    def _without(self, schema: Mapping[str, Any], keyword: str, place: str) -> str:
        """The rule of what stands beside a keyword, which is reported."""
        self._loosen(place, keyword)
        return self._typed({key: value for key, value in schema.items() if key != keyword}, place)

    def _reference(self, schema: Mapping[str, Any], place: str) -> str:
        if _has_siblings(schema, "$ref"):
            return self._without(schema, "$ref", place)
        self._others(schema, place, "$ref")
        reference = schema["$ref"]
        target = _at(self._root, reference)
        if target is None or reference in self._open:
            self._loosen(place, f"$ref {json.dumps(reference)}")
            return "value"
        if reference not in self._of_refs:
            name = self._of_refs[reference] = self._name()
            before, self._open = self._open, (*self._open, reference)
            self.rules[name] = self._body(target, place)
            self._open = before
        return self._of_refs[reference]

    def _const(self, schema: Mapping[str, Any], place: str) -> str:
        return self._enum({**schema, "enum": [schema["const"]]}, place)

    def _enum(self, schema: Mapping[str, Any], place: str) -> str:
        self._others(schema, place, "const", "enum", "type")
        types, values = _types(schema), schema["enum"]
        values = values if isinstance(values, list) else []
        fitting = [value for value in values if types is None or any(_is(value, one) for one in types)]
        if not fitting:
            self._loosen(place, "enum")
            return "value"
        return " | ".join(dict.fromkeys(json_literal(value) for value in fitting))

    def _choice(self, schema: Mapping[str, Any], keyword: str, place: str) -> str:
        branches = schema[keyword]
        unheld = not isinstance(branches, list) or not branches or (keyword == "allOf" and len(branches) > 1)
        if unheld or _has_siblings(schema, keyword):
            return self._without(schema, keyword, place)
        self._others(schema, place, keyword)
        if keyword == "oneOf" and len(branches) > 1:
            self._loosen(place, "oneOf (read as anyOf)")
        names = [self._rule(branch, f"{place}.{keyword}[{index}]") for index, branch in enumerate(branches)]
        return " | ".join(dict.fromkeys(names))

    def _typed(self, schema: Mapping[str, Any], place: str) -> str:
        types = _types(schema)
        if types is None:
            types = [kind for kind, keys in _HELD.items() if keys & set(schema)][:1]
        held = set().union(*(_HELD.get(kind, set()) for kind in types))
        self._others(schema, place, "type", *held)
        if not types:
            return "value"
        bodies = [self._of_type(kind, schema, place) for kind in types]
        return bodies[0] if len(bodies) == 1 else " | ".join(f"({body})" for body in bodies)

    def _of_type(self, kind: str, schema: Mapping[str, Any], place: str) -> str:
        if kind == "string":
            return self._string(schema, place)
        before, self._open = self._open, ()
        try:
            if kind == "object":
                return self._object(schema, place)
            return self._array(schema, place) if kind == "array" else kind
        finally:
            self._open = before

    def _string(self, schema: Mapping[str, Any], place: str) -> str:
        repeats = self._repeats(schema, "minLength", "maxLength", place)
        return "string" if repeats == (0, None) else f'"\\"" char{_braces(*repeats)} "\\""'

    def _array(self, schema: Mapping[str, Any], place: str) -> str:
        low, high = self._repeats(schema, "minItems", "maxItems", place)
        if high == 0:
            return '"[" space "]"'
        item = self._rule(schema.get("items", True), f"{place}[]")
        if (item, low, high) == ("value", 0, None):
            return "array"
        more = _braces(max(low - 1, 0), None if high is None else high - 1)
        items = f'{item} (space "," space {item}){more}'
        return f'"[" space {items if low else f"({items})?"} space "]"'

    def _repeats(
        self, schema: Mapping[str, Any], least: str, most: str, place: str
    ) -> tuple[int, int | None]:
        """Two limits of a length; one that no grammar can hold is reported and left out."""
        found: dict[str, int | None] = {}
        for key in (least, most):
            value: Any = schema.get(key)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = number and 0 <= value <= MOST_REPEATS and value == int(value)
            found[key] = int(value) if whole else None
            if key in schema and found[key] is None:
                self._loosen(place, key)
        low, high = found[least] or 0, found[most]
        if high is not None and high < low:
            self._loosen(place, most)
            high = None
        return low, high

    def _object(self, schema: Mapping[str, Any], place: str) -> str:
        properties = schema.get("properties") or {}
        named = dict(properties) if isinstance(properties, Mapping) else {}
        listed = schema.get("required") or []
        if not isinstance(listed, list):
            self._loosen(place, "required")
            listed = []
        required = [name for name in listed if isinstance(name, str)]
        more = schema.get("additionalProperties")
        if not named and not required:
            return self._map(more, place)
        if more not in (None, False):
            self._loosen(place, "additionalProperties")
        every = {**dict.fromkeys(required, True), **named}
        order = [*named, *(name for name in every if name not in named)]
        members = [
            f'{json_literal(name)} space ":" space {self._rule(every[name], f"{place}.{name}")}'
            for name in order
            if every[name] is not False or name in required
        ]
        needed = [name in required for name in order if every[name] is not False or name in required]
        return f'"{{" space {self._members(members, needed)} space "}}"' if members else '"{" space "}"'

    def _map(self, more: Any, place: str) -> str:
        """An object without named properties, whose values follow one schema."""
        if more is False:
            return '"{" space "}"'
        value = self._rule(True if more is None else more, f"{place}.*")
        if value == "value":
            return "object"
        member = f'string space ":" space {value}'
        return f'"{{" space ({member} (space "," space {member})*)? space "}}"'

    def _members(self, members: Sequence[str], needed: Sequence[bool]) -> str:
        """The rule of members in this order, those that are not needed left out or not, commas between them.

        Rule `first` i: nothing is written yet. Rule `later` i: something is, so a comma comes first.
        """
        later = ""
        first = '""'
        for member, must in zip(reversed(members), reversed(needed), strict=True):
            alternatives = [f"{member} {later}".strip()] + ([] if must else [first])
            name = self._name()
            self.rules[name] = " | ".join(alternatives)
            first = name
            follow = f'space "," space {member}'
            name = self._name()
            self.rules[name] = f"{follow if must else f'({follow})?'} {later}".strip()
            later = name
        self.rules.pop(later)  # nothing comes before the first member
        return first


def _has_siblings(schema: Mapping[str, Any], keyword: str) -> bool:
    """Whether keywords that rules hold stand beside a reference or combiner. No grammar can hold both at once.

    The rule of a branch is a closed object: it would forbid the properties that stand beside it.
    """
    others = schema.keys() - {keyword}
    return bool(others & set(_COMBINERS).union(*_HELD.values()))


def _types(schema: Mapping[str, Any]) -> list[str] | None:
    """The types of a schema; None = it names none that JSON Schema knows."""
    given = schema.get("type")
    named = given if isinstance(given, list) else [given]
    return [one for one in dict.fromkeys(map(str, named)) if one in _TYPES] or None


def _is(value: Any, kind: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "string": isinstance(value, str),
        "integer": number and value == int(value),
        "number": number,
        "boolean": isinstance(value, bool),
        "null": value is None,
        "object": isinstance(value, Mapping),
        "array": isinstance(value, list),
    }[kind]


def _braces(low: int, high: int | None) -> str:
    if (low, high) == (0, None):
        return "*"
    return f"{{{low},{'' if high is None else high}}}"


def _at(root: Any, reference: Any) -> Any:
    """The schema at a local reference such as `#/$defs/city`; None = there is none."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = root
    for part in _parts(reference[1:]):
        if isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            return None
    return found


def _parts(pointer: str) -> Iterator[str]:
    for part in pointer.split("/")[1:]:
        yield part.replace("~1", "/").replace("~0", "~")
