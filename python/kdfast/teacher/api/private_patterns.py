"""Finds e-mail addresses, phone and card numbers and keys in a text, by pattern alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["email", "phone", "card", "key"]

KINDS: tuple[Kind, ...] = ("key", "email", "card", "phone")
"""All kinds, in the order in which they are looked for: what is found is hidden from the later ones."""

_Span = tuple[Kind, int, int]


@dataclass(frozen=True)
class Found:
    """Something private in a text.

    Attributes:
        kind: what it is.
        start: its first character.
        end: the character after its last one.
        value: the text from `start` to `end`.
    """

    kind: Kind
    start: int
    end: int
    value: str


_KEYS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|\Z)",
    r"(?<![\w.-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",  # JSON Web Token
    r"(?<![\w-])(sk|pk|rk)-(?=[\w-]*\d)(?=[\w-]*[A-Za-z0-9]{16})[\w-]{20,}",
    r"(?<![\w-])(sk|rk|pk)_(live|test)_[A-Za-z0-9]{16,}",
    r"(?<!\w)(AKIA|ASIA)[0-9A-Z]{16}(?!\w)",
    r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,}",
    r"(?<!\w)github_pat_\w{50,}",
    r"(?<![\w-])glpat-[\w-]{20,}",
    r"(?<![\w-])xox[abeprs]-(?=[\w-]*\d)[\w-]{10,}",
    r"(?<!\w)(hf|gsk|npm|xai)_(?=\w*\d)[A-Za-z0-9]{30,}",
    r"(?<![\w-])AIza[\w-]{35}(?![\w-])",
    r"(?<=[Bb]earer )(?=[\w.~+/-]*\d)[\w.~+/-]{24,}=*",
    r"(?<=://)[^\s/:@\"']{1,64}:[^\s/:@\"']{1,128}(?=@[\w.-]+)",  # name and password in an address
)
_KEY = re.compile("|".join(_KEYS), re.DOTALL)
_EMAIL = re.compile(
    r"(?<![\w.%+'-])[\w%+'-][\w.%+'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:[^\W\d_]{2,24}|xn--[\w-]{2,59})(?![\w-])"
)
# "icon@2x.png" is a file, "git@host.org:a/b" a repository.
_NO_EMAIL = re.compile(r".*\.(png|jpe?g|gif|svg|webp|js|ts|css|py|json|html?)|git@.*", re.IGNORECASE)
# A look-ahead, so that every place is tried: in "1234 4111 1111 1111 1111" the card begins at the second group.
_CARD = re.compile(
    r"(?<![\w.,+-])(?=(\d{14,16}|\d{4}([ -])\d{4}\2\d{4}\2\d{4}|\d{4}([ -])\d{6}\3\d{4,5})(?![\w-]|[.,]\d))"
)
_ISSUERS = re.compile(
    r"4\d{15}|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(?:6011\d\d|65\d{4}|64[4-9]\d{3}|62\d{4}|35(?:2[89]|[3-8]\d)\d\d)\d{10}|3(?:0[0-5]|[68]\d)\d{11}"
)
# A separator may stand before each digit. A number ends with two digits in a row: the last 2 of "+44 20 7946 0958 2"
# counts something else.
_DIGIT = r"(?:[ ()/-]{0,2}|\.(?=\d\d))\d"
_END = r"(?<=\d\d)(?![\w-]|[.,/]\d)"
_PHONE = re.compile(
    r"(?<![\w+.,-])(?:"
    rf"\+[1-9](?:{_DIGIT}){{7,14}}"
    r"|(?:1[ .-])?\([2-9]\d\d\) ?[2-9]\d\d[ .-]\d{4}"
    r"|(?:1[.-])?[2-9]\d\d([.-])[2-9]\d\d\1\d{4}"
    r"|0[1-9](?: \d\d){4}"  # France
    rf"){_END}"
)
_LABEL = r"(?:tele)?(?:phone|fon|fax)|tel|mobile?|cell(?:ular|phone)?|handy|whatsapp|sms|msisdn"
_LABELLED = re.compile(
    rf"(?<![^\W_])(?:{_LABEL})(?:[ _-]?(?:number|no|nr|nummer))?\b[^\w+(]{{0,4}}(?:is |at |to |me at )?"
    rf"(?P<number>[+(]?\d(?:{_DIGIT}){{6,14}}){_END}",
    re.IGNORECASE,
)
_LABEL_OF_VALUE = re.compile(rf"(?:{_LABEL})(?:number|no|nr|nummer)?", re.IGNORECASE)
_NUMBER = re.compile(rf"\s*[+(]?\d(?:{_DIGIT}){{6,14}}\s*")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def find_private(text: str, label: str = "") -> list[Found]:
    """Finds what is private in a text, in its order and without overlaps.

    Args:
        text: any text.
        label: the key under which it stands in an object, such as `phone_number`: then plain digits are a phone number.

    Example:
        >>> [(found.kind, found.value) for found in find_private("Mail ann@work.org or call +44 20 7946 0958.")]
        [('email', 'ann@work.org'), ('phone', '+44 20 7946 0958')]
    """
    found: list[Found] = []
    # What is found hides no neighbour: the next patterns see a blank of the same length.
    for spans_of in (_keys, _emails, _cards, _phones, _labelled_phones):
        spans = list(spans_of(text))
        found += [Found(kind, start, end, text[start:end]) for kind, start, end in spans]
        text = _blanked(text, spans)
    if _names_a_phone(label) and _NUMBER.fullmatch(text):
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        found.append(Found("phone", start, end, text[start:end]))
    return sorted(found, key=lambda each: each.start)


def is_card(digits: str) -> bool:
    """Whether digits are a card number: an issuer's first digits, its length, and the check digit of Luhn.

    Args:
        digits: digits without separators.

    Examples:
        >>> is_card("4111111111111111"), is_card("4111111111111112"), is_card("1111111111111117")
        (True, False, False)
    """
    if not _ISSUERS.fullmatch(digits):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(int(digit) for digit in digits[::-2])) % 10 == 0


def _blanked(text: str, spans: list[_Span]) -> str:
    parts: list[str] = []
    at = 0
    for _, start, end in spans:
        parts += [text[at:start], "\0" * (end - start)]
        at = end
    return "".join([*parts, text[at:]])


def _keys(text: str) -> Iterator[_Span]:
    return (("key", *match.span()) for match in _KEY.finditer(text))


def _emails(text: str) -> Iterator[_Span]:
    return (("email", *match.span()) for match in _EMAIL.finditer(text) if not _NO_EMAIL.fullmatch(match[0]))


def _cards(text: str) -> Iterator[_Span]:
    last = 0
    for match in _CARD.finditer(text):
        start, end = match.span(1)
        if start >= last and is_card(re.sub(r"\D", "", match[1])):
            last = end
            yield "card", start, end


def _phones(text: str) -> Iterator[_Span]:
    return (("phone", *match.span()) for match in _PHONE.finditer(text) if _is_phone(match[0]))


def _labelled_phones(text: str) -> Iterator[_Span]:
    return (("phone", *match.span("number")) for match in _LABELLED.finditer(text))


def _is_phone(value: str) -> bool:
    """Without a separator, `+` and few digits are more often a sum: `+10000000`."""
    return not (value[1:].isdigit() and len(value) <= 10)


def _names_a_phone(label: str) -> bool:
    return any(_LABEL_OF_VALUE.fullmatch(word) for word in _WORDS.findall(label))
