"""BFCL's parameter descriptions as JSON Schema.

BFCL describes parameters in its own dialect: type names of Python, Java and JavaScript (`dict`, `float`,
`tuple`, `HashMap`, `ArrayList`, `Bigint`, `any`, even an empty name), an `optional` flag, and defaults of another
type than the parameter. `json_schema` turns all of it, at any depth, into valid JSON Schema.
"""

from __future__ import annotations

from typing import Any

from kdfast.errors import DataError

JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")

# BFCL type in lower case -> JSON type; None = any value.
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

# Keywords with the same meaning in BFCL and JSON Schema, and the Python types that their value may have.
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
    """The JSON type of a BFCL type name; None = any value.

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
    """Whether a decoded JSON value has the JSON type `kind`; None = any type.

    As in JSON Schema, 5.0 is an integer and true is not a number.

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

    `any` and the empty type allow every type. A `default` or `enum` entry of another type than the parameter
    (mostly `null` for "not set") is left out. So is the `optional` flag, because `required` already says which
    arguments may be missing. `required` keeps only names that exist.

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
    """Whether `value` satisfies a schema that `json_schema` made; checks exactly the keywords that it writes.

    `format` is only a note to the reader, as in JSON Schema by default, and is not checked.

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
    # In JSON, true and 1 differ, but 1 and 1.0 are equal; in Python all three are equal.
    return value == entry and isinstance(value, bool) == isinstance(entry, bool)
