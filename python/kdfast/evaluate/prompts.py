"""The prompts of a dataset, to evaluate with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdfast._rust import Tokenizer, TokenStore
from kdfast.scoring import read_accepted


@dataclass(frozen=True, kw_only=True)
class EvalPrompt:
    """A held-out prompt and its right answer.

    Attributes:
        ids: the prompt's token ids, up to where the answer begins.
        tools: the tool definitions, as JSON text ("" = none).
        reference_text: the right answer; it is shown, and its calls are the right ones if `accepted` is None.
        should_call: whether a call is due.
        accepted: BFCL's ground truth, one `{function: {argument: [values]}}` per call; None = the reference's calls.
        reference_tokens: the length of the right answer, without the token that ends it; None = not known.
        category: the category in the record's metadata ("" = none).
        line: the line of the record in its file; None = not from a file.
    """

    ids: Sequence[int]
    tools: str
    reference_text: str
    should_call: bool
    accepted: Sequence[Mapping[str, Any]] | None = None
    reference_tokens: int | None = None
    category: str = ""
    line: int | None = None


class Records(Protocol):
    """The part of a `KDDataset` that this module reads."""

    path: Path
    rows: Any
    store: TokenStore
    tokenizer: Tokenizer

    @property
    def shapes(self) -> Sequence[int]:
        """Padded lengths, ascending."""
        ...

    @property
    def turn_end_ids(self) -> list[int]:
        """The token ids that end an assistant's turn."""
        ...

    def one_row_a_record(self) -> list[int]:
        """One row of each record, in the order of the file."""
        ...


def eval_prompts(dataset: Records, count: int = 0) -> list[EvalPrompt]:
    """The prompts of a dataset, one per record, in the order of the file.

    If a record has two rows, the one with the ground truth is used.

    Args:
        dataset: a `KDDataset`.
        count: return only the first `count` prompts; 0 = all.

    Raises:
        DataError: a record's accepted values do not have BFCL's form.
    """
    places = dataset.one_row_a_record()
    return [_prompt(dataset, place) for place in (places[:count] if count else places)]


def _prompt(dataset: Records, place: int) -> EvalPrompt:
    row = dataset.store.row(int(dataset.rows[place]), dataset.shapes[-1])
    ids, start, line = row["ids"].tolist(), int(row["response_start"]), int(row["line"])
    answer = [token for token in ids[start:] if token not in dataset.turn_end_ids]
    category = json.loads(row["metadata"] or "{}").get("category")
    return EvalPrompt(
        ids=ids[:start],
        tools=row["tools"] or "",
        reference_text=dataset.tokenizer.decode(answer),
        should_call=bool(row["tool_should_be_used"]),
        accepted=read_accepted(row["metadata"], str(dataset.path), line),
        reference_tokens=len(answer),
        category=category if isinstance(category, str) else "",
        line=line,
    )
