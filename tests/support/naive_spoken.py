"""Tells an attempt at a call from prose in which its mark is only spoken of, the slow, obvious way."""

from __future__ import annotations

CALL_TAGS = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
OF_NAMES = LETTERS + "0123456789_-."
LONGEST = 64


def said_is_prose(said: str, gap: str) -> bool | None:
    """Whether what follows an opening and white space is prose; None = the text ends too early to tell."""
    verdicts = (prefix_is_prose(said[:end], gap) for end in range(1, min(len(said), LONGEST + 1) + 1))
    return next((verdict for verdict in verdicts if verdict is not None), None)


def prefix_is_prose(said: str, gap: str) -> bool | None:
    """The same for the beginning of what follows."""
    first = said[0]
    if len(said.encode()) > LONGEST:
        return True
    if first == "<":
        return tag_is_prose(said, gap)
    if first in "\"'":
        return quoted_is_prose(said[1:])
    if first == "`":
        return begins(said, ["```"])
    return name_is_prose(said, gap[:1] == " ") if first in LETTERS + "_" else True


def quoted_is_prose(said: str) -> bool | None:
    """The same for what follows a quote."""
    if said[:1] in ("{", "["):
        return False
    rest = said.lstrip(OF_NAMES)
    return key_ends(rest) if said else None


def key_ends(rest: str) -> bool | None:
    """None = no quote and colon yet, as a key of JSON has; False = they are there; True = something else is."""
    if not rest or (rest[0] in "\"'" and not rest[1:].strip(" ")):
        return None
    return rest[0] not in "\"'" or rest[1:].lstrip(" ")[0] != ":"


def tag_is_prose(said: str, gap: str) -> bool | None:
    """The same for what begins with `<`."""
    if said in CALL_TAGS:
        return True
    if said in ("<", "</") or any(tag.startswith(said) for tag in CALL_TAGS):
        return None
    if gap[:1] == " " or (not gap and said[1] == "/"):
        return True
    return begins(said, ["</tool_call>"]) if said.startswith("</") else said[1] not in LETTERS


def name_is_prose(said: str, spaced: bool) -> bool | None:
    """The same for what begins with a letter."""
    name = said[: len(said) - len(said.lstrip(OF_NAMES))]
    more = said[len(name) :]
    if not more:
        return None
    if spaced and more[0] in "({[":
        return True
    if more[0] in ":({":
        return more[0] == ":" and name not in ("name", "tool", "function", "call")
    if more[0] in "\"'":
        return key_ends(more)
    if more[0] == "[":
        return begins(more, ["[ARGS]", "[CALL_ID]"])
    return begins(more.lstrip(" \n\r\t\f"), ["<arg_key>"])


def begins(said: str, marks: list[str]) -> bool | None:
    """False = this is one of the marks; None = the beginning of one; True = neither."""
    if said in marks:
        return False
    return None if any(mark.startswith(said) for mark in marks) else True
