"""What makes two sentences the same."""

from __future__ import annotations

import re

_NO_WORD = re.compile(r"[\W_]+")


def fold(text: str) -> str:
    """The text without case, punctuation and surplus spaces: the key by which sentences are compared.

    Example:
        >>> fold("Turn on the  Desk-Lamp, please!")
        'turn on the desk lamp please'
    """
    return " ".join(_NO_WORD.sub(" ", text.casefold()).split()) or text.casefold().strip()


def core(text: str) -> str:
    """The letters and digits of a text: two that differ in spaces and marks alone are one sentence to a listener.

    Example:
        >>> core("What's on?") == core("whats on")
        True
    """
    return _NO_WORD.sub("", text.casefold()) or text.casefold().strip()
