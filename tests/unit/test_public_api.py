"""The public API: names may be added, never removed, and arguments that callers use stay.

`tests/golden/public_api.json` is what was promised so far. After an addition:
`python tests/unit/test_public_api.py` writes it again.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "golden" / "public_api.json"
PACKAGES = (
    "kdfast", "kdfast.config", "kdfast.data", "kdfast.errors", "kdfast.evaluate", "kdfast.gates", "kdfast.losses",
    "kdfast.qat", "kdfast.quantized", "kdfast.scoring", "kdfast.shapes", "kdfast.speed", "kdfast.student",
    "kdfast.teacher",
)  # fmt: skip


def public_names(package: str) -> dict[str, list[str] | None]:
    """Each public name, and for what can be called the names of its arguments; a * before one that has no default."""
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == package
    ]
    return {name: _arguments(getattr(module, name)) for name in sorted(names) if not name.startswith("_")}


def _arguments(value: object) -> list[str] | None:
    if not callable(value):
        return None
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    return [("*" if one.default is one.empty else "") + one.name for one in parameters]


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_that_was_promised_is_gone(package: str) -> None:
    promised = json.loads(FILE.read_text(encoding="utf-8"))[package]
    found = public_names(package)
    assert sorted(set(promised) - set(found)) == []
    for name, arguments in promised.items():
        mine = found[name]
        if arguments is None or mine is None:
            assert mine == arguments, name
            continue
        bare = [argument.lstrip("*") for argument in mine]
        assert [argument for argument in arguments if argument.lstrip("*") not in bare] == [], name
        # an argument that is new must have a default, or calls of today would fail
        known = {argument.lstrip("*") for argument in arguments}
        assert [
            argument for argument in mine if argument.startswith("*") and argument[1:] not in known
        ] == [], name


def test_additions_are_written_down() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == {name: public_names(name) for name in PACKAGES}


if __name__ == "__main__":
    document = {name: public_names(name) for name in PACKAGES}
    FILE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
