"""The table of checks: names, what they need, and who answers for what cannot be made."""

from __future__ import annotations

import inspect
import re
from itertools import groupby

from kdfast.recipes.preflight.made.makers import MAKERS
from kdfast.recipes.preflight.made.objects import needs
from kdfast.recipes.preflight.table import CHECKS

GIVEN = {"config", "request", "work", "objects"}
GROUPS = (
    "config", "machine", "data", "tokens", "batch", "model", "losses", "learning", "teacher", "run", "qat",
    "checkpoint", "speed", "export", "warnings",
)  # fmt: skip


def test_every_group_is_there_and_its_checks_follow_each_other() -> None:
    assert tuple(group for group, _ in groupby(CHECKS, lambda check: check.group)) == GROUPS


def test_names_are_unique_and_readable() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+\.[a-z0-9_]+", name) for name in names)


def test_what_a_check_proves_is_one_sentence() -> None:
    for check in CHECKS:
        assert check.proves[0].isupper() or check.proves.startswith(
            ("kdfast", "llama.cpp", "transformers")
        ), check.name
        assert check.proves.endswith("."), check.name
        assert len(check.proves) <= 160, check.name


def test_parameters_name_objects() -> None:
    for function in [check.look for check in CHECKS] + list(MAKERS.values()):
        assert set(needs(function)) <= GIVEN | set(MAKERS), inspect.getsource(function)


def test_every_object_has_one_check_that_answers_for_it() -> None:
    owned = [name for check in CHECKS for name in check.owns]
    assert sorted(owned) == sorted(MAKERS)


def test_a_check_needs_what_it_answers_for() -> None:
    objects = {name: needs(maker) for name, maker in MAKERS.items()}

    def all_needs(names: tuple[str, ...]) -> set[str]:
        return set(names).union(*(all_needs(objects.get(name, ())) for name in names))

    for check in CHECKS:
        assert set(check.owns) <= all_needs(needs(check.look)), check.name
