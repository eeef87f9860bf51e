"""Counts what is private in a record before it leaves the machine, and replaces it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from kdfast.files import parse_json
from kdfast.teacher.api.private_patterns import KINDS, Kind, find_private, is_card

_PLACEHOLDER = re.compile(r"\[(?:KEY|EMAIL|CARD|PHONE)_\d+\]")
_JSON_START = re.compile(r"\s*[\[{]")
# A key with its colon, a text, or a number that is long enough for a card.
_JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(?<![\w.+-])\d{14,16}(?![\w.])')


def count_private(record: Any) -> Counter[Kind]:
    """How often each kind of private text is in a record.

    Args:
        record: JSON values: a text, or nested lists and objects. A text that is itself JSON is read as such.

    Example:
        >>> count_private({"messages": [{"role": "user", "content": "I am ann@work.org"}]})
        Counter({'email': 1})
    """
    redactor = Redactor()
    redactor.redact(record)
    return redactor.counts


class Redactor:
    """Replaces what is private by placeholders such as `[EMAIL_1]`; the same value gets the same placeholder.

    Take a new one for each record. Then a record's placeholders depend on this record alone, and so does the hash of
    its request; no record tells that another one has the same address. Numbers that differ only in their separators,
    and addresses that differ only in case, are the same value.

    Attributes:
        counts: how often each kind was replaced.

    Example:
        >>> Redactor().redact({"to": "ann@work.org", "call": '{"cc": ["ANN@work.org", "bob@work.org"]}'})
        {'to': '[EMAIL_1]', 'call': '{"cc": ["[EMAIL_1]", "[EMAIL_2]"]}'}
    """

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._placeholders: dict[tuple[Kind, str], str] = {}
        self._taken: set[str] = set()

    def redact(self, record: Any) -> Any:
        """A copy of JSON values with placeholders.

        Text that is JSON keeps everything but the replaced texts, byte for byte. A card number that is a JSON number
        becomes a text.

        Args:
            record: JSON values. Keys of objects are looked at, too.
        """
        # A record that speaks of "[EMAIL_1]" itself must not get it as a placeholder.
        self._taken.update(_PLACEHOLDER.findall(json.dumps(record, ensure_ascii=False)))
        return self._value(record, "")

    def _value(self, value: Any, label: str) -> Any:
        if isinstance(value, str):
            return self._text(value, label)
        if isinstance(value, Mapping):
            return {self._text(key, ""): self._value(entry, key) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._value(entry, label) for entry in value]
        if isinstance(value, int) and not isinstance(value, bool) and is_card(str(value)):
            return self._placeholder("card", str(value))
        return value

    def _text(self, text: str, label: str) -> str:
        if _is_json(text):
            return self._json_text(text)
        parts: list[str] = []
        at = 0
        for found in find_private(text, label):
            parts += [text[at : found.start], self._placeholder(found.kind, found.value)]
            at = found.end
        return "".join([*parts, text[at:]])

    def _json_text(self, text: str) -> str:
        r"""Inside JSON text, escapes hide where a value begins: `"\nann@work.org"` is no `nann@work.org`."""
        label = ""

        def replaced(match: re.Match[str]) -> str:
            nonlocal label
            if match[1] is None:
                number = match[0]
                return json.dumps(self._placeholder("card", number)) if is_card(number) else number
            said = json.loads(match[1])
            is_key = match[2] is not None
            redacted = self._text(said, "" if is_key else label)
            label = said if is_key else label
            return (
                match[0] if redacted == said else json.dumps(redacted, ensure_ascii=False) + (match[2] or "")
            )

        return _JSON_TOKEN.sub(replaced, text)

    def _placeholder(self, kind: Kind, value: str) -> str:
        self.counts[kind] += 1
        same = re.sub(r"[^\d+]", "", value) if kind in ("phone", "card") else value
        key = (kind, same.lower() if kind == "email" else same)
        if key not in self._placeholders:
            number = sum(known == kind for known, _ in self._placeholders) + 1
            while (placeholder := f"[{kind.upper()}_{number}]") in self._taken:
                number += 1
            self._placeholders[key] = placeholder
            self._taken.add(placeholder)
        return self._placeholders[key]


def summary(counts: Mapping[Kind, int]) -> str:
    """The counts in words; "" if nothing was found.

    Args:
        counts: of `count_private` or of a redactor.

    Example:
        >>> summary(Counter({"email": 2, "key": 1}))
        '1 key, 2 e-mail addresses'
    """
    names = {
        "key": ("key", "keys"),
        "email": ("e-mail address", "e-mail addresses"),
        "card": ("card number", "card numbers"),
        "phone": ("phone number", "phone numbers"),
    }
    return ", ".join(f"{counts[kind]} {names[kind][counts[kind] > 1]}" for kind in KINDS if counts.get(kind))


def _is_json(text: str) -> bool:
    if not _JSON_START.match(text):
        return False
    try:
        parse_json(text)
    except ValueError:
        return False
    return True
