"""Every warning of the small run becomes a finding of its own."""

from __future__ import annotations

from dataclasses import replace

from preflight_objects import clean, find

from kdfast.recipes.preflight.look import look_once

NAME = "warnings.nothing_warns"


def findings(*warnings):
    objects = clean().replaced(run=replace(clean().get("run"), warnings=warnings))
    return look_once(find(NAME), objects)


def test_without_a_warning_it_passes():
    found = findings()
    assert [one.status for one in found] == ["pass"]
    assert found[0].text.startswith("no library warned in ")


def test_the_clean_run_has_no_warning():
    assert [one.text for one in look_once(find(NAME), clean()) if one.status != "pass"] == []


def test_each_warning_is_told_once_on_one_line():
    found = findings("UserWarning: slow\n  path", "FutureWarning: gone soon", "UserWarning: slow path", "  ")
    assert [one.status for one in found] == ["warn", "warn"]
    assert [one.text for one in found] == ["UserWarning: slow path", "FutureWarning: gone soon"]
    assert all(one.remedy for one in found)


def test_a_long_warning_is_cut():
    (found,) = findings("x" * 1000)
    assert found.text == "x" * 300 + "..."
