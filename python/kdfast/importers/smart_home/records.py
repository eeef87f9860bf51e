"""Rows: a sentence and what is right to do. Records: rows as kdfast's files hold them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdfast._rust import ToolSchema
from kdfast.importers.writing import to_line

CALL = "call"
_TOOL_SETS = 8
"""Sets of tools that the records of one intent share."""


@dataclass(frozen=True)
class Row:
    """A sentence and what is right to do.

    Attributes:
        text: the sentence.
        category: "call", or the kind of sentence that needs none.
        slice: what of it training has not seen: "train", "held_out_template", ...
        intent: the tool that it calls, or that it would call if it were complete; "" if there is none.
        template: what the sentence was made from.
        arguments: the call's arguments, in the order of the tool's properties; None = no call.
        answer: what is said without a call; "" if there is a call.
        plain: the sentence without polite words around it; "" = `text` has none.
    """

    text: str
    category: str
    slice: str
    intent: str = ""
    template: str = ""
    arguments: dict[str, Any] | None = field(default=None, hash=False)
    answer: str = ""
    plain: str = ""

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What two rows with the same sentence must have in common."""
        if self.arguments is None:
            return ("", self.answer)
        return (self.intent, *sorted(self.arguments.items()))


class RecordWriter:
    """Writes rows as records.

    Args:
        tools: the tools by name.
        language: goes to the records' metadata.
    """

    def __init__(self, tools: dict[str, dict[str, Any]], language: str) -> None:
        self._tools = {name: to_line(tool) for name, tool in tools.items()}
        self._language = language
        self._sets: dict[tuple[str, int, int], str] = {}

    def lines(
        self, rows: Sequence[Row], name: str, tools_per_record: int | None, *, answered: bool, seed: int
    ) -> Iterator[str]:
        """The records as lines of JSON.

        Args:
            rows: the rows, in the file's order.
            name: the file's name without its ending: ids begin with it.
            tools_per_record: how many tools a record offers; None = all of them.
            answered: whether the records hold the right answer. If not, nothing in a record tells it.
            seed: chooses the tools of a record.
        """
        rng = random.Random(f"{seed} tools of {name}")  # noqa: S311
        every = "[" + ",".join(self._tools.values()) + "]"
        for index, row in enumerate(rows):
            tools = every if tools_per_record is None else self._some_tools(row, tools_per_record, rng)
            metadata = {"id": f"{name}-{index}", "slice": row.slice, "language": self._language}
            messages = to_line([{"role": "user", "content": row.text}])
            line = f'{{"messages":{messages},"tools":{tools}'
            if answered:
                metadata |= {"category": row.category, "intent": row.intent, "template": row.template}
                called = to_line(row.arguments is not None)
                line += f',"truth_message":{to_line(_truth(row))},"tool_should_be_used":{called}'
            yield f'{line},"metadata":{to_line(metadata)}}}'

    def _some_tools(self, row: Row, count: int, rng: random.Random) -> str:
        """The row's tool and others, in one of a few random choices: each set of tools is compiled by its reader."""
        own = [row.intent] if row.intent in self._tools else []
        key = row.intent, count, rng.randrange(_TOOL_SETS)
        if key not in self._sets:
            others = [name for name in self._tools if name != row.intent]
            names = own + rng.sample(others, max(0, min(count, len(self._tools)) - len(own)))
            rng.shuffle(names)
            self._sets[key] = "[" + ",".join([self._tools[name] for name in names]) + "]"
        return self._sets[key]


def _truth(row: Row) -> dict[str, Any]:
    if row.arguments is None:
        return {"role": "assistant", "content": row.answer}
    call = {"name": row.intent, "arguments": row.arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}


def check_calls(rows: Sequence[Row], tools: dict[str, dict[str, Any]]) -> None:
    """Holds every call to its tool's schema.

    Raises:
        AssertionError: a call breaks it: a bug of this importer, not of its user.
    """
    schema = ToolSchema(list(tools.values()))
    calling = [row for row in rows if row.arguments is not None]
    calls = [to_line({"name": row.intent, "arguments": row.arguments}) for row in calling]
    for row, call, valid in zip(calling, calls, schema.is_valid_batch(calls), strict=True):
        if not valid:
            raise AssertionError(
                f"a call that breaks its schema: {call} for {row.text!r}: {schema.issues(call)}"
            )
