"""What is private in the prompts: counted before it leaves this machine, and replaced if that is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kdfast.teacher.api.privacy import Redactor, count_private, summary
from kdfast.teacher.api.private_patterns import Kind
from kdfast.teacher.prompts import Prompt, Truth

_PLACEHOLDERS = "placeholders such as [EMAIL_1]"


def prepare_private(prompts: Sequence[Prompt], *, redact: bool) -> tuple[list[Prompt], Counter[Kind], int]:
    """Counts what is private in what would be sent, and replaces it if that is wanted.

    What is replaced is replaced in the right answer, too: else no answer to the changed prompt would be right. The
    metadata is never sent and stays, but for its `accepted`, which is a part of the right answer.

    Args:
        prompts: the prompts as read.
        redact: whether to replace private text, by one `Redactor` a prompt.

    Returns:
        the prompts, how often each kind is in what is sent, and how many prompts have any of it.

    Example:
        >>> from pathlib import Path
        >>> prompt = Prompt(source=Path("prompts.jsonl"), line=1, index=0, prompt="Write to ann@work.org.")
        >>> prompts, counts, number = prepare_private([prompt], redact=True)
        >>> prompts[0].prompt, dict(counts), number
        ('Write to [EMAIL_1].', {'email': 1}, 1)
    """
    counts: Counter[Kind] = Counter()
    prepared: list[Prompt] = []
    with_private = 0
    for prompt in prompts:
        found = count_private(_sent(prompt))
        counts += found
        with_private += bool(found)
        prepared.append(_redacted(prompt) if redact else prompt)
    return prepared, counts, with_private


def private_text(counts: Mapping[Kind, int], with_private: int, prompts: int, *, redact: bool) -> str:
    """What was found, and what becomes of it, in one line; "" if nothing was found.

    Args:
        counts: how often each kind was found.
        with_private: how many prompts have any of it.
        prompts: how many prompts there are.
        redact: whether it was replaced.

    Examples:
        >>> private_text({"email": 3, "key": 1}, 2, 200, redact=False)
        '1 key, 3 e-mail addresses in 2 of 200 prompts leave this machine; set teacher.redact: true to replace them'
        >>> private_text({"phone": 1}, 1, 200, redact=True)
        '1 phone number in 1 of 200 prompts replaced by placeholders such as [EMAIL_1] before anything is sent'
        >>> private_text({}, 0, 200, redact=False)
        ''
    """
    found = summary(counts)
    if not found:
        return ""
    several = sum(counts.values()) > 1
    place = f"{found} in {with_private} of {prompts} prompts"
    if redact:
        return f"{place} replaced by {_PLACEHOLDERS} before anything is sent"
    verb, them = ("leave", "them") if several else ("leaves", "it")
    return f"{place} {verb} this machine; set teacher.redact: true to replace {them}"


def _sent(prompt: Prompt) -> dict[str, Any]:
    """The parts of a prompt that a request holds."""
    return {
        "prompt": prompt.prompt,
        "messages": None if prompt.messages is None else list(prompt.messages),
        "tools": list(prompt.tools),
        "tool_choice": prompt.tool_choice,
    }


def _redacted(prompt: Prompt) -> Prompt:
    """The prompt with placeholders; the same object if it has nothing private."""
    truth = prompt.truth
    right = (
        None if truth is None else {"message": truth.message, "text": truth.text, "accepted": truth.accepted}
    )
    # In one call: a placeholder must not be one that a later part of the record has already.
    redactor = Redactor()
    made = redactor.redact(_sent(prompt) | {"truth": right, "accepted": prompt.metadata.get("accepted")})
    if not redactor.counts:
        return prompt
    metadata = dict(prompt.metadata)
    if "accepted" in metadata:
        metadata["accepted"] = made["accepted"]
    return replace(
        prompt,
        prompt=made["prompt"],
        messages=made["messages"],
        tools=made["tools"],
        tool_choice=made["tool_choice"],
        truth=None if made["truth"] is None else Truth(**made["truth"]),
        metadata=metadata,
    )
