"""What may fill a slot: names of the home, values of the package, numbers, or a whole command."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from kdfast.errors import DataError
from kdfast.importers.smart_home.grammar import AnyOrder, Choice, Draw, Grammar, Node, Slot, Text
from kdfast.importers.smart_home.home import Home
from kdfast.importers.smart_home.numbers import Range, Speaker, family_of
from kdfast.importers.smart_home.source import Package

COMMAND = "timer_command"
"""The list that takes a whole command: "turn off the fan in 5 minutes"."""


class Pool(Protocol):
    """What may fill a slot."""

    def draw(self, rng: random.Random) -> tuple[str, Any]:
        """A text and the argument that it means."""

    def texts(self) -> Sequence[str]:
        """All texts."""


class Texts:
    """Texts that mean themselves."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def draw(self, rng: random.Random) -> tuple[str, str]:
        """One of the texts, as text and as argument."""
        text = self._texts[int(rng.random() * len(self._texts))]
        return text, text

    def texts(self) -> Sequence[str]:
        """All texts."""
        return self._texts


class Values:
    """Values of the package: what is said may be a template, and the argument is another word for it.

    Args:
        values: what is said and what it means.
    """

    def __init__(self, values: Sequence[tuple[Node, Any]]) -> None:
        self._values = values

    def draw(self, rng: random.Random) -> tuple[str, Any]:
        """What is said and what it means."""
        node, value = self._values[int(rng.random() * len(self._values))]
        return " ".join(node.say(Draw(rng, _no_slot)).split()), value

    def texts(self) -> Sequence[str]:
        """All that may be said."""
        return [" ".join(text.split()) for node, _ in self._values for text in every_text(node)]

    def meanings(self) -> list[Any]:
        """The arguments, without repetition, in the package's order."""
        return list(dict.fromkeys(value for _, value in self._values))


class Commands:
    """Whole commands. `say` is set once the templates are known."""

    say: Callable[[random.Random], str]

    def draw(self, rng: random.Random) -> tuple[str, str]:
        """A command, as text and as argument."""
        text = self.say(rng)
        return text, text

    def texts(self) -> Sequence[str]:
        """Nothing: they are too many to list."""
        return ()


def _no_slot(name: str) -> tuple[str, Any]:
    raise DataError(f"a slot inside a list's value: {{{name}}}; such a list is not understood here")


def every_text(node: Node) -> Iterator[str]:
    """All texts of a tree without slots, with their surplus spaces.

    Example:
        >>> sorted(every_text(Choice((Text("tv "), Text("")), optional=True)))
        ['', 'tv ']
    """
    if isinstance(node, Text):
        yield node.text
    elif isinstance(node, Slot):
        _no_slot(node.source)
    elif isinstance(node, Choice):
        for item in node.items:
            yield from every_text(item)
    else:
        orders = itertools.permutations(node.items) if isinstance(node, AnyOrder) else [node.items]
        for order in orders:
            for texts in itertools.product(*[list(every_text(item)) for item in order]):
                yield "".join(texts)


class Lists:
    """The lists of one language in one home.

    Args:
        package: the language's templates.
        home: the home.
        grammar: parses what is said for a value.

    Attributes:
        left_out: how many of the package's values mean several arguments at once; a tool's slot takes one.
    """

    def __init__(self, package: Package, home: Home, grammar: Grammar) -> None:
        self.left_out = 0
        self._home = home
        self._pools: dict[str, Pool] = {"area": Texts(home.areas), "floor": Texts(home.floors)}
        words = number_words(package.language)
        for name, definition in package.lists.items():
            if "range" in definition:
                span, usual = Range.of(definition["range"]), home.numbers.usual
                family = name if name in usual else family_of(name, definition["range"])
                self._pools[name] = Speaker(span, family, home.numbers, words, package.language)
            elif "values" in definition:
                values = [(grammar.parse(one["in"]), one["out"]) for one in definition["values"]]
                single = [(node, out) for node, out in values if isinstance(out, (str, int, float))]
                self.left_out += len(values) - len(single)
                if single:
                    self._pools[name] = Values(single)
            elif name in home.values:
                self._pools[name] = Texts(home.values[name])
        self.commands = Commands()
        if package.lists.get(COMMAND, {}).get("wildcard") and COMMAND not in home.values:
            self._pools[COMMAND] = self.commands
        self.free = {name for name, definition in package.lists.items() if definition.get("wildcard")}
        self._check_values(package)

    def pool(self, source: str, domains: Sequence[str]) -> Pool | None:
        """What fills `{source}`; None = nothing in this home.

        Args:
            source: the list's name.
            domains: whose names fill `{name}`.
        """
        if source != "name":
            return self._pools.get(source)
        key = f"name of {', '.join(domains)}"
        if key not in self._pools and (names := self.names(domains)):
            self._pools[key] = Texts(names)
        return self._pools.get(key)

    def names(self, domains: Sequence[str]) -> list[str]:
        """The names of the devices of these domains; each once."""
        devices = self._home.devices
        return list(dict.fromkeys(name for domain in domains for name in devices.get(domain, ())))

    def _check_values(self, package: Package) -> None:
        known = self.free - {COMMAND}
        lacking = sorted(known - set(self._home.values))
        if lacking:
            raise DataError(
                f"values: no texts for {', '.join(lacking)}; add each with a list of texts", self._home.file
            )
        surplus = sorted(set(self._home.values) - self.free)
        if surplus:
            raise DataError(
                f"values.{surplus[0]}: the language {package.language!r} has no list of free text with this name; "
                f"it has {', '.join(sorted(known))}",
                self._home.file,
            )


def number_words(language: str) -> Callable[[int], str] | None:
    """Says a whole number in words; None if the language's rules are not known.

    Example:
        >>> words = number_words("en")
        >>> words(25)
        'twenty-five'
    """
    from hassil.numbers import get_rbnf_engine

    try:
        engine = get_rbnf_engine(language)
        engine.format_number(1)  # of Norwegian Bokmål, the engine has a file without rules
    except ValueError:
        return None
    known: dict[int, str] = {}

    def words(number: int) -> str:
        if number not in known:
            known[number] = str(engine.format_number(number).text).replace("\u00ad", "")
        return known[number]

    return words
