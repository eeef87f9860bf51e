"""A server's log-probabilities as a record's `teacher_topk`: only where its tokens are those of `data.tokenizer`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any

from kdfast._rust import Tokenizer
from kdfast.errors import DataError

_MOST_MASS = 1.0 + 5e-3
"""What the reader of records allows: servers round."""
_TOO_UNLIKELY = -9999.0
"""Stands for a log-probability that the server does not say (OpenAI), or for minus infinity (vLLM)."""
_LOST = "\ufffd".encode()
"""Stands for bytes that are no text by themselves, whichever they were."""
_TOKEN_ID = re.compile(r"token_id:([0-9]{1,9})")
_ESCAPED_BYTES = re.compile(r"bytes:(?:\\x[0-9a-fA-F]{2})+")


_NONE = "no log-probabilities"
_OTHERS = "tokens that are not those of data.tokenizer"
_FORM = "a form that kdfast does not know"


class _UnusableError(ValueError):
    """Why the log-probabilities cannot be used: a few fixed words, by which answers are counted, and the place."""


def teacher_topk(
    choice: Mapping[str, Any], text: str, tokenizer: Tokenizer
) -> tuple[dict[str, Any] | None, str]:
    """The log-probabilities of an answer's tokens, if the server's tokens are those of the student.

    The tokens that the server generated must be the tokens of `text`, one by one. Before them there may be others
    (reasoning, white space that the server took away), and after them only ends of a turn. An alternative that is no
    single token of `tokenizer` is left out, and so is one without a number: their mass stays in the tail. Nothing is
    renormalised.

    Args:
        choice: one choice of a reply, with `logprobs` as OpenAI, vLLM, SGLang, Fireworks or llama.cpp write them, or
            with llama.cpp's `completion_probabilities`.
        text: what the student learns of it: the completion's text, or the message's content.
        tokenizer: the student's tokenizer.

    Returns:
        `{"ids": [[int]], "logprobs": [[float]]}` and "", one list a token of `text`, natural logarithms; a list is
        empty where the server gave nothing. Or None, and the reason: a few fixed words, a colon, and the place.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        >>> model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
        >>> file = Path(tempfile.mkdtemp()) / "tokenizer.json"
        >>> _ = file.write_text(json.dumps({"model": model, "pre_tokenizer": bytes_of, "decoder": bytes_of}))
        >>> tokenizer = Tokenizer.from_file(file)
        >>> said = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -1.0}]}
        >>> teacher_topk({"logprobs": said}, "a", tokenizer)
        ({'ids': [[1, 0]], 'logprobs': [[-1.0, -0.5]]}, '')
        >>> teacher_topk({"logprobs": said}, "b", tokenizer)
        (None, "tokens that are not those of data.tokenizer: token 0 of the answer is 'a', here it is 'b'")
    """
    try:
        expected = tokenizer.encode(text)
        if not expected:
            raise _UnusableError("no tokens", "the answer is empty")
        vocabulary = _vocabulary(tokenizer)
        positions = _of_text(_positions(choice), expected, vocabulary)
        lists = [
            _known(position, token, place, vocabulary)
            for place, (position, token) in enumerate(zip(positions, expected, strict=True))
        ]
        if not any(lists):
            raise _UnusableError(_NONE, "the server names tokens, and gives no number for any of them")
    except _UnusableError as reason:
        return None, ": ".join(reason.args)
    except DataError as reason:
        return None, f"no tokens: {reason}"
    return {
        "ids": [list(found) for found in lists],
        "logprobs": [list(found.values()) for found in lists],
    }, ""


@dataclass(frozen=True)
class _Token:
    """A token as the server names it.

    Attributes:
        id: its id; None = not said.
        data: its bytes; None = not said, b"" = it adds nothing to the text.
        logprob: None = not known.
    """

    id: int | None
    data: bytes | None
    logprob: float | None

    @property
    def shown(self) -> str:
        text = f"{self.data.decode(errors='replace')!r}" if self.data is not None else ""
        return text if self.id is None else f"{text} (id {self.id})".lstrip()


@dataclass(frozen=True)
class _Position:
    """A generated token, and the likeliest ones in its place."""

    chosen: _Token
    others: Sequence[_Token]


class _Vocabulary:
    """Which token of the student a server's token is."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special: set[int] = set()
        self._ids: dict[bytes, int | None] = {}  # None: several tokens have these bytes, or a special one
        for token in range(tokenizer.vocab_size):
            data = tokenizer.token_bytes(token)
            special = tokenizer.special_id(data.decode(errors="replace")) == token
            if special:
                self._special.add(token)
            if data:
                self._ids[data] = None if special or data in self._ids else token

    def id_of(self, token: _Token) -> int | None:
        """The id; None if it cannot be told, or if the server's id and bytes contradict each other here."""
        if token.id is None:
            return self._ids.get(token.data or b"") if _is_exact(token.data) else None
        if not 0 <= token.id < self._tokenizer.vocab_size:
            most = self._tokenizer.vocab_size
            raise _UnusableError(_OTHERS, f"there are {most} here, and the server gives the id {token.id}")
        contradicts = _is_exact(token.data) and token.data != self._tokenizer.token_bytes(token.id)
        return None if contradicts else token.id

    def is_same(self, token: _Token, expected: int) -> bool:
        """Whether it is certainly the student's token with this id."""
        if token.id is not None:
            return self.id_of(token) == expected
        return _is_exact(token.data) and token.data == self._tokenizer.token_bytes(expected)

    def is_end(self, token: _Token) -> bool:
        """Whether it may stand after the text: a special token, or one that adds nothing to it."""
        if token.id is not None:
            return self.id_of(token) in self._special or token.data == b""
        data = token.data
        return data is not None and (
            not data or self._tokenizer.special_id(data.decode(errors="replace")) is not None
        )

    def shown(self, token: int) -> str:
        return repr(self._tokenizer.token_bytes(token).decode(errors="replace"))


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Tokenizer) -> _Vocabulary:
    return _Vocabulary(tokenizer)


def _is_exact(data: bytes | None) -> bool:
    return bool(data) and data is not None and _LOST not in data


def _of_text(
    positions: Sequence[_Position], expected: Sequence[int], vocabulary: _Vocabulary
) -> Sequence[_Position]:
    """The positions of the text: the last ones, but for ends of a turn."""
    closest, reason = -1, ""
    for end in range(len(positions), -1, -1):
        part = positions[max(0, end - len(expected)) : end]
        pairs = zip(reversed(part), reversed(expected), strict=False)
        same = list(takewhile(lambda pair: vocabulary.is_same(pair[0].chosen, pair[1]), pairs))
        if len(same) == len(expected):
            return part
        if len(same) > closest:
            closest, reason = len(same), _difference(part, expected, len(same), vocabulary)
        if not end or not vocabulary.is_end(positions[end - 1].chosen):
            break
    raise _UnusableError(_OTHERS, reason)


def _difference(
    part: Sequence[_Position], expected: Sequence[int], same: int, vocabulary: _Vocabulary
) -> str:
    """Where the last tokens of the server and of the text differ; `same` of them do not."""
    if same == len(part):
        return f"the answer has {len(expected)} here, and {same} came from the server"
    token, place = part[-same - 1].chosen, len(expected) - same - 1
    found = f"token {place} of the answer is {token.shown}, here it is {vocabulary.shown(expected[place])}"
    if token.id is None and not _is_exact(token.data):
        found += "; ask for ids (vLLM: return_tokens_as_token_ids in api.extra_body)"
    return found


def _known(position: _Position, expected: int, place: int, vocabulary: _Vocabulary) -> dict[int, float]:
    """What is known of a position: log-probabilities by id. The generated token is among them, if its own is known."""
    found: dict[int, float] = {}
    for token in position.others:
        known = vocabulary.id_of(token)
        if known is not None and token.logprob is not None:
            found.setdefault(known, token.logprob)
    if position.chosen.logprob is not None:
        found.setdefault(expected, position.chosen.logprob)
    mass = math.fsum(math.exp(logprob) for logprob in found.values())
    if mass > _MOST_MASS:
        raise _UnusableError("no natural logarithms", f"the probabilities of token {place} sum to {mass:.4f}")
    return found


def _positions(choice: Mapping[str, Any]) -> list[_Position]:
    """What the server says of each token that it generated."""
    given = choice.get("completion_probabilities") or choice.get("logprobs")
    if isinstance(given, Mapping):
        given = given.get("content") or _rows(given)
    if not given:
        raise _UnusableError(_NONE, "the server gives none, or was not asked")
    if not isinstance(given, list):
        raise _UnusableError(_FORM, f"logprobs: expected one entry a token, got {type(given).__name__}")
    positions = [_position(entry, place) for place, entry in enumerate(given)]
    ids = choice.get("token_ids")
    if not isinstance(ids, list) or len(ids) != len(positions):
        return positions
    return [
        replace(position, chosen=replace(position.chosen, id=_integer(token), data=None))
        if position.chosen.id is None and _integer(token) is not None
        else position
        for position, token in zip(positions, ids, strict=True)
    ]


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The form of `completions`: lists beside each other."""
    names = {
        "token": "tokens",
        "logprob": "token_logprobs",
        "top_logprobs": "top_logprobs",
        "id": "token_ids",
    }
    tokens = columns.get("tokens")
    if not isinstance(tokens, list):
        return []
    lists: list[list[Any]] = []
    for name in names.values():
        column = columns.get(name)
        if column is None:
            column = [None] * len(tokens)
        if not isinstance(column, list) or len(column) != len(tokens):
            raise _UnusableError(_FORM, f"logprobs.{name}: expected a list as long as logprobs.tokens")
        lists.append(column)
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]


def _position(entry: Any, place: int) -> _Position:
    if isinstance(entry, Mapping) and "top_probs" in entry:
        # Of what is left after top_k and the like, at the request's temperature: not what the model says.
        raise _UnusableError("probabilities after sampling", "take post_sampling_probs out of api.extra_body")
    others = (entry.get("top_logprobs") or entry.get("probs")) if isinstance(entry, Mapping) else None
    if isinstance(others, Mapping):
        others = [{"token": token, "logprob": logprob} for token, logprob in others.items()]
    if others is not None and not isinstance(others, list):
        raise _UnusableError(
            _FORM, f"logprobs: token {place}: expected a list of alternatives, got {type(others).__name__}"
        )
    return _Position(_token(entry, place), [_token(other, place) for other in others or []])


def _token(given: Any, place: int) -> _Token:
    if isinstance(given, list):  # SGLang's own form: log-probability, id, text
        logprob, number, text = [*given, None, None, None][:3]
        given = {"logprob": logprob, "id": number, "token": text}
    if not isinstance(given, Mapping):
        raise _UnusableError(
            _FORM, f"logprobs: token {place}: expected an object, got {type(given).__name__}"
        )
    names = (given.get(key) for key in ("token", "tok_str", "content"))
    text = next((name for name in names if isinstance(name, str)), None)
    number = _integer(given.get("id", given.get("token_id")))
    logprob = _logprob(given["logprob"] if "logprob" in given else _logarithm(given.get("prob")))
    named = _TOKEN_ID.fullmatch(text or "")
    if named is not None:  # vLLM's bytes are those of the words "token_id:..." then
        return _Token(int(named[1]) if number is None else number, None, logprob)
    return _Token(number, _bytes(given.get("bytes"), text), logprob)


def _bytes(data: Any, text: str | None) -> bytes | None:
    """The bytes of a token, said as numbers or as a text."""
    if isinstance(data, list) and data:
        try:
            return bytes(data)
        except (TypeError, ValueError):
            return None
    if text is None:
        return None
    if _ESCAPED_BYTES.fullmatch(text):
        return bytes.fromhex(text.removeprefix("bytes:").replace("\\x", ""))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _logprob(value: Any) -> float | None:
    """A number that says something; None for null, NaN, minus infinity and what stands for it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > _TOO_UNLIKELY:
        return None
    return float(min(value, 1.0))  # above 0 it is wrong, and the sum shows it


def _logarithm(probability: Any) -> float | None:
    if isinstance(probability, bool) or not isinstance(probability, int | float) or not probability > 0:
        return None
    return min(math.log(probability), 1.0)
