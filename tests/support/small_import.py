"""The parts of an import of the small home, before rows are drawn."""

import random
from dataclasses import dataclass

import small_intents

from kdfast.importers.smart_home.automaton import Automaton
from kdfast.importers.smart_home.calls import Calls
from kdfast.importers.smart_home.grammar import Grammar
from kdfast.importers.smart_home.home import Home, load_home
from kdfast.importers.smart_home.pools import Lists
from kdfast.importers.smart_home.source import Package, read_package
from kdfast.importers.smart_home.templates import Templates, hold_out, read_templates


@dataclass
class Parts:
    package: Package
    home: Home
    lists: Lists
    templates: Templates
    calls: Calls
    reader: Automaton

    def sentences(self, count, seed=0):
        """Sentences with their templates; every template has its turn."""
        rng = random.Random(seed)
        found = []
        while len(found) < count:
            template = self.templates.calls[len(found) % len(self.templates.calls)]
            sentence = self.calls.sentence(template, rng)
            if sentence is not None:
                found.append((template, sentence))
        return found


def parts(source, home=small_intents.HOME, language=small_intents.LANGUAGE, share=0.2, seed=0):
    package = read_package(source, language)
    own = load_home(language, home)
    grammar = Grammar(package.rules, str(source))
    lists = Lists(package, own, grammar)
    templates = read_templates(package, own, grammar, lists)
    hold_out(templates.calls, share, seed)
    calls = Calls(templates.calls, own)
    lists.commands.say = calls.command
    return Parts(package, own, lists, templates, calls, Automaton(templates.calls, calls.commands))
