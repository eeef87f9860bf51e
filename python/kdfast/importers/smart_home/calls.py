"""Draws commands: sentences that call a tool."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from kdfast.importers.smart_home.expand import Sentence, expand
from kdfast.importers.smart_home.home import Home
from kdfast.importers.smart_home.politeness import polite
from kdfast.importers.smart_home.records import CALL, Row
from kdfast.importers.smart_home.templates import TRAIN, Template

_FREE_TEXT = {"message": 8, "search_query": 2, "shopping_list_item": 2, "todo_list_item": 2}
"""How much more often training draws intents with free text: copying takes more practice than choosing a name."""

COMMAND_INTENTS = ("HassTurnOn", "HassTurnOff")
"""What a timer may do when it ends."""


class Calls:
    """Draws commands, intents by the square root of the number of their templates.

    Args:
        templates: the templates that call, with their parts.
        home: the home.
    """

    def __init__(self, templates: Sequence[Template], home: Home) -> None:
        self._home = home
        self._templates: dict[str, dict[str, list[Template]]] = defaultdict(lambda: defaultdict(list))
        for template in templates:
            self._templates[template.part][template.intent].append(template)
        count = Counter(template.intent for template in templates)
        self._weights = {intent: math.sqrt(number) + 2 for intent, number in count.items()}
        self._practice = dict(self._weights)
        for template in templates:
            for slot in template.node.slots():
                factor = _FREE_TEXT.get(slot.source, 1)
                own = self._weights[template.intent] * factor
                self._practice[template.intent] = max(self._practice[template.intent], own)
        self.commands = [t for intent in COMMAND_INTENTS for t in self._templates[TRAIN].get(intent, [])]

    def has(self, part: str) -> bool:
        """Whether any template belongs to this part."""
        return bool(self._templates[part])

    def template(self, part: str, rng: random.Random, *, practice: bool = False) -> Template:
        """A template of this part.

        Args:
            part: TRAIN, VALIDATION or TEST.
            rng: where chance comes from.
            practice: draw intents with free text more often.
        """
        groups = self._templates[part]
        weights = self._practice if practice else self._weights
        intents = list(groups)
        intent = rng.choices(intents, [weights[name] for name in intents])[0]
        return rng.choice(groups[intent])

    def sentence(self, template: Template, rng: random.Random) -> Sentence | None:
        """A sentence of a template, without polite words."""
        return expand(template, rng, self._home.numbers.most)

    def row(
        self,
        part: str,
        slice_name: str,
        rng: random.Random,
        accept: Callable[[Sentence], bool] | None = None,
    ) -> Row | None:
        """A command as a row; None if the sentence had to be discarded.

        Args:
            part: the part of the template.
            slice_name: the row's slice.
            rng: where chance comes from.
            accept: looks at the sentence, still without polite words; False discards it.
        """
        template = self.template(part, rng, practice=slice_name == TRAIN)
        sentence = self.sentence(template, rng)
        if sentence is None or (accept is not None and not accept(sentence)):
            return None
        text = polite(sentence.text, rng, self._home.polite, after=not self._ends_freely(sentence))
        plain = sentence.text
        return Row(text, CALL, slice_name, template.intent, template.text, sentence.arguments, plain=plain)

    def _ends_freely(self, sentence: Sentence) -> bool:
        """Whether it ends with free text: "announce that dinner is ready now" does not say when to announce it."""
        last = sentence.spans[-1] if sentence.spans else None
        return last is not None and last.end == len(sentence.text) and last.source in self._home.values

    def command(self, rng: random.Random) -> str:
        """A command that a timer may run, from a template of the training part."""
        while True:
            sentence = self.sentence(rng.choice(self.commands), rng)
            if sentence is not None:
                return sentence.text
