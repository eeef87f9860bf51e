"""Records whose tools are no valid JSON Schema: they are named and left out, and the others are evaluated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdfast._rust import ToolSchema, read_jsonl
from kdfast.config.data import DataConfig
from kdfast.errors import DataError, SchemaError


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A record that is not evaluated.

    Attributes:
        line: its line in the file.
        error: what is wrong; it names the tool.
    """

    line: int
    error: str

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


def records_with_bad_tools(path: Path) -> list[LeftOut]:
    """The records of a file whose tools are no valid JSON Schema.

    Raises:
        DataError: a line that cannot be read; or there is no record with good tools.
        OSError: the file cannot be read.
    """
    records, _ = read_jsonl(
        path,
        lines="records",
        on_error="raise",
        max_rejected_fraction=DataConfig.max_rejected_fraction,
        max_line_bytes=DataConfig.max_line_bytes,
        allow_reasoning=DataConfig.allow_reasoning,
        threads=DataConfig.threads,
    )
    found = []
    for record in records:
        try:
            ToolSchema(record.get("tools", []))
        except SchemaError as error:
            found.append(LeftOut(line=record["line"], error=str(error)))
    if found and len(found) == len(records):
        first = found[0]
        raise DataError(
            f"no record has tools that can be used; the first: {first.error}", str(path), first.line
        )
    return found


def write_without(path: Path, lines: Collection[int], copy: Path) -> None:
    r"""Copies a file with these lines blank, so that the other lines keep their numbers.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a").write_text("1\n2\n3\n")
        >>> write_without(folder / "a", {2}, folder / "b")
        >>> (folder / "b").read_text()
        '1\n\n3\n'
    """
    with path.open("rb") as whole, copy.open("wb") as file:
        for number, line in enumerate(whole, 1):
            file.write(b"\n" if number in lines else line)
