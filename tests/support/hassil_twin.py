"""hassil's own reader and sampler, as slow twins of the automaton and the sampler."""

import itertools

from hassil.intents import Intents, TextSlotList
from hassil.parse_expression import parse_sentence
from hassil.recognize import recognize_all
from hassil.sample import sample_expression

from kdfast.importers.smart_home.templates import NO_TOOL

COMMAND = "timer_command"


class Recognizer:
    """Reads sentences with hassil. Free text is that of the home only, as in the automaton; no command is nested."""

    def __init__(self, parts):
        package, home = parts.package, parts.home
        blocks = {
            name: {"data": [one for one in group if not any(COMMAND in text for text in one["sentences"])]}
            for name, group in package.blocks.items()
            if name not in NO_TOOL
        }
        lists = {
            name: {"values": list(home.values[name])} if name in home.values else definition
            for name, definition in package.lists.items()
            if name != COMMAND
        }
        self._intents = Intents.from_dict(
            {
                "language": package.language,
                "intents": blocks,
                "lists": lists,
                "expansion_rules": package.rules,
            }
        )
        names = [(name, name, {"domain": domain}) for domain, own in home.devices.items() for name in own]
        self._lists = {
            "area": TextSlotList.from_strings(home.areas),
            "floor": TextSlotList.from_strings(home.floors),
            "name": TextSlotList.from_tuples(names, name="name"),
        }
        self._language = package.language

    def read(self, text):
        """All meanings of a text: (intent, arguments without the speaker's room)."""
        found = set()
        results = recognize_all(
            text,
            self._intents,
            slot_lists=self._lists,
            intent_context={"area": "here"},
            language=self._language,
        )
        for result in results:
            values = {
                name: entity.value.strip() if isinstance(entity.value, str) else entity.value
                for name, entity in result.entities.items()
            }
            arguments = {name: value for name, value in values.items() if (name, value) != ("area", "here")}
            found.add((result.intent.name, tuple(sorted(arguments.items()))))
        return found


def every_sentence(template, rules, most):
    """Every sentence of a template by hassil's sampler; None if there are more than `most`."""
    lists = {
        name: TextSlotList.from_strings([text.replace("%", "") for text in pool.texts()])
        for name, pool in template.pools.items()
    }
    parsed = {name: parse_sentence(text) for name, text in rules.items()}
    texts = sample_expression(parse_sentence(template.text).expression, lists, parsed)
    found = {" ".join(text.split()) for text in itertools.islice(texts, most + 1)}
    return found if len(found) <= most else None
