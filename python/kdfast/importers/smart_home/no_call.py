"""Draws sentences that need no call, of every kind."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdfast.errors import DataError
from kdfast.importers.smart_home.automaton import Automaton
from kdfast.importers.smart_home.calls import Calls
from kdfast.importers.smart_home.expand import expand
from kdfast.importers.smart_home.home import Home
from kdfast.importers.smart_home.missing import Cutter
from kdfast.importers.smart_home.politeness import polite
from kdfast.importers.smart_home.pools import Texts
from kdfast.importers.smart_home.records import Row
from kdfast.importers.smart_home.templates import TRAIN, Template, Templates, by_part

SHARES = {
    "missing_slot": 0.38,
    "out_of_domain": 0.16,
    "unknown_device": 0.2,
    "unknown_area": 0.1,
    "irrelevant": 0.07,
    "few_words": 0.05,
    "greeting": 0.03,
    "nevermind": 0.01,
}
"""The share of each kind in the rows without a call."""

NO_CALL_TEMPLATE, NO_CALL_SENTENCE = "held_out_no_call_template", "held_out_no_call_sentence"
UNKNOWN_NAME = "held_out_unknown_name"

_INCOMPLETE_SHARE = 0.02
"""The share of whole sentences that lack a slot, where the language has such, among the training rows that do."""

_INVENTED_SHARE = 0.6
"""The share of unknown names in training that are invented: a list of real ones would be learned by heart."""

_WHOLE = ("irrelevant", "greeting", "nevermind", "few_words")
"""Kinds to which no polite words are added: whole questions of other people, and what is no request."""

Maker = Callable[[str, random.Random], Row | None]


class NoCalls:
    """Draws sentences that need no call.

    Training, validation and test use different cut templates, unknown names, sentence templates and questions. Only
    greetings and the like are too few to be divided: there the sentences differ.

    Args:
        templates: the templates of the language.
        calls: draws commands, to be cut or to be given unknown names.
        home: the home.
        reader: reads the sentences of all templates.
        questions: other people's questions that no tool of a home answers.
        held_out: the share to hold out, and the seed that chooses what.
    """

    def __init__(
        self,
        templates: Templates,
        calls: Calls,
        home: Home,
        reader: Automaton,
        questions: Sequence[str],
        held_out: tuple[float, int],
    ) -> None:
        self._templates = templates
        self._calls = calls
        self._home = home
        self._reader = reader
        self._cutter = Cutter(reader, home.answers.missing, templates.calls)
        share, seed = held_out
        self._sentences = by_part(home.sentences, share, seed, "sentence")
        self._few_words = by_part(home.few_words, share, seed, "few words")
        self._questions = by_part(questions, share, seed, "question")
        self._areas = by_part(home.unknown_areas, share, seed, "area")
        devices = [(domain, name) for domain, names in home.unknown_devices.items() for name in names]
        self._devices = by_part(devices, share, seed, "device")
        self._fill = {**home.fill, "area": home.areas, "light": home.devices.get("light", home.areas)}
        self._spoken: dict[str, list[Template]] = defaultdict(list)
        for template in templates.spoken:
            self._spoken[template.intent].append(template)
        self._named_by_text = {
            template.intent
            for template in templates.calls
            for slot in template.node.slots()
            if slot.slot == "name" and slot.source != "name"
        }
        self._check_answers()
        self.makers = self._makers()

    def _makers(self) -> dict[str, Maker]:
        """Draws a row of each kind that there are sentences for."""
        makers: dict[str, Maker] = {
            "missing_slot": self.missing_slot,
            "out_of_domain": self._out_of_domain,
            "unknown_device": self._unknown_device,
            "unknown_area": self._unknown_area,
            "few_words": self._few,
        }
        if self._questions[TRAIN]:
            makers["irrelevant"] = self._irrelevant
        if self._spoken["HassRespond"]:
            makers["greeting"] = self._greeting
        if self._spoken["HassNevermind"]:
            makers["nevermind"] = self._nevermind
        return makers

    def _check_answers(self) -> None:
        answers, file = self._home.answers, self._home.file
        needed = {slot for template in self._templates.calls for slot in template.needed}
        needed |= {slot for template in self._templates.incomplete for slot in template.lacking}
        if lacking := sorted(needed - set(answers.missing)):
            raise DataError(
                f"answers.missing: no question for the slots {', '.join(lacking)}; add them", file
            )
        said = {template.response for template in self._spoken["HassRespond"]}
        if lacking := sorted(said - set(answers.responses)):
            raise DataError(f"answers.responses: no text for {', '.join(lacking)}; add it", file)

    def missing_slot(self, part: str, rng: random.Random, *, known: bool = False) -> Row | None:
        """A command that breaks off.

        Args:
            part: the part of the template that is cut. At words where training templates can be cut, a held-out one is
                not.
            rng: where chance comes from.
            known: cut a training template, for the rows of a held-out file whose sentence alone is new.
        """
        if part == TRAIN and self._templates.incomplete and rng.random() < _INCOMPLETE_SHARE:
            return self._incomplete(rng)
        cut_part = TRAIN if known else part
        if not self._calls.has(cut_part):
            return None
        template = self._calls.template(cut_part, rng)
        sentence = self._calls.sentence(template, rng)
        cut = self._cutter.cut(sentence, template, rng) if sentence else None
        if cut is None or (part != TRAIN and cut.known and not known):
            return None
        slice_name = NO_CALL_SENTENCE if known else _slice(part, NO_CALL_TEMPLATE)
        return self._row("missing_slot", cut.text, cut.question, template, slice_name, rng)

    def _incomplete(self, rng: random.Random) -> Row | None:
        """A whole sentence that leaves it to the speaker's room what is meant: "vacuum here"."""
        template = rng.choice(self._templates.incomplete)
        sentence = self._calls.sentence(template, rng)
        if sentence is None or self._reader.sentences_of(sentence.text):
            return None
        question = self._home.answers.missing[template.lacking[0]]
        return self._row("missing_slot", sentence.text, question, template, TRAIN, rng)

    def _unknown_device(self, part: str, rng: random.Random) -> Row | None:
        template = self._calls.template(TRAIN, rng)
        groups = {
            one: [name for domain, name in self._devices[one] if domain in template.domains]
            for one in {TRAIN, part}
        }
        used = groups[part] if self._devices[part] else groups[TRAIN]
        if "name" not in template.pools or not used:
            return None
        name, slice_name = _pick(groups, part, UNKNOWN_NAME, rng)
        if part == TRAIN and rng.random() < _INVENTED_SHARE:
            name = invented(groups[TRAIN], rng)
        return self._unknown("unknown_device", template, {"name": Texts([name])}, slice_name, rng)

    def _unknown_area(self, part: str, rng: random.Random) -> Row | None:
        template = self._calls.template(TRAIN, rng)
        # "the cellar timer" may be a timer's name: whether a room is meant cannot be known.
        if "area" not in template.pools or template.intent in self._named_by_text:
            return None
        name, slice_name = _pick(self._areas, part, UNKNOWN_NAME, rng)
        if part == TRAIN and rng.random() < _INVENTED_SHARE:
            name = invented(self._areas[TRAIN], rng)
        return self._unknown("unknown_area", template, {"area": Texts([name])}, slice_name, rng)

    def _unknown(
        self, kind: str, template: Template, names: Mapping[str, Texts], slice_name: str, rng: random.Random
    ) -> Row | None:
        sentence = expand(template, rng, self._home.numbers.most, names)
        if sentence is None or all(span.source not in names for span in sentence.spans):
            return None
        answers = self._home.answers
        answer = answers.unknown_device if kind == "unknown_device" else answers.unknown_area
        return self._row(kind, sentence.text, answer, template, slice_name, rng)

    def _out_of_domain(self, part: str, rng: random.Random) -> Row | None:
        sentence, slice_name = _pick(self._sentences, part, NO_CALL_TEMPLATE, rng)
        text = sentence.format_map(_Filled(self._fill, rng))
        return self._row("out_of_domain", text, self._home.answers.refusal, sentence, slice_name, rng)

    def _few(self, part: str, rng: random.Random) -> Row | None:
        (say, answer), slice_name = _pick(self._few_words, part, NO_CALL_TEMPLATE, rng)
        return self._row("few_words", say, answer, say, slice_name, rng)

    def _irrelevant(self, part: str, rng: random.Random) -> Row | None:
        question, slice_name = _pick(self._questions, part, NO_CALL_TEMPLATE, rng)
        return self._row("irrelevant", question, self._home.answers.refusal, question, slice_name, rng)

    def _greeting(self, part: str, rng: random.Random) -> Row | None:
        template = rng.choice(self._spoken["HassRespond"])
        return self._said("greeting", template, self._home.answers.responses[template.response], part, rng)

    def _nevermind(self, part: str, rng: random.Random) -> Row | None:
        template = rng.choice(self._spoken["HassNevermind"])
        return self._said("nevermind", template, self._home.answers.nevermind, part, rng)

    def _said(self, kind: str, template: Template, answer: str, part: str, rng: random.Random) -> Row | None:
        sentence = self._calls.sentence(template, rng)
        if sentence is None:
            return None
        return self._row(kind, sentence.text, answer, template.text, _slice(part, NO_CALL_SENTENCE), rng)

    def _row(
        self, kind: str, text: str, answer: str, origin: Template | str, slice_name: str, rng: random.Random
    ) -> Row | None:
        """The row of a sentence; None if the sentence is a command of this home after all."""
        if kind != "missing_slot" and self._reader.sentences_of(text):
            return None
        plain = text
        if kind not in _WHOLE:
            text = polite(text, rng, self._home.polite)
        intent, source = (origin.intent, origin.text) if isinstance(origin, Template) else ("", origin)
        return Row(text, kind, slice_name, intent, source, answer=answer, plain=plain)


def invented(names: Sequence[str], rng: random.Random) -> str:
    """A name that nobody knows, from the beginning of one name and the end of another: words, or letters of one word.

    Example:
        >>> [invented(["lava lamp", "rice cooker"], random.Random(seed)) for seed in (4, 5)]
        ['lava cooker', 'riker']
    """
    first, last = rng.choice(names).split(), rng.choice(names).split()
    if rng.random() < 0.5 and len(first) > 1:
        return " ".join([*first[:-1], last[-1]])
    begin, end = first[0], last[-1]
    word = begin[: max(1, len(begin) // 2)] + end[len(end) // 2 :]
    return " ".join([word, *last[1:]]) if len(last) > 1 and rng.random() < 0.5 else word


def _slice(part: str, held_out: str) -> str:
    return TRAIN if part == TRAIN else held_out


def _pick(
    groups: Mapping[str, Sequence[Any]], part: str, held_out: str, rng: random.Random
) -> tuple[Any, str]:
    """Something of this part, and its slice. Where none is held out, one of training: only the sentence is new."""
    if own := groups[part]:
        return rng.choice(own), _slice(part, held_out)
    return rng.choice(groups[TRAIN]), NO_CALL_SENTENCE


class _Filled(dict[str, Any]):
    """Fills each place of a sentence when it is read, so that two places of one name may differ."""

    def __init__(self, fill: Mapping[str, Sequence[str]], rng: random.Random) -> None:
        super().__init__()
        self._fill = fill
        self._rng = rng

    def __missing__(self, key: str) -> str:
        return self._rng.choice(self._fill[key])
