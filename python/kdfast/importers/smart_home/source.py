"""Reads one language of the package `home-assistant-intents`: a wheel, or the directory it was unpacked into."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast.errors import DataError

PACKAGE = "home_assistant_intents"

_REMEDY = "give the wheel of home-assistant-intents, or the directory that it was unpacked into"
_BLOCK_KEYS = {"sentences", "slots", "requires_context", "metadata", "response"}
_CONTEXT_KEYS = {"domain", "area"}


@dataclass(frozen=True)
class Package:
    """What the package says of one language.

    Attributes:
        language: the language, as the package writes it: "en", "pt-BR".
        intents: by name what an intent is, in every language: its slots, their descriptions, its combinations of slots.
        blocks: by intent the groups of templates that this language has, each with the slots and context they imply.
        lists: by name what may fill `{name}`: values, a range of numbers, or any text (a wildcard).
        rules: by name what stands for `<name>` in a template.
    """

    language: str
    intents: dict[str, Any]
    blocks: dict[str, list[dict[str, Any]]]
    lists: dict[str, dict[str, Any]]
    rules: dict[str, str]


class _Folder:
    def __init__(self, source: Path) -> None:
        self._root = source if (source / "intents.json").is_file() else source / PACKAGE

    def names(self) -> list[str]:
        return sorted(path.name for path in (self._root / "data").glob("*.json"))

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()


class _Wheel:
    def __init__(self, source: Path) -> None:
        self._source = source

    def names(self) -> list[str]:
        folder = f"{PACKAGE}/data/"
        with zipfile.ZipFile(self._source) as wheel:
            names = [name.removeprefix(folder) for name in wheel.namelist() if name.startswith(folder)]
        return sorted(name for name in names if name.endswith(".json"))

    def read(self, name: str) -> bytes:
        with zipfile.ZipFile(self._source) as wheel:
            try:
                return wheel.read(f"{PACKAGE}/{name}")
            except KeyError:
                raise FileNotFoundError(name) from None


def read_package(source: Path, language: str) -> Package:
    """Reads the intents and the templates of one language.

    Args:
        source: the wheel of `home-assistant-intents`, or a directory that holds `home_assistant_intents`.
        language: a language that the package has, such as "en" or "de".

    Raises:
        DataError: the source is another thing or broken, or the package has no such language.
        OSError: a file cannot be read.
    """
    if not source.exists():
        raise DataError(f"no such file or directory; {_REMEDY}", str(source))
    try:
        files = _Folder(source) if source.is_dir() else _Wheel(source)
        languages = [name.removesuffix(".json") for name in files.names()]
        if not languages:
            raise DataError(f"no home_assistant_intents/data inside; {_REMEDY}", str(source))
        if language not in languages:
            raise DataError(
                f"the package has no language {language!r}; it has: {', '.join(languages)}", str(source)
            )
        intents = _object(files.read("intents.json"), f"{source}:intents.json")
        data = _object(files.read(f"data/{language}.json"), f"{source}:data/{language}.json")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"not a whole wheel ({error}); {_REMEDY}", str(source)) from None
    except FileNotFoundError as error:
        raise DataError(f"no {error.args[-1]} inside; {_REMEDY}", str(source)) from None
    return _package(intents, data, f"{source}:data/{language}.json", language)


def _object(content: bytes, source: str) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; download the package again", source) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON ({error.msg}); download the package again", source, error.lineno, error.colno
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"must be a JSON object; {_REMEDY}", source)
    return value


def _package(intents: dict[str, Any], data: dict[str, Any], source: str, language: str) -> Package:
    try:
        blocks = {name: list(intent["data"]) for name, intent in data["intents"].items()}
        for name, group in blocks.items():
            for block in group:
                _check_block(block, f"{source}:{name}")
            if name not in intents:
                raise DataError(
                    f"intents.json does not know the intent {name}; download the package again", source
                )
        for intent in intents.values():
            _ = intent["description"], [slot["required"] for slot in intent.get("slots", {}).values()]
        return Package(language, intents, blocks, dict(data["lists"]), dict(data["expansion_rules"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"another form than that of home-assistant-intents 2026.11 ({error!r}); give that version", source
        ) from None


def _check_block(block: dict[str, Any], source: str) -> None:
    """Refuses what would change a template's meaning and is not understood here."""
    _ = block["sentences"], block["metadata"]["slot_combination"]
    context = block.get("requires_context", {})
    unknown = sorted(set(block) - _BLOCK_KEYS) + sorted(set(context) - _CONTEXT_KEYS)
    if context.get("area", {"slot": True}) != {"slot": True}:
        unknown.append("requires_context.area")
    if unknown:
        raise DataError(
            f"templates of another form than those of home-assistant-intents 2026.11: {', '.join(unknown)}; "
            "give that version",
            source,
        )
