"""What a server says about a failed request, in one line and without the user's key."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kdfast.files import parse_json

MOST_CHARS = 300
"""The length at which a server's words are cut."""

HIDDEN = "[secret]"

_WORD_LENGTH = 8
_MOST_READ = 16_384  # characters of a page; a page's words are at its beginning
# Servers echo keys that they refuse, half masked: "Incorrect API key provided: sk-pr****1234".
_ECHOED_KEY = re.compile(r"\b(?:sk|pk|key|gsk|xai|hf|rk)[-_][\w*.-]{3,}[\w*]")
_SKIPPED_ELEMENT = re.compile(r"<(script|style|head|title)\b.*?(</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<!--.*?-->|<[^<>]*>", re.DOTALL)
_LOOKS_LIKE_HTML = re.compile(r"\s*<(!doctype|html|head|body|h1|center|\?xml)", re.IGNORECASE)
_NAMES = ("code", "type", "status", "error_type")


@dataclass(frozen=True)
class ServerError:
    """A server's words about a failure.

    Attributes:
        words: its message in one line, at most `MOST_CHARS` characters; "" if it said nothing.
        codes: its error codes and types, lower case, such as `insufficient_quota`; HTTP statuses as text.
        param: the part of the request that it names; "" if none.
    """

    words: str
    codes: frozenset[str]
    param: str = ""


def read_server_error(body: bytes, secrets: Sequence[str] = ()) -> ServerError:
    r"""Reads an error's body: JSON of OpenAI, Anthropic, vLLM, llama.cpp, FastAPI and others, HTML or plain text.

    Args:
        body: the response's body, decompressed.
        secrets: texts that must not appear in the result: the key's value.

    Returns:
        what the server said. A body that cannot be read gives its text, cut.

    Examples:
        >>> read_server_error(b'{"error": {"message": "No money", "code": "insufficient_quota"}}').words
        'No money'
        >>> read_server_error(b"<html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1>").words
        '502 Bad Gateway'
    """
    text = body.decode("utf-8", errors="replace")
    try:
        document = parse_json(text)
    except ValueError:
        return ServerError(one_line(_visible(hide_secrets(text, secrets)[:_MOST_READ]), secrets), frozenset())
    found = error_in(document)
    if found is None:
        return ServerError(one_line(text, secrets), frozenset())
    codes: set[str] = set()
    _collect_codes(found, codes)
    if isinstance(document, Mapping):
        _collect_codes({"type": document.get("type")}, codes)
    param = found.get("param") if isinstance(found, Mapping) else None
    return ServerError(
        words=one_line(_message(found), secrets),
        codes=frozenset(codes),
        param=one_line(param, secrets) if isinstance(param, str) else "",
    )


def error_in(document: Any) -> Any:
    """The error that a JSON body reports, a text or an object; None if it reports none.

    An `error` that is null, empty or false reports none: some servers write it beside every answer.

    Args:
        document: the parsed body.

    Examples:
        >>> error_in({"error": {"message": "Overloaded"}})
        {'message': 'Overloaded'}
        >>> error_in({"choices": [], "error": None}) is None
        True
    """
    if isinstance(document, list):  # Google's compatible endpoint wraps its error in a list
        return next((found for entry in document if (found := error_in(entry)) is not None), None)
    if not isinstance(document, Mapping):
        return None
    if document.get("error"):
        error = document["error"]
        return {**document, "message": error} if isinstance(error, str) else error
    if document.get("object") == "error" or ("choices" not in document and _message(document)):
        return document
    return None


def one_line(text: str, secrets: Sequence[str] = ()) -> str:
    r"""A text in one line, cut to `MOST_CHARS`, without control characters and without secrets.

    Args:
        text: any text.
        secrets: texts to hide. One shorter than 8 characters is hidden where it is a whole word.

    Example:
        >>> one_line("no:\n  key abcdefgh12 is\tunknown", ["abcdefgh12"])
        'no: key [secret] is unknown'
    """
    # Hide first: cutting could leave half a key. Hide again: joining lines could make one.
    line = "".join(char if char.isprintable() else " " for char in hide_secrets(text, secrets))
    line = hide_secrets(" ".join(line.split()), secrets)
    return line if len(line) <= MOST_CHARS else line[: MOST_CHARS - 3].rstrip() + "..."


def hide_secrets(text: str, secrets: Sequence[str]) -> str:
    """The text with `[secret]` for each secret, also where it is URL-encoded, and for keys that a server echoes.

    Args:
        text: any text.
        secrets: texts to hide; empty ones are skipped.
    """
    forms = {form for secret in secrets for form in (secret, secret.strip(), quote(secret, safe=""))} - {""}
    forms |= {json.dumps(form)[1:-1] for form in forms}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _WORD_LENGTH:
            text = text.replace(form, HIDDEN)
        else:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", HIDDEN, text)
    return _ECHOED_KEY.sub(_hide_echo, text)


def _hide_echo(match: re.Match[str]) -> str:
    """Hides what looks like a key: masked with stars, or letters and digits. `key_error` stays."""
    word = match[0]
    return HIDDEN if "*" in word or (len(word) >= 16 and re.search(r"\d", word)) else word


def _message(error: Any) -> str:
    if isinstance(error, str):
        return error
    if isinstance(error, list):  # FastAPI: one entry a defect
        return "; ".join(filter(None, (_message(entry) for entry in error)))
    if not isinstance(error, Mapping):
        return ""
    for key in ("message", "msg", "detail", "error", "error_description"):
        message = _message(error.get(key))
        if message:
            place = error.get("loc")
            where = ".".join(map(str, place)) + ": " if isinstance(place, list) and place else ""
            return where + message + _upstream(error)
    return ""


def _upstream(error: Mapping[str, Any]) -> str:
    """What a router such as OpenRouter passes on from the server behind it."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    return f": {raw}" if isinstance(raw, str) and raw else ""


def _collect_codes(error: Any, codes: set[str]) -> None:
    if not isinstance(error, Mapping):
        return
    for key in _NAMES:
        code = error.get(key)
        if isinstance(code, (str, int)) and not isinstance(code, bool) and code != "":
            codes.add(str(code).lower())
    for key in ("error", "innererror"):
        _collect_codes(error.get(key), codes)


def _visible(text: str) -> str:
    """The text that a reader of a page sees; its title if that is all."""
    if not _LOOKS_LIKE_HTML.match(text):
        return text
    title = _TITLE.search(text)
    seen = html.unescape(_TAG.sub(" ", _SKIPPED_ELEMENT.sub(" ", text))).strip()
    named = html.unescape(title[1]).strip() if title else ""
    # Proxies repeat the title as the heading: say it once.
    return seen if not named or seen.startswith(named) else f"{named} {seen}"
