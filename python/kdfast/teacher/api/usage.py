"""How many tokens a reply says that it used, in the dialects of several servers; and how the journal keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from kdfast.files import parse_json

MOST_TOKENS = 10**9
"""No request has more: a server that says so cannot count."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The tokens of one request.

    Attributes:
        input_tokens: all tokens of the prompt, cached ones included.
        cached_tokens: those that the server read from its cache.
        output_tokens: all tokens that were generated, reasoning included.
        reasoning_tokens: those of the reasoning, as far as the server tells.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.cached_tokens <= self.input_tokens or not (
            0 <= self.reasoning_tokens <= self.output_tokens
        ):
            raise ValueError(f"no part of the tokens may be negative or larger than their sum: {self}")


def read_usage(document: Mapping[str, Any]) -> Usage | None:
    """Reads the usage of a reply; None if it has none that can be right.

    Then the caller counts with the tokenizer, and says so. A prompt without tokens counts as no usage: some servers
    write zeros where they do not count.

    OpenAI's names and Anthropic's are read. Some servers leave the reasoning out of `completion_tokens`: then
    `total_tokens` is larger than the sum of both, or the reasoning is larger than `completion_tokens`.

    Args:
        document: the parsed body of a reply.

    Examples:
        >>> read_usage({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}})
        Usage(input_tokens=9, output_tokens=4, cached_tokens=0, reasoning_tokens=0)
        >>> read_usage({"usage": None}) is None
        True
    """
    usage = document.get("usage")
    if not isinstance(usage, Mapping):
        return None
    try:
        found = _of_openai(usage) if "prompt_tokens" in usage else _of_anthropic(usage)
    except ValueError:
        return None
    return found if found.input_tokens else None


def said_usage(document: Any) -> Usage | None:
    """The usage that a parsed body states; None if it states none that can be right.

    Args:
        document: any JSON value.

    Examples:
        >>> said_usage({"usage": {"prompt_tokens": 10**18, "completion_tokens": 4}}) is None
        True
    """
    return _possible(read_usage(document)) if isinstance(document, Mapping) else None


def usage_of_body(body: bytes) -> Usage | None:
    """As `said_usage`, of a raw body. One that is no JSON states none."""
    try:
        document = parse_json(body)
    except ValueError:
        return None
    return said_usage(document)


def usage_json(usage: Usage, *, is_counted: bool) -> dict[str, Any]:
    """As the journal keeps it; `counted` = the server did not say it."""
    return {**asdict(usage), "counted": True} if is_counted else asdict(usage)


def usage_from_json(stored: Mapping[str, Any] | None) -> Usage | None:
    """What `usage_json` made; a server's own names are read, too. None if it cannot be right.

    Args:
        stored: the `usage` of an answer in the journal.

    Examples:
        >>> usage_from_json(usage_json(Usage(input_tokens=9, output_tokens=4), is_counted=True))
        Usage(input_tokens=9, output_tokens=4, cached_tokens=0, reasoning_tokens=0)
        >>> usage_from_json({"prompt_tokens": 5, "completion_tokens": 1})
        Usage(input_tokens=5, output_tokens=1, cached_tokens=0, reasoning_tokens=0)
    """
    if stored is None or "cached_tokens" not in stored:
        return None if stored is None else said_usage({"usage": stored})
    counts = {name: stored.get(name, 0) for name in _COUNTS}
    if any(type(count) is not int for count in counts.values()):
        return None
    try:
        return _possible(Usage(**counts))
    except ValueError:
        return None


_COUNTS = tuple(one.name for one in fields(Usage))


def _possible(usage: Usage | None) -> Usage | None:
    is_possible = usage is not None and max(usage.input_tokens, usage.output_tokens) <= MOST_TOKENS
    return usage if is_possible else None


def _of_openai(usage: Mapping[str, Any]) -> Usage:
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    cached = _part(usage, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = _count(usage, "prompt_cache_hit_tokens", default=0)  # DeepSeek
    reasoning = _part(usage, "completion_tokens_details", "reasoning_tokens")
    if reasoning is None:
        reasoning = _count(usage, "reasoning_tokens", default=0)
    # Gemini and xAI: total_tokens = prompt_tokens + completion_tokens + reasoning_tokens.
    uncounted = max(0, _count(usage, "total_tokens", default=0) - prompt - completion)
    output = completion + (uncounted or (reasoning if reasoning > completion else 0))
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        reasoning_tokens=max(reasoning, uncounted),
    )


def _of_anthropic(usage: Mapping[str, Any]) -> Usage:
    """`input_tokens` counts neither what was read from the cache nor what was written to it."""
    cached = _count(usage, "cache_read_input_tokens", default=0)
    written = _count(usage, "cache_creation_input_tokens", default=0)
    details = _part(
        usage, "input_tokens_details", "cached_tokens"
    )  # OpenAI's newer names: a part of input_tokens
    reasoning = _part(usage, "output_tokens_details", "reasoning_tokens")
    return Usage(
        input_tokens=_count(usage, "input_tokens") + cached + written,
        output_tokens=_count(usage, "output_tokens"),
        cached_tokens=cached if details is None else details,
        reasoning_tokens=reasoning or 0,
    )


def _count(usage: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = usage.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and value == value // 1:
        return int(value)
    raise ValueError(f"{name}: expected a number of tokens, got {value!r}")


def _part(usage: Mapping[str, Any], details: str, name: str) -> int | None:
    parts = usage.get(details)
    return _count(parts, name) if isinstance(parts, Mapping) and parts.get(name) is not None else None
