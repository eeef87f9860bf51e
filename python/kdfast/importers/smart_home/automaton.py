"""Reads sentences as the templates do: is a text a whole command, and which slot could come next?

A closed home's sentences are a regular language, so an automaton reads a text one character at a time. Its states are
made when a text first needs them, and kept: the sentences of one import share their beginnings, so most characters
cost one look-up. (hassil's own recognizer reads the same templates; for thousands of cut sentences it takes minutes.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdfast.importers.smart_home.grammar import Chain, Choice, Node, Slot, Text
from kdfast.importers.smart_home.pools import Commands
from kdfast.importers.smart_home.templates import Template

Opening = tuple[str, str, str]
"""A slot, the list that fills it, and the part of its template."""


class _Trie:
    """The texts of a list, by their characters."""

    __slots__ = ("children", "ends")

    def __init__(self) -> None:
        self.children: dict[str, _Trie] = {}
        self.ends = False

    @classmethod
    def of(cls, texts: Iterable[str]) -> _Trie:
        root = cls()
        for text in texts:
            node = root
            for character in text.casefold():
                node = node.children.setdefault(character, cls())
            node.ends = True
        return root


_NOTHING = Counter[Opening]()


@dataclass(eq=False)
class Place:
    """Where the automaton is after a text.

    Attributes:
        waiting: what may come next: parts of templates that begin with a character.
        whole: the numbers of the templates of which the text is a whole sentence.
        slots: which slots may begin here, each with the number of ways that lead there.
        after: the places after one more character, as far as they are known.
    """

    waiting: tuple[int, ...]
    whole: frozenset[int]
    slots: Counter[Opening]
    after: dict[str, Place] = field(default_factory=dict)


class Automaton:
    """Reads texts by templates.

    Args:
        templates: what is a sentence.
        commands: what fills a slot that takes a whole command.
    """

    def __init__(self, templates: Sequence[Template], commands: Sequence[Template]) -> None:
        self._templates = templates
        self._owners = [*templates, *commands]
        self._commands = range(len(templates), len(self._owners))
        # A part of a template that is still to be read has a number, and in these lists: what, the position in it, the
        # part after it, and its template. (Lists of tuples would be searched by the garbage collector.)
        self._what: list[Any] = []
        self._position: list[int] = []
        self._rest: list[int] = []
        self._owner: list[int] = []
        self._numbers: dict[tuple[int | str, int, int, int], int] = {}
        self._following: list[
            int
        ] = []  # for a part that is a text: the part without its first character, or -1
        self._tries: dict[int, _Trie] = {}
        self._opened: dict[tuple[int, bool], Place] = {}
        self._places: dict[tuple[tuple[int, ...], bool], Place] = {}
        ends = [self._part(None, owner, -1, owner) for owner in range(len(templates))]
        self._start = self._place(
            [self._part(template.node, 0, ends[owner], owner) for owner, template in enumerate(templates)],
            True,
        )

    def sentences_of(self, text: str) -> list[Template]:
        """The templates of which `text` is a whole sentence, in any case of letters."""
        return [self._templates[number] for number in sorted(self._read(text).whole)]

    def open_slots(self, text: str) -> Counter[Opening]:
        """Which slots may come right after `text`, each with the number of ways that lead there."""
        return self._read(text).slots

    def _read(self, text: str) -> Place:
        """The place after the text and one space."""
        place = self._start
        for character in f"{' '.join(text.split())} ".casefold():
            following = place.after.get(character)
            if following is None:
                following = place.after[character] = self._after(place, character)
            place = following
            if not place.waiting:
                break
        return place

    def _after(self, place: Place, character: str) -> Place:
        found = []
        for number in place.waiting:
            what = self._what[number]
            if what is None:  # an end: the space after the last word leads to it again
                if character == " ":
                    found.append(number)
            elif isinstance(what, str):
                if what[0] == character:
                    following = self._following[number]
                    if following < 0:
                        following = self._part(what[1:], 0, self._rest[number], self._owner[number])
                        self._following[number] = following
                    found.append(following)
            elif character in what.children:
                child = what.children[character]
                found.append(self._part(child, 0, self._rest[number], self._owner[number]))
        return self._place(found, character == " ")

    def _part(self, what: Any, position: int, rest: int, owner: int) -> int:
        key = (what if isinstance(what, str) else id(what), position, rest, owner)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._what)
            self._what.append(what)
            self._position.append(position)
            self._rest.append(rest)
            self._owner.append(owner)
            self._following.append(-1)
        return number

    def _place(self, numbers: list[int], after_space: bool) -> Place:
        """The place where any of these parts comes next."""
        key = tuple(sorted(set(numbers))), after_space
        place = self._places.get(key)
        if place is None:
            waiting, whole, slots = set[int](), set[int](), _NOTHING
            for number in key[0]:
                what = self._what[number]
                if isinstance(what, str) and what and not (after_space and what[0] == " "):
                    waiting.add(number)
                    continue
                opened = self._opened_part(number, after_space)
                waiting.update(opened.waiting)
                whole.update(opened.whole)
                if opened.slots:
                    slots = slots + opened.slots
            place = Place(tuple(sorted(waiting)), frozenset(whole), slots)
            self._places[key] = place
        return place

    def _opened_part(self, start: int, after_space: bool) -> Place:
        """The place where one part comes next: it is opened until everything inside begins with a character."""
        key = start, after_space
        if key in self._opened:
            return self._opened[key]
        waiting, whole, slots = [], set(), list[Opening]()
        seen, stack = {start}, [start]
        while stack:
            number = stack.pop()
            what, rest, owner = self._what[number], self._rest[number], self._owner[number]
            opened: list[int] = []
            if what is None:
                whole.add(owner)
                waiting.append(number)
            elif isinstance(what, str):
                if not what:
                    opened = [rest]
                elif what[0] == " " and after_space:  # where optional words are left out, two spaces are one
                    opened = [self._part(what[1:], 0, rest, owner)]
                else:
                    waiting.append(number)
            elif isinstance(what, _Trie):
                opened = [rest] if what.ends else []
                if what.children:
                    waiting.append(number)
            elif isinstance(what, Slot):
                slots.append((what.slot, what.source, self._owners[owner].part))
                opened = self._filled(what, rest, owner)
            else:
                opened = self._inside(what, self._position[number], rest, owner)
            new = [part for part in opened if part not in seen]
            seen.update(new)
            stack += new
        counted = Counter(slots) if slots else _NOTHING
        place = self._opened[key] = Place(tuple(sorted(waiting)), frozenset(whole), counted)
        return place

    def _inside(self, node: Node, position: int, rest: int, owner: int) -> list[int]:
        """What comes next where a text, a choice, a chain, or parts in any order come next."""
        if isinstance(node, Text):
            return [self._part(node.text.casefold(), 0, rest, owner)]
        if isinstance(node, Choice):
            return [self._part(item, 0, rest, owner) for item in node.items]
        if isinstance(node, Chain):
            if position == len(node.items):
                return [rest]
            after = self._part(node, position + 1, rest, owner)
            return [self._part(node.items[position], 0, after, owner)]
        if position == 2 ** len(node.items) - 1:  # a bit for each item that has been read
            return [rest]
        return [
            self._part(item, 0, self._part(node, position | 1 << index, rest, owner), owner)
            for index, item in enumerate(node.items)
            if not position >> index & 1
        ]

    def _filled(self, slot: Slot, rest: int, owner: int) -> list[int]:
        pool = self._owners[owner].pools[slot.source]
        if isinstance(pool, Commands):
            return [self._part(self._owners[one].node, 0, rest, one) for one in self._commands]
        trie = self._tries.get(id(pool))
        if trie is None:
            trie = self._tries[id(pool)] = _Trie.of(pool.texts())
        return [self._part(trie, 0, rest, owner)]
