"""Templates as trees that say one random sentence, and that tell what may fill them.

hassil parses the package's templates. Here each becomes a tree of five kinds of nodes. A node says its part of a
sentence; a slot's text stands between marks, so that it can be found when the sentence's spaces have been put in order.
"""

from __future__ import annotations

import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kdfast.errors import DataError
from kdfast.importers.smart_home.home_file import MARKS

BARE, END, AFTER_OPTIONAL = tuple(MARKS)
"""A slot's text begins with BARE, or AFTER_OPTIONAL where optional words such as "the" were said right before it."""


@dataclass
class Filling:
    """A slot that a sentence filled.

    Attributes:
        slot: the slot's name: the tool's argument.
        source: the name of the list that filled it.
        value: the argument.
    """

    slot: str
    source: str
    value: Any


@dataclass
class Draw:
    """One sentence in the making.

    Attributes:
        rng: where chance comes from.
        fill: gives the text and the argument for a list's name.
        fillings: the slots filled so far, in the order of the sentence.
        optional_said: whether optional words were said right before this place.
    """

    rng: random.Random
    fill: Callable[[str], tuple[str, Any]]
    fillings: list[Filling] = field(default_factory=list)
    optional_said: bool = False


class Node(ABC):
    """A part of a template."""

    items: tuple[Node, ...] = ()

    @abstractmethod
    def say(self, draw: Draw) -> str:
        """The text of this part, with chance where the template leaves a choice."""

    def slots(self) -> Iterator[Slot]:
        """All slots inside, also those in optional parts."""
        for item in self.items:
            yield from item.slots()

    def fewest(self, wanted: Callable[[Slot], bool]) -> int:
        """The least number of wanted slots that any sentence of this part fills."""
        return sum(item.fewest(wanted) for item in self.items)


class Text(Node):
    """Fixed text, with its spaces."""

    def __init__(self, text: str) -> None:
        self.text = text

    def say(self, draw: Draw) -> str:
        """The text."""
        if self.text and not self.text.isspace():
            draw.optional_said = False
        return self.text


class Chain(Node):
    """One part after the other."""

    def __init__(self, items: tuple[Node, ...]) -> None:
        self.items = items

    def say(self, draw: Draw) -> str:
        """All parts in their order."""
        return "".join([item.say(draw) for item in self.items])


class Choice(Node):
    """One of several parts."""

    def __init__(self, items: tuple[Node, ...], optional: bool) -> None:
        self.items = items
        self.optional = optional

    def say(self, draw: Draw) -> str:
        """One part; each is as likely."""
        text = self.items[int(draw.rng.random() * len(self.items))].say(draw)
        if text and not text.isspace():
            draw.optional_said = self.optional and END not in text
        return text

    def fewest(self, wanted: Callable[[Slot], bool]) -> int:
        """The least of any part."""
        return min(item.fewest(wanted) for item in self.items)


class AnyOrder(Node):
    """Parts that may come in any order."""

    def __init__(self, items: tuple[Node, ...]) -> None:
        self.items = items

    def say(self, draw: Draw) -> str:
        """All parts in a random order."""
        return "".join([item.say(draw) for item in draw.rng.sample(self.items, len(self.items))])


class Slot(Node):
    """What a list fills: `{timer_minutes:minutes}`."""

    def __init__(self, source: str, slot: str) -> None:
        self.source = source
        self.slot = slot

    def say(self, draw: Draw) -> str:
        """A text of the list, between marks."""
        begin = AFTER_OPTIONAL if draw.optional_said else BARE
        text, value = draw.fill(self.source)
        draw.fillings.append(Filling(self.slot, self.source, value))
        draw.optional_said = False
        return f"{begin}{text}{END}"

    def slots(self) -> Iterator[Slot]:
        """This slot."""
        yield self

    def fewest(self, wanted: Callable[[Slot], bool]) -> int:
        """One, if it is wanted."""
        return int(wanted(self))


class Grammar:
    """Parses the templates of one language; a rule `<name>` is parsed once.

    Args:
        rules: the language's rules by name.
        file: the language's file, for messages.

    Raises:
        DataError: hassil is not installed.
    """

    def __init__(self, rules: dict[str, str], file: str) -> None:
        try:
            import hassil.expression
            import hassil.parse_expression
        except ModuleNotFoundError:
            raise DataError(
                "smart_home needs the package hassil, which reads the templates; run `pip install 'kdfast[smart-home]'`"
            ) from None
        self._hassil = hassil.expression
        self._parse = hassil.parse_expression.parse_sentence
        self._rules = rules
        self._file = file
        self._open: list[str] = []
        self.rule = functools.cache(self._rule)

    def parse(self, template: str) -> Node:
        """The tree of a template.

        Raises:
            DataError: the template is broken, or names a rule that is not there.
        """
        from hassil.parser import ParseError

        try:
            return self._node(self._parse(template).expression)
        except (ParseError, AssertionError) as error:
            raise DataError(
                f"not a template that hassil can read ({error}): {template!r}", self._file
            ) from None

    def _rule(self, name: str) -> Node:
        if name not in self._rules:
            raise DataError(f"a template names a rule that is not there: <{name}>", self._file)
        if name in self._open:
            raise DataError(f"a rule contains itself: <{name}>", self._file)
        self._open.append(name)
        node = self.parse(self._rules[name])
        self._open.pop()
        return node

    def _node(self, expression: Any) -> Node:
        kinds = self._hassil
        if isinstance(expression, kinds.TextChunk):
            return Text(expression.original_text)
        if isinstance(expression, kinds.RuleReference):
            return self.rule(expression.rule_name)
        if isinstance(expression, kinds.ListReference):
            return Slot(expression.list_name, expression.slot_name)
        items = tuple(self._node(item) for item in expression.items)
        if isinstance(expression, kinds.Alternative):
            return Choice(items, expression.is_optional)
        return AnyOrder(items) if isinstance(expression, kinds.Permutation) else Chain(items)
