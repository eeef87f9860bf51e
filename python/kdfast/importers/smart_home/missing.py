"""Commands that break off: a call's sentence is cut before a slot that the call cannot do without."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdfast.importers.smart_home.automaton import Automaton
from kdfast.importers.smart_home.expand import Sentence, Span
from kdfast.importers.smart_home.templates import TRAIN, Template

_GAP_SHARE = 0.3
_SHORTER_SHARE = 1 / 3
_GAP_WORDS = 2


@dataclass(frozen=True)
class Cut:
    """A command that lacks a slot.

    Attributes:
        text: what is left of it.
        question: the question for what is missing.
        known: whether sentences of training templates can be cut at the same words.
    """

    text: str
    question: str
    known: bool


class Cutter:
    """Cuts sentences, and sees to it that what is left is no command.

    A cut sentence can be a whole command ("turn off the lights [in the kitchen]"). Whether it is one is read by the
    automaton of all templates: an index of the sentences that were drawn would miss most, as there are 10^12 of them.
    The automaton also knows every slot that could follow the cut, so that one beginning gets one question, whatever
    template it was cut from: the question that most ways to go on ask for. A beginning without one is not used.

    Args:
        reader: reads the sentences of all templates.
        questions: by slot, or by the list that fills it, the question for it.
        templates: all templates with calls. A slot is needed only where the tool has no template without it: "next song
            in the" is cut short, but "next song" is a command.
    """

    def __init__(
        self, reader: Automaton, questions: Mapping[str, str], templates: Sequence[Template] = ()
    ) -> None:
        self._reader = reader
        self._questions = questions
        self._complete = {(one.intent, one.needed.union(one.fixed)) for one in templates}

    def cut(self, sentence: Sentence, template: Template, rng: random.Random) -> Cut | None:
        """A sentence without one of its needed slots; None if nothing of use is left."""
        spans = [span for span in sentence.spans if span.slot in template.needed]
        if not spans:
            return None
        span = rng.choice(spans)
        before, after = sentence.text[: span.start], sentence.text[span.end :]
        words = before.split()
        if not words or not before.endswith(" "):  # the slot begins the sentence, or a word before its value
            return None
        gap = rng.random() < _GAP_SHARE and self._leaves_gap(span, template, words, after)
        said = [one for one in sentence.spans if one.end <= span.start]
        left = [one for one in sentence.spans if one is not span] if gap else said
        if (template.intent, frozenset(template.fixed).union(one.slot for one in left)) in self._complete:
            return None
        if gap:
            words += after.split()
        elif rng.random() < _SHORTER_SHARE and not (said and said[-1].end == len(before.rstrip())):
            del words[-1]  # "set a timer for" is also said as "set a timer"
        if len(words) <= sum(len(sentence.text[one.start : one.end].split()) for one in said):
            return None  # nothing, or names alone: "kitchen" breaks nothing off
        text = " ".join(words)
        own = self._questions.get(span.source) or self._questions[span.slot]
        question = own if gap else self._question(text, own)
        if question is None or self._reader.sentences_of(text):
            return None
        places = [*self._reader.open_slots(before), *self._reader.open_slots(text)]
        return Cut(text, question, known=any(part == TRAIN for _, _, part in places))

    def _leaves_gap(self, span: Span, template: Template, words: list[str], after: str) -> bool:
        """Whether people may leave out this slot and go on: "add [milk] to my shopping list".

        Not after "the" or "in the", and not a number before its unit. More than two words before it are mostly a
        preposition's.
        """
        number = span.source in template.numbers
        place = span.source in ("area", "floor")
        return after.startswith(" ") and span.bare and not number and not place and len(words) <= _GAP_WORDS

    def _question(self, text: str, own: str) -> str | None:
        """The question that most ways to go on ask for; None if no question has most: "add" may lack anything."""
        ways: Counter[str] = Counter()
        for (slot, source, _), count in self._reader.open_slots(text).items():
            question = self._questions.get(source) or self._questions.get(slot)
            if question:
                ways[question] += count
        if not ways:  # a word comes before the slot: "set a timer", for how long?
            return own
        best = max(ways, key=lambda question: (ways[question], question))
        return best if 2 * ways[best] > ways.total() else None
