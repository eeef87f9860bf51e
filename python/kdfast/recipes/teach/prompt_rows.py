"""The prompts of a job as training will see them: checked before anything is paid, and as tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdfast.data.token_rows import Reader, TokenRows, write_lines
from kdfast.errors import DataError
from kdfast.teacher.prompts import Json, Prompt

_STAND_IN = "ok"
"""An answer that every template and tokenizer can write. It takes the place of the one that is not there yet."""


@dataclass(frozen=True)
class PromptRows:
    """The prompts that can be learned from.

    Attributes:
        prompts: the prompts, in the order of the file.
        left_out: line -> why the prompt is not asked; only with `data.on_error: quarantine`.
        short_of_room: how many prompts leave less room for an answer than `teacher.max_new_tokens`.
    """

    prompts: list[Prompt]
    left_out: dict[int, str]
    short_of_room: int
    _rows: TokenRows

    @property
    def turn_end_ids(self) -> list[int]:
        """The tokens that end an assistant's turn."""
        return [int(token) for token in self._rows.store.header()["kdfast.turn_end_ids"].split()]

    def ids(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens, up to where the answer begins."""
        return self._rows.prompt_ids(prompt.line)


@contextmanager
def prompt_rows(prompts: Sequence[Prompt], reader: Reader, max_new_tokens: int) -> Iterator[PromptRows]:
    """Renders and tokenises all prompts as training will.

    Args:
        prompts: the prompts of one file.
        reader: what they are read with.
        max_new_tokens: the limit of an answer.

    Raises:
        DataError: training would refuse a prompt (with `data.on_error: raise`), or all of them.
        OSError: the temporary folder cannot be written.

    Yields:
        the prompts; their tokens can be read inside the block.
    """
    with tempfile.TemporaryDirectory(prefix="kdfast-prompts-") as folder:
        path = Path(folder) / "prompts.jsonl"
        write_lines(path, _at_their_lines(prompts))
        try:
            rows = reader.rows(path)
        except DataError as error:
            raise DataError(error.message, str(prompts[0].source), error.line, error.column) from None
        refused = rows.refused
        usable = [prompt for prompt in prompts if prompt.line not in refused]
        if refused and (reader.data.on_error == "raise" or not usable):
            line, reason = min(refused.items())
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            remedy = "mend the record, or set data.on_error to 'quarantine' to leave it out"
            raise DataError(
                f"an answer to this prompt could not be learned{more}: {reason}; {remedy}",
                str(prompts[0].source),
                line,
            )
        room = rows.longest - max_new_tokens
        short = sum(len(rows.prompt_ids(prompt.line)) > room for prompt in usable)
        yield PromptRows(usable, refused, short, rows)


def _at_their_lines(prompts: Sequence[Prompt]) -> Iterator[Json | None]:
    """A record for each line of the file, so that the reader's messages name the file's own lines."""
    at = 1
    for prompt in prompts:
        while at < prompt.line:
            at += 1
            yield None
        at += 1
        # With the right answer: the record will have it beside the teacher's.
        yield prompt.to_record() | {"metadata": {}, "teacher_text": _STAND_IN}
