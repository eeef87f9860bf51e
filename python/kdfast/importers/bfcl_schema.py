"""BFCL's parameter descriptions as JSON Schema.

BFCL describes parameters in a dialect of its own: Python, Java and JavaScript type names (`dict`, `float`,
`tuple`, `HashMap`, `ArrayList`, `Bigint`, `any`, even an empty name), an `optional` flag, defaults of another
type than the parameter. `json_schema` turns all of that, at any depth, into what a JSON Schema validator
reads.
"""

from __future__ import annotations

from typing import Any

from kdfast.errors import DataError

JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")

# Lower-cased BFCL type -> JSON type; None = any value at all.
_TYPES: dict[str, str | None] = {
    "string": "string",
    "char": "string",
    "integer": "integer",
    "int": "integer",
    "byte": "integer",
    "short": "integer",
    "long": "integer",
    "bigint": "integer",
    "number": "number",
    "float": "number",
    "double": "number",
    "boolean": "boolean",
    "bool": "boolean",
    "array": "array",
    "arraylist": "array",
    "list": "array",
    "tuple": "array",
    "set": "array",
    "queue": "array",
    "stack": "array",
    "dict": "object",
    "object": "object",
    "hashmap": "object",
    "hashtable": "object",
    "null": "null",
    "any": None,
    "": None,
}

# Keywords that mean in BFCL what they mean in JSON Schema, and the Python type their value must have.
_PLAIN_KEYWORDS: dict[str, tuple[type, ...]] = {
    "description": (str,),
    "enum": (list,),
    "format": (str,),
    "minimum": (int, float),
    "maximum": (int, float),
    "minItems": (int,),
    "maxItems": (int,),
}


def json_type(bfcl_type: str) -> str | None:
    """The JSON type of a BFCL type name; None when any value is meant.

    Raises:
        DataError: the name is unknown.

    Example:
        >>> json_type("HashMap"), json_type("float"), json_type("any")
        ('object', 'number', None)
    """
    name = bfcl_type.lower() if isinstance(bfcl_type, str) else bfcl_type
    if name not in _TYPES:
        raise DataError(
            f"unknown parameter type; known are {', '.join(sorted(filter(None, _TYPES)))}: {bfcl_type!r}"
        )
    return _TYPES[name]


def is_of_json_type(value: object, kind: str | None) -> bool:
    """Whether a decoded JSON value has the JSON type `kind`; None is any type.

    As in JSON Schema, 5.0 is an integer and true is no number.

    Example:
        >>> is_of_json_type(True, "integer"), is_of_json_type(5.0, "integer"), is_of_json_type("x", None)
        (False, True, True)
    """
    if kind is None:
        return True
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    expected: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "number": (int, float),
        "array": (list,),
        "object": (dict,),
        "null": (type(None),),
    }
    return isinstance(value, expected[kind])


def json_schema(parameter: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of one BFCL parameter description (a function's `parameters`, or any part of it).

    `any` and the empty type put no constraint on the type. A `default` or `enum` entry that is not of the
    parameter's own type (mostly `null` for "not set") is left out, as is the `optional` flag: which arguments
    may be missing is what `required` says. `required` keeps only names that exist.

    Raises:
        DataError: a type name is unknown.

    Example:
        >>> json_schema({"type": "tuple", "items": {"type": "float"}, "optional": True})
        {'type': 'array', 'items': {'type': 'number'}}
    """
    kind = json_type(parameter.get("type", ""))
    schema: dict[str, Any] = {} if kind is None else {"type": kind}
    for keyword, types in _PLAIN_KEYWORDS.items():
        value = parameter.get(keyword)
        if isinstance(value, types) and not isinstance(value, bool):
            schema[keyword] = value
    if "enum" in schema:
        allowed = [value for value in schema.pop("enum") if is_of_json_type(value, kind)]
        schema |= {"enum": allowed} if allowed else {}
    if "default" in parameter and is_of_json_type(parameter["default"], kind):
        schema["default"] = parameter["default"]
    if isinstance(parameter.get("items"), dict) and kind in ("array", None):
        schema["items"] = json_schema(parameter["items"])
    if isinstance(parameter.get("properties"), dict) and kind in ("object", None):
        schema["properties"] = {name: json_schema(child) for name, child in parameter["properties"].items()}
        required = [name for name in parameter.get("required", []) if name in schema["properties"]]
        schema |= {"required": required} if required else {}
    return schema


def conforms(value: object, schema: dict[str, Any]) -> bool:
    """Whether `value` satisfies a schema made by `json_schema`; checks exactly the keywords that it writes.

    `format` is a note to the reader, as in JSON Schema's default, and is not checked.

    Example:
        >>> schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        >>> conforms({"n": 2}, schema), conforms({"n": "two"}, schema), conforms({}, schema)
        (True, False, False)
    """
    if not is_of_json_type(value, schema.get("type")):
        return False
    if "enum" in schema and not any(_equal(value, entry) for entry in schema["enum"]):
        return False
    if isinstance(value, dict):
        return _object_conforms(value, schema)
    if isinstance(value, list):
        in_size = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return bool(in_size) and all(conforms(item, schema.get("items", {})) for item in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True


def _object_conforms(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    properties = schema.get("properties", {})
    complete = all(name in value for name in schema.get("required", []))
    return complete and all(conforms(child, properties.get(name, {})) for name, child in value.items())


def _equal(value: object, entry: object) -> bool:
    # true and 1 differ in JSON, 1 and 1.0 do not.
    return value == entry and isinstance(value, bool) == isinstance(entry, bool)
