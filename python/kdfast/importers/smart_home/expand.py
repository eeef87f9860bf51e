"""Samples one sentence of a template, and what it means."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdfast.importers.smart_home.grammar import AFTER_OPTIONAL, BARE, END, Draw
from kdfast.importers.smart_home.pools import Pool
from kdfast.importers.smart_home.templates import Template

_DOUBLED = re.compile(r"(\w{4,})[ -]?\1\b", re.IGNORECASE)
"""One word twice: a template's "[lights]" after the name "fairy lights", German "[Geschoss]" after "Erdgeschoss"."""


@dataclass(frozen=True)
class Span:
    """A slot's text in a sentence.

    Attributes:
        start: the index of its first character.
        end: the index after its last.
        slot: the slot.
        source: the list that filled it.
        value: the argument.
        bare: whether no optional words ("the") were said right before it.
    """

    start: int
    end: int
    slot: str
    source: str
    value: Any
    bare: bool


@dataclass(frozen=True)
class Sentence:
    """A sentence of a template.

    Attributes:
        text: the sentence.
        spans: its slots, in the order of the sentence.
        arguments: the call's arguments, in the order of the tool's properties.
    """

    text: str
    spans: tuple[Span, ...]
    arguments: dict[str, Any]


def expand(
    template: Template, rng: random.Random, most_numbers: int, other: Mapping[str, Pool] | None = None
) -> Sentence | None:
    """A random sentence of a template; None if it is of no use.

    It has too many numbers, an optional part left out what is needed, or a name and its template say one word twice.

    Args:
        template: the template.
        rng: where chance comes from.
        most_numbers: the most numbers in a sentence.
        other: what fills some lists in place of the template's own pools.
    """
    pools: Mapping[str, Pool] = {**template.pools, **other} if other else template.pools
    draw = Draw(rng, lambda source: pools[source].draw(rng))
    marked = " ".join(template.node.say(draw).split())
    text, places = _unmark(marked)
    if _DOUBLED.search(text):
        return None
    spans = tuple(
        Span(start, end, one.slot, one.source, one.value, bare)
        for one, (start, end, bare) in zip(draw.fillings, places, strict=True)
    )
    values = {span.slot: span.value for span in spans}
    complete = template.needed <= values.keys() and len(values) == len(spans)
    if not complete or sum(span.source in template.numbers for span in spans) > most_numbers:
        return None
    values |= template.fixed
    return Sentence(text, spans, {slot: values[slot] for slot in template.order if slot in values})


def _unmark(marked: str) -> tuple[str, list[tuple[int, int, bool]]]:
    """The text without marks, and the start, end and bareness of each marked part."""
    pieces, places, length = [], [], 0
    *slots, rest = marked.split(END)
    for chunk in slots:
        mark = BARE if BARE in chunk else AFTER_OPTIONAL
        before, inside = chunk.split(mark)
        start = length + len(before)
        length = start + len(inside)
        pieces += [before, inside]
        places.append((start, length, mark == BARE))
    return "".join([*pieces, rest]), places
