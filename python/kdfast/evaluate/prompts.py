"""The prompts of a dataset, to evaluate with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdfast._rust import Tokenizer, TokenStore, ToolSchema
from kdfast.config.choices import Thinking
from kdfast.scoring import read_accepted, thinking_after


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
        thinking: whether the prompt opens a thinking block, so that the answer begins inside it.
    """

    ids: Sequence[int]
    tools: str
    reference_text: str
    should_call: bool
    accepted: Sequence[Mapping[str, Any]] | None = None
    reference_tokens: int | None = None
    category: str = ""
    line: int | None = None
    thinking: Thinking = "closed"


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


def place_of(prompt: EvalPrompt) -> str:
    """Where a prompt is, for messages.

    Example:
        >>> place_of(EvalPrompt(ids=[1], tools="", reference_text="", should_call=False, line=7))
        'line 7'
    """
    return "a prompt" if prompt.line is None else f"line {prompt.line}"


def remarks(prompts: Iterable[EvalPrompt], texts_of: Callable[[EvalPrompt], Iterable[str]]) -> list[str]:
    """What is to be said about prompts: each text once, with the place of its first prompt and how many it concerns.

    Args:
        prompts: the prompts.
        texts_of: what is to be said about a prompt.

    Example:
        >>> prompts = [EvalPrompt(ids=[1], tools="", reference_text="", should_call=False, line=n) for n in (4, 9)]
        >>> remarks(prompts, lambda prompt: ["it is short"])
        ['line 4: it is short (2 prompts)']
    """
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for prompt in prompts:
        for text in dict.fromkeys(texts_of(prompt)):
            first.setdefault(text, place_of(prompt))
            counts[text] += 1
    return [
        f"{place}: {text} ({counts[text]} prompt{'s' if counts[text] > 1 else ''})"
        for text, place in first.items()
    ]


def schema_notes(prompts: Iterable[EvalPrompt]) -> list[str]:
    """The forms of older drafts in the prompts' tools, and how each is read (see `remarks`).

    Raises:
        SchemaError: the parameters of a tool are not a valid JSON Schema.
    """
    return remarks(prompts, lambda prompt: ToolSchema(prompt.tools).notes if prompt.tools else ())


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
        thinking=thinking_after(dataset.tokenizer.decode(ids[:start])),
    )
