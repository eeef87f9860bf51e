"""What a teacher is asked: records without an answer, read from a JSONL file. No torch in here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kdfast.config import DataConfig
from kdfast.errors import DataError
from kdfast.scoring.accepted import check_accepted

Json = dict[str, Any]

CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The right answer to a prompt.

    Attributes:
        message: an assistant's message; None if the record gives a text.
        text: the answer as text; None if the record gives a message, or `accepted` alone.
        accepted: BFCL's ground truth, one `{function: {argument: [values]}}` per call; None = the message's calls.
    """

    message: Json | None = None
    text: str | None = None
    accepted: list[Json] | None = None


class SharedTools(list[Json]):
    """Tools that many prompts share."""

    @cached_property
    def text(self) -> str:
        """Them as JSON."""
        return json.dumps(self)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt.

    Attributes:
        source: the file.
        line: its line there, from 1.
        index: its place among the file's prompts, from 0.
        prompt: the prompt as text; None if the record gives messages.
        messages: the conversation; None if the record gives a prompt.
        tools: the tool definitions, as the record gives them; () = none.
        truth: the right answer; None = not known.
        should_call: whether a call is due, if the record says so (`tool_should_be_used`, or a truth).
        tool_choice: "auto", "none", "required" or an object that names a tool, as the record says; None = not said.
        parallel_tool_calls: as the record says; None = not said.
        metadata: the record's metadata and the keys that kdfast does not know.
    """

    source: Path
    line: int
    index: int
    prompt: str | None = None
    messages: Sequence[Json] | None = None
    tools: Sequence[Json] = ()
    truth: Truth | None = None
    should_call: bool | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tools_text(self) -> str:
        """The tools as JSON; written once for all prompts of a file that have the same ones."""
        return self.tools.text if isinstance(self.tools, SharedTools) else json.dumps(list(self.tools))

    def to_record(self) -> Json:
        """The record's own keys, as a line of a dataset has them; the answer is missing."""
        record: Json = {"prompt": self.prompt} if self.messages is None else {"messages": list(self.messages)}
        if self.tools:
            record["tools"] = list(self.tools)
        if self.truth is not None and self.truth.message is not None:
            record["truth_message"] = self.truth.message
        elif self.truth is not None and self.truth.text is not None:
            record["truth_text"] = self.truth.text
        record["metadata"] = dict(self.metadata)
        return record


def read_prompts(path: Path, data: DataConfig, rejected: dict[int, str] | None = None) -> list[Prompt]:
    """Reads the prompts of a file, in its order.

    Args:
        path: JSONL, see docs/teaching.md.
        data: how the file is read. With `on_error: quarantine`, bad lines go to `FILE.rejected.jsonl`.
        rejected: gets the line of each bad one, and what is wrong with it.

    Raises:
        DataError: a bad line (with quarantine: too many of them), or no prompt at all.
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "prompts.jsonl"
        >>> _ = file.write_text('{"prompt": "Is it raining?", "tool_choice": "none"}')
        >>> data = DataConfig(train=file, tokenizer=file)
        >>> [(one.line, one.prompt, one.tool_choice) for one in read_prompts(file, data)]
        [(1, 'Is it raining?', 'none')]
    """
    from kdfast._rust import read_jsonl

    records, bad = read_jsonl(
        path,
        lines="prompts",
        on_error=data.on_error,
        max_rejected_fraction=data.max_rejected_fraction,
        max_line_bytes=data.max_line_bytes,
        allow_reasoning=data.allow_reasoning,
        threads=data.threads,
    )
    left_out = {line["line"]: line["reason"] for line in bad}
    shared: dict[int, SharedTools] = {}  # by the object: records with the same tools share one
    prompts: list[Prompt] = []
    for record in records:
        try:
            prompts.append(_prompt(path, len(prompts), record, shared))
        except DataError as error:
            if data.on_error == "raise":
                raise
            left_out[record["line"]] = error.message
    check_rejected(len(left_out), len(records) + len(bad), path, data)
    if rejected is not None:
        rejected.update(left_out)
    return prompts


def check_rejected(bad: int, total: int, path: Path, data: DataConfig) -> None:
    """Checks that not more lines of a file are left out than `data.max_rejected_fraction` allows.

    Raises:
        DataError: there are more.
    """
    if bad > data.max_rejected_fraction * total:
        raise DataError(
            f"{bad} of {total} prompts cannot be asked, more than data.max_rejected_fraction allows; mend them or raise"
            f" it: {data.max_rejected_fraction}",
            str(path),
        )


def _prompt(path: Path, index: int, record: Mapping[str, Any], shared: dict[int, SharedTools]) -> Prompt:
    metadata = record["metadata"]
    truth = _truth(path, record)
    said = record.get("tool_should_be_used")
    if said is None and truth is not None:
        said = _calls(truth)
    given = record.get("tools") or ()
    if given and id(given) not in shared:
        shared[id(given)] = SharedTools(given)
    tools: Sequence[Json] = shared[id(given)] if given else ()
    choice = metadata.get("tool_choice", _modern_choice(metadata.get("function_call")))
    parallel = metadata.get("parallel_tool_calls")
    if choice is not None and not _is_choice(choice, tools):
        allowed = f"tool_choice must be one of {', '.join(CHOICES)} or name one of the record's tools"
        raise DataError(f"{allowed}, got {choice!r:.80}", str(path), record["line"])
    if parallel is not None and not isinstance(parallel, bool):
        raise DataError(
            f"parallel_tool_calls must be true or false, got {parallel!r:.80}", str(path), record["line"]
        )
    if not tools and record.get("messages") is not None and (said or choice == "required"):
        key = "tool_choice" if choice == "required" else "tool_should_be_used, or the right answer,"
        raise DataError(f"{key} asks for a call, and there are no tools: add them", str(path), record["line"])
    return Prompt(
        source=path,
        line=record["line"],
        index=index,
        prompt=record.get("prompt"),
        messages=record.get("messages"),
        tools=tools,
        truth=truth,
        should_call=said,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        metadata=metadata,
    )


def _truth(path: Path, record: Mapping[str, Any]) -> Truth | None:
    accepted = check_accepted(record["metadata"], str(path), record["line"])
    message, text = record.get("truth_message"), record.get("truth_text")
    if message is None and text is None and accepted is None:
        return None
    return Truth(message=message, text=text, accepted=accepted)


def _modern_choice(given: Any) -> Any:
    """OpenAI's `function_call` of a request, from before 2024, as `tool_choice`."""
    return {"type": "function", "function": given} if isinstance(given, Mapping) else given


def _calls(truth: Truth) -> bool:
    """Whether the right answer calls a tool, in `tool_calls` or in its text."""
    from kdfast._rust import find_tool_calls

    if truth.accepted or (truth.message is not None and truth.message.get("tool_calls")):
        return True
    content = truth.text if truth.message is None else truth.message.get("content")
    return isinstance(content, str) and bool(find_tool_calls(content))


def _is_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is one of the words, or an object that names one of the tools."""
    if isinstance(choice, str):
        return choice in CHOICES
    name = choice.get("function", choice) if isinstance(choice, Mapping) else None
    name = name.get("name") if isinstance(name, Mapping) else None
    return isinstance(name, str) and name in {tool_name(tool) for tool in tools}


def tool_name(tool: Mapping[str, Any]) -> str | None:
    """The name of a tool definition: in `function`, or beside the rest in the flat form.

    Examples:
        >>> tool_name({"type": "function", "function": {"name": "f"}}), tool_name({"name": "g"})
        ('f', 'g')
    """
    inner = tool.get("function")
    name = (inner if isinstance(inner, Mapping) else tool).get("name")
    return name if isinstance(name, str) else None
