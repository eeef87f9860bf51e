"""Lines of records as training reads them: rendered, tokenised and checked by the same code. No torch in here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdfast import _rust
from kdfast.config import DataConfig
from kdfast.data.call_format import call_format
from kdfast.data.template import Template, load_template

TOO_LONG = "does not fit the largest of data.shapes even without the middle turns of its conversation"
_RECORD_K = 32


@dataclass(frozen=True)
class Reader:
    """What records are read with: the config's tokenizer, chat template and format of calls.

    Attributes:
        data: the section `data`.
        tokenizer: the tokenizer.
        template: the chat template.
        tool_call_format: how calls are written.
    """

    data: DataConfig
    tokenizer: _rust.Tokenizer
    template: Template
    tool_call_format: str

    @classmethod
    def of(cls, data: DataConfig) -> Reader:
        """Reads the tokenizer and the template.

        Raises:
            DataError, ConfigError, OSError: as `KDDataset` raises them.
        """
        template = load_template(
            data.template, data.tokenizer, data.template_kwargs, show_tools=data.show_tools
        )
        name: str = data.tool_call_format
        if name == "auto":
            name = call_format(template.compile()) or "hermes"
        return cls(data, _rust.Tokenizer.from_file(data.tokenizer), template, name)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of calls that count."""
        return (self.tool_call_format,)

    def rows(self, path: Path) -> TokenRows:
        """Reads a file of records; the token store is written beside it.

        Raises:
            DataError: the file holds no record that can be read.
            OSError: a file cannot be read or written.
        """
        data = self.data
        report = _rust.TokenStore.build(
            path,
            path.parent / "rows",
            self.tokenizer,
            self.template.compile(),
            supervise=data.supervise,
            prefix_tokens=data.prefix_tokens,
            formats=self.formats,
            invalid_calls=data.invalid_calls,
            content_tokens=data.content_tokens,
            on_error="quarantine",
            max_rejected_fraction=1.0,
            max_line_bytes=data.max_line_bytes,
            allow_reasoning=data.allow_reasoning,
            record_k=_RECORD_K,
            threads=data.threads,
        )
        return TokenRows(_rust.TokenStore.open(report.path), _reasons(path), data.shapes[-1])


@dataclass(frozen=True)
class TokenRows:
    """The rows of a file.

    Attributes:
        store: the token store.
        unreadable: line -> why training would refuse it.
        longest: the largest shape.
    """

    store: _rust.TokenStore
    unreadable: Mapping[int, str]
    longest: int

    @cached_property
    def by_line(self) -> dict[int, int]:
        """Line -> the first of its rows."""
        return {self.store.line(row): row for row in reversed(range(len(self.store)))}

    @cached_property
    def refused(self) -> dict[int, str]:
        """Line -> why training would refuse it, or leave it out as too long."""
        too_long = [self.store.line(row) for row in range(len(self.store)) if self._fits[row] < 0]
        return dict(self.unreadable) | dict.fromkeys(too_long, TOO_LONG)

    @cached_property
    def _fits(self) -> list[int]:
        fits: list[int] = self.store.fit(self.longest).tolist()
        return fits

    def prompt_ids(self, line: int) -> list[int]:
        """The tokens of a line's prompt, up to where the answer begins."""
        ids: list[int] = self.store.prompt_ids(self.by_line[line]).tolist()
        return ids


def write_lines(path: Path, lines: Iterable[Mapping[str, Any] | None]) -> None:
    """Writes records, one a line; None = a blank line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write("" if line is None else to_line(line))
            file.write("\n")


def to_line(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON, without the line's end.

    Example:
        >>> to_line({"prompt": "é", "n": 1.0})
        '{"prompt":"é","n":1.0}'
    """
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _reasons(path: Path) -> dict[int, str]:
    """The reasons that the reader wrote beside the file."""
    file = path.with_name(f"{path.name}.rejected.reasons.jsonl")
    return dict(_parsed(file)) if file.exists() else {}


def _parsed(file: Path) -> Iterator[tuple[int, str]]:
    for line in file.read_text(encoding="utf-8").split("\n"):
        if line:
            entry = json.loads(line)
            yield entry["line"], entry["reason"]
