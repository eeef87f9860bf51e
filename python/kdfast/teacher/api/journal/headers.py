"""Which response headers the journal keeps, and how secrets are taken out of what it stores."""

from __future__ import annotations

from collections.abc import Collection, Mapping

KEPT = frozenset(
    [
        "age",
        "cf-ray",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "openai-model",
        "openai-processing-ms",
        "openai-version",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "server",
        "traceparent",
        "via",
        "x-request-id",
        "x-served-by",
        "x-should-retry",
    ]
)
KEPT_BEGINNINGS = ("x-ratelimit-", "ratelimit", "anthropic-ratelimit-")
"""Everything else is dropped: cookies, keys and what nobody has thought of."""

REMOVED = "[removed]"


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that hold no secret; names in lower case, sorted.

    Examples:
        >>> kept_headers({"Retry-After": "3", "Set-Cookie": "id=1", "X-Api-Key": "k", "Authorization": "Bearer k"})
        {'retry-after': '3'}
    """
    named = sorted((name.lower(), value) for name, value in headers.items())
    return {name: value for name, value in named if name in KEPT or name.startswith(KEPT_BEGINNINGS)}


def without_secrets(text: str, secrets: Collection[str]) -> str:
    """The text with every secret replaced.

    Examples:
        >>> without_secrets("incorrect key: abc123", ["abc123"])
        'incorrect key: [removed]'
    """
    for secret in secrets:
        text = text.replace(secret, REMOVED)
    return text


def without_secret_bytes(content: bytes, secrets: Collection[str]) -> bytes:
    """As `without_secrets`, for bytes of a response."""
    for secret in secrets:
        content = content.replace(secret.encode(), REMOVED.encode())
    return content
