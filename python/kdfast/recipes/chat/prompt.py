"""Conversations as prompts: rendered and tokenised by the code that does it for training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdfast._rust import Tokenizer, ToolSchema
from kdfast.config import DataConfig
from kdfast.config.choices import Thinking
from kdfast.data import load_template
from kdfast.data.call_format import call_format
from kdfast.data.token_rows import TOO_LONG, Reader, TokenRows, write_lines
from kdfast.errors import DataError
from kdfast.recipes.requests import ModelSettings
from kdfast.scoring import thinking_after

Json = dict[str, Any]

_STAND_IN = "ok"
"""A record needs an answer; this one is not read."""
_LONGEST = 2**20


class TooLongError(DataError):
    """A conversation that is longer than any model's context; the exact length is not known.

    Args:
        at_least: how long it is, with the unit.
    """

    def __init__(self, at_least: str) -> None:
        super().__init__(
            f"the conversation is too long for the context; shorten it, or start again with /new: more than {at_least}"
        )
        self.at_least = at_least


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """A conversation up to where the next answer begins.

    Attributes:
        ids: its tokens.
        thinking: whether it opens a thinking block, so that the answer begins inside it.
        turn_end_ids: the token ids with which the template ends a turn; the last one ends an answer.
    """

    ids: list[int]
    thinking: Thinking
    turn_end_ids: list[int]


@dataclass(frozen=True)
class PromptMaker:
    """Makes the prompts of one model.

    Attributes:
        reader: the model's tokenizer and chat template.
        tools: the tool definitions; () = none.
        named_formats: the call formats that the user named; () = the one that the template writes.
    """

    reader: Reader
    tools: Sequence[Json]
    named_formats: tuple[str, ...] = ()

    @classmethod
    def of(cls, directory: Path, settings: ModelSettings, tools: Sequence[Json]) -> PromptMaker:
        """Reads tokenizer and template.

        Raises:
            ConfigError, DataError: there is no such template, or it ignores tools; see `load_template`.
            OSError: a file cannot be read.
        """
        template = load_template(settings.template, directory, settings.template_kwargs, key="--template")
        data = DataConfig(train=Path("-"), tokenizer=directory, invalid_calls="keep", shapes=(_LONGEST,))
        written = call_format(template.compile()) or "hermes"
        reader = Reader(data, Tokenizer.from_file(directory), template, written)
        return cls(reader, tools, settings.formats)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        return self.reader.tokenizer

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of calls that count."""
        return self.named_formats or self.reader.formats

    @cached_property
    def schema(self) -> ToolSchema | None:
        """The tools' schemas; None = there are no tools, and every well-formed call counts."""
        return ToolSchema(list(self.tools)) if self.tools else None

    def make(self, messages: Sequence[Json]) -> ChatPrompt:
        """The prompt of a conversation.

        Args:
            messages: as in a record; the last one is the user's or a tool's.

        Raises:
            TooLongError: it is longer than 2**20 tokens, or than a line of records may be.
            DataError: the template refuses such messages or tools, or the reader of records does.
            OSError: the temporary folder cannot be written.
        """
        record: Json = {"messages": list(messages), "teacher_text": _STAND_IN}
        if self.tools:
            record["tools"] = list(self.tools)
        with tempfile.TemporaryDirectory(prefix="kdfast-chat-") as folder:
            path = Path(folder) / "chat.jsonl"
            write_lines(path, [record])
            most = self.reader.data.max_line_bytes
            if path.stat().st_size > most:
                raise TooLongError(f"{most} bytes")
            rows = self._rows(path)
            ids = rows.prompt_ids(1)
            ends = [int(token) for token in rows.store.header()["kdfast.turn_end_ids"].split()]
        return ChatPrompt(ids=ids, thinking=thinking_after(self.tokenizer.decode(ids)), turn_end_ids=ends)

    def _rows(self, path: Path) -> TokenRows:
        try:
            rows = self.reader.rows(path)
        except DataError as error:
            raise DataError(f"the chat template cannot take this conversation: {error.message}") from None
        if rows.refused.get(1) == TOO_LONG:
            raise TooLongError(f"{_LONGEST} tokens")
        if 1 in rows.refused:
            raise DataError(f"the chat template cannot take this conversation: {rows.refused[1]}")
        return rows


def shown_arguments(arguments: Json) -> str:
    """The arguments of a call on one line.

    Example:
        >>> shown_arguments({"city": "Łódź", "days": 2})
        '{"city": "Łódź", "days": 2}'
    """
    return json.dumps(arguments, ensure_ascii=False)
