"""The templates of one language that this home can say, and which of them are held out."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdfast.importers.smart_home.grammar import Grammar, Node
from kdfast.importers.smart_home.home import Home
from kdfast.importers.smart_home.numbers import Speaker
from kdfast.importers.smart_home.pools import Lists, Pool
from kdfast.importers.smart_home.source import Package

NO_TOOL = ("HassNevermind", "HassRespond")
"""Intents that do nothing: their sentences are answered without a call."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(eq=False)
class Template:
    """One template of the package.

    Attributes:
        intent: the intent that it calls.
        combination: the package's name for the slots that it fills.
        text: the template as the package writes it.
        node: the template as a tree.
        domains: the domains whose names fill `{name}`.
        pools: what fills each list that it names.
        numbers: the lists among them that are numbers.
        fixed: arguments that the template implies.
        order: all arguments that its call may have, in the order of the tool's properties.
        needed: the slots without which its call cannot be made.
        lacking: slots that the tool requires and that only the context of a speaker gives.
        response: the package's name of what is said back.
        part: TRAIN, VALIDATION or TEST: the only files that may hold sentences of it.
    """

    intent: str
    combination: str
    text: str
    node: Node
    domains: tuple[str, ...]
    pools: dict[str, Pool]
    fixed: dict[str, Any]
    order: tuple[str, ...]
    needed: frozenset[str]
    lacking: tuple[str, ...] = ()
    response: str = ""
    part: str = TRAIN
    numbers: frozenset[str] = frozenset()


@dataclass
class Templates:
    """The templates of one language in one home.

    Attributes:
        calls: those that call a tool.
        incomplete: those whose call lacks a required slot: a question must follow.
        spoken: those that are answered without a call.
        left_out: how many templates this home cannot use, by reason.
    """

    calls: list[Template] = field(default_factory=list)
    incomplete: list[Template] = field(default_factory=list)
    spoken: list[Template] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_templates(package: Package, home: Home, grammar: Grammar, lists: Lists) -> Templates:
    """Parses the templates and sorts them by what this home can do with them.

    Raises:
        DataError: a template is broken.
    """
    result = Templates()
    for intent, blocks in package.blocks.items():
        for block in blocks:
            domains = _domains(package, intent, block, home)
            for text in block["sentences"]:
                template = _template(package, intent, block, text, grammar.parse(text))
                template.domains = domains
                reason = _fill(template, package, lists, home)
                if reason:
                    result.left_out[reason] += 1
                elif intent in NO_TOOL:
                    result.spoken.append(template)
                else:
                    (result.incomplete if template.lacking else result.calls).append(template)
    return result


def _domains(package: Package, intent: str, block: dict[str, Any], home: Home) -> tuple[str, ...]:
    """The domains of the names that fit, from the block or from what the package says of its combination of slots."""
    required = block.get("requires_context", {}).get("domain")
    if required is None:
        combinations = package.intents[intent].get("slot_combinations", {})
        groups = combinations.get(block["metadata"]["slot_combination"], {}).get("name_domains", {})
        required = [domain for group in groups.values() for domain in group] or list(home.devices)
    return (required,) if isinstance(required, str) else tuple(required)


def _template(package: Package, intent: str, block: dict[str, Any], text: str, node: Node) -> Template:
    combination = block["metadata"]["slot_combination"]
    fixed = dict(block.get("slots", {}))
    found = {slot.slot for slot in node.slots()}
    order = list(package.intents[intent].get("slots", {}))
    required = {name for name, slot in package.intents[intent].get("slots", {}).items() if slot["required"]}
    of_combination = (
        package.intents[intent].get("slot_combinations", {}).get(combination, {}).get("slots", [])
    )
    return Template(
        intent=intent,
        combination=combination,
        text=text,
        node=node,
        domains=(),
        pools={},
        fixed=fixed,
        order=tuple(slot for slot in order if slot in found or slot in fixed),
        needed=frozenset((required | set(of_combination)) & found - set(fixed)),
        lacking=tuple(sorted(required - found - set(fixed))),
        response=str(block.get("response", "")),
    )


def _fill(template: Template, package: Package, lists: Lists, home: Home) -> str:
    """Gives the template its pools. Returns why this home cannot use it, or ""."""
    known = package.intents[template.intent].get("slots", {})
    for slot in template.node.slots():
        if slot.slot not in known:
            return f"the intent has no slot {slot.slot!r}"
        pool = lists.pool(slot.source, template.domains)
        if pool is None:
            what = " or ".join(template.domains) if slot.source == "name" else f"{{{slot.source}}}"
            return f"nothing in this home is a {what}" if slot.source == "name" else f"no list {what}"
        template.pools[slot.source] = pool
    template.numbers = frozenset(name for name, pool in template.pools.items() if isinstance(pool, Speaker))
    if unknown := [slot for slot in template.fixed if slot not in known]:
        return f"the intent has no slot {unknown[0]!r}"
    numbers = template.node.fewest(lambda slot: slot.source in template.numbers)
    if numbers > home.numbers.most:
        return f"more than {home.numbers.most} numbers in a sentence"
    unknowable = [slot for slot in template.lacking if slot != "area"]
    return f"without the required slot {unknowable[0]!r}" if unknowable else ""


def hold_out(templates: Sequence[Template], share: float, seed: int) -> None:
    """Chooses the templates that only test (two thirds of the share) and only validation (one third) may use.

    The order in which they are chosen is that of a hash of seed and template. A template is chosen only if another one
    with the same intent, combination of slots, domains and fixed arguments stays in training: the call itself must
    be known. The same text in several blocks of an intent has one fate.

    Args:
        templates: all templates; their `part` is set.
        share: the share of templates to hold out.
        seed: another seed holds out others.
    """
    groups: dict[tuple[Any, ...], int] = Counter(_group(template) for template in templates)
    units: dict[tuple[str, str], list[Template]] = defaultdict(list)
    for template in templates:
        units[template.intent, template.text].append(template)
    left = {TEST: round(share * 2 / 3 * len(templates)), VALIDATION: 0}
    left[VALIDATION] = round(share * len(templates)) - left[TEST]
    for unit in sorted(
        units.values(), key=lambda unit: place(seed, "template", unit[0].intent, unit[0].text)
    ):
        own = Counter(_group(template) for template in unit)
        part = next((part for part, count in left.items() if count >= len(unit)), None)
        if part is None:
            break
        if all(groups[group] > count for group, count in own.items()):
            left[part] -= len(unit)
            for template in unit:
                template.part = part
                groups[_group(template)] -= 1


def _group(template: Template) -> tuple[Any, ...]:
    return template.intent, template.combination, template.domains, tuple(sorted(template.fixed.items()))


def place(seed: int, *what: str) -> int:
    """A number that depends on nothing but the seed and these texts: the place in a random order."""
    return int.from_bytes(hashlib.sha256("\0".join([str(seed), *what]).encode()).digest()[:8])


def by_part(items: Sequence[Any], share: float, seed: int, kind: str) -> dict[str, list[Any]]:
    """Splits things in the shares of the templates, by a hash of seed and thing.

    Example:
        >>> {part: len(items) for part, items in by_part(range(40), 0.15, 0, "number").items()}
        {'train': 34, 'test': 4, 'validation': 2}
    """
    ordered = sorted(items, key=lambda item: place(seed, kind, str(item)))
    test, held = round(share * 2 / 3 * len(ordered)), round(share * len(ordered))
    if held == len(ordered):  # training needs one
        test, held = 0, 0
    return {TRAIN: ordered[held:], TEST: ordered[:test], VALIDATION: ordered[test:held]}
