"""Prompts: the ids that the runtime makes of messages and tools, against those that the student was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from kdfast.errors import DataError
from kdfast.export.parity.conversation import api_messages, api_tools
from kdfast.export.parity.difference import REFUSED, TOKENIZER, WAIVABLE, Difference, check_waivers, describe
from kdfast.export.parity.records import ParityRecord
from kdfast.export.parity.result import ParityCheck, Status

EXAMPLES = 5
"""Differences that a manifest shows, those with other causes first."""

_HEAD, _TAIL = 90, 160  # characters of a server's message: what failed stands first, why stands last


class Server(Protocol):
    """The part of `kdfast.llama_cpp.server.LlamaCppServer` that makes prompts."""

    def apply_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that the server makes of a conversation."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """The ids that the server makes of a text."""
        ...


class Vocabulary(Protocol):
    """The part of a tokenizer that shows ids."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""
        ...


def check_prompts(
    server: Server,
    records: Sequence[ParityRecord],
    tokenizer: Vocabulary,
    *,
    template_kwargs: Mapping[str, Any] | None = None,
    waivers: Collection[str] = (),
) -> ParityCheck:
    """Compares the prompt of every record: messages and tools go through the server's template and tokenizer.

    A plain prompt goes through the tokenizer alone. A record with a special token's text in its content is left out:
    training learns it as text and llama.cpp makes a token of it.

    Args:
        server: serves the exported file.
        records: held-out records.
        tokenizer: the student's own, for messages.
        template_kwargs: variables of the chat template, as the serving client sends them.
        waivers: causes that the user accepts, out of `difference.WAIVABLE`.

    Returns:
        The check `prompt`: `waived` where each cause of each difference is accepted.

    Raises:
        ConfigError: an unknown waiver.
        DataError: the server ended.
    """
    check_waivers(waivers)
    compared = [record for record in records if not record.special_in_content]
    figures: dict[str, Any] = {
        "records": len(records),
        "compared": len(compared),
        "left_out_special": len(records) - len(compared),
        "plain": sum(record.plain_prompt for record in compared),
    }
    if not compared:
        what = "each has a special token in its content" if records else "there is none"
        return ParityCheck(
            name="prompt",
            status="not_measured",
            figures=figures,
            reason=f"no held-out record to compare: {what}",
        )
    found = [_compare(server, record, tokenizer, template_kwargs) for record in compared]
    differences = [difference for difference in found if difference is not None]
    causes = Counter(cause for difference in differences for cause in difference.causes)
    figures |= {
        "equal": len(compared) - len(differences),
        "differences": dict(sorted(causes.items())),
        "examples": [difference.to_json() for difference in _examples(differences)],
    }
    open_ = [one for one in differences if not set(one.causes) <= set(waivers)]
    status: Status = "failed" if open_ else ("waived" if differences else "passed")
    untemplated = figures["plain"] == len(compared)
    return ParityCheck(
        name="prompt",
        status=status,
        figures=figures,
        problems=_problems(open_, waivers),
        reason="the chat template is not measured: each record's prompt is plain text" if untemplated else "",
    )


def _compare(
    server: Server, record: ParityRecord, tokenizer: Vocabulary, template_kwargs: Mapping[str, Any] | None
) -> Difference | None:
    """How a record's prompt differs; None = it does not."""
    text = record.text
    if not record.plain_prompt:
        tools = api_tools(record.sent_tools) or None
        try:
            text = server.apply_template(api_messages(record.messages), tools, template_kwargs)
        except DataError as error:
            server.tokenize("")  # raises if the server is gone: that is no refusal
            return Difference(line=record.line, causes=(REFUSED,), message=shortened(error.message))
    ids = server.tokenize(text)
    if ids == record.prompt_ids:
        return None
    found = None if text == record.text else describe(record.line, record.text, text)
    # The tokenizer is judged by training's text, whatever the template did to it.
    theirs = ids if found is None else server.tokenize(record.text)
    if found is not None and (record.lossy or theirs == record.prompt_ids):
        return found
    at = first_difference_of_ids(record.prompt_ids, theirs)
    ours, other = (_shown(one, at, tokenizer) for one in (record.prompt_ids, theirs))
    message = f"the ids differ from token {at} on: training {ours}, the runtime {other}"
    if found is None:
        return Difference(line=record.line, causes=(TOKENIZER,), message=message)
    return Difference(
        line=record.line,
        causes=(*found.causes, TOKENIZER),
        at=found.at,
        trained=found.trained,
        runtime=found.runtime,
        message=message,
    )


def shortened(message: str) -> str:
    r"""A server's message in one line, without its middle if it is long.

    Example:
        >>> shortened("Unable to\n parse")
        'Unable to parse'
    """
    line = " ".join(message.split())
    return line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} ... {line[-_TAIL:]}"


def first_difference_of_ids(one: Sequence[int], other: Sequence[int]) -> int:
    """The first index at which two lists differ.

    Example:
        >>> first_difference_of_ids([1, 2], [1, 3]), first_difference_of_ids([1], [1, 3])
        (1, 1)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _shown(ids: Sequence[int], at: int, tokenizer: Vocabulary) -> str:
    return ", ".join(f"{token} {tokenizer.decode([token])!r}" for token in ids[at : at + 3]) or "its end"


def _examples(differences: Sequence[Difference]) -> list[Difference]:
    """One difference of each set of causes, then further ones."""
    first: dict[tuple[str, ...], Difference] = {}
    for difference in differences:
        first.setdefault(difference.causes, difference)
    rest = [difference for difference in differences if difference not in first.values()]
    return [*first.values(), *rest][:EXAMPLES]


def _problems(differences: Sequence[Difference], waivers: Collection[str]) -> tuple[str, ...]:
    """One sentence for each set of causes that is not accepted."""
    groups: dict[tuple[str, ...], list[Difference]] = {}
    for difference in differences:
        groups.setdefault(tuple(cause for cause in difference.causes if cause not in waivers), []).append(
            difference
        )
    return tuple(_problem(causes, found) for causes, found in groups.items())


def _problem(causes: tuple[str, ...], found: Sequence[Difference]) -> str:
    count = "1 prompt differs" if len(found) == 1 else f"{len(found)} prompts differ"
    first = found[0]
    why = "; ".join(f"{cause}: {WAIVABLE.get(cause, 'other ids for the same text')}" for cause in causes)
    place = f" at character {first.at}: training {first.trained!r}, the runtime {first.runtime!r}"
    shown = place if first.at is not None else ""
    said = f" ({first.message})" if first.message else ""
    return f"{count} ({why}); the first is of line {first.line}{shown}{said}"
