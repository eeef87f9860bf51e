"""Every warning of the small runs and the exports becomes a finding of its own."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
from preflight_objects import clean, find
from preflight_slow import copied_run

from kdfast.recipes.preflight.look import look_once
from kdfast.recipes.preflight.made.small_run import Exported, export_small

NAME = "warnings.nothing_warns"


def objects_with(run=(), resumed=(), exports=()):
    """The clean objects, in which the run, its resume and the converters warned of these."""
    return clean().replaced(
        run=replace(clean().get("run"), warnings=run),
        resumed=replace(clean().get("resumed"), warnings=resumed),
        exports=Exported({"hf": clean().get("work") / "hf"}, exports),
    )


def findings(*texts, source="run"):
    return look_once(find(NAME), objects_with(**{source: texts}))


@pytest.mark.parametrize("source", ["run", "resumed", "exports"])
def test_a_warning_of_each_source_is_told(source):
    found = findings("UserWarning: odd", source=source)
    assert [(one.status, one.text) for one in found] == [("warn", "UserWarning: odd")]


def test_a_warning_of_all_sources_is_told_once():
    same = ("UserWarning: odd",)
    found = look_once(find(NAME), objects_with(same, same, (*same, "gguf: no merges")))
    assert [one.text for one in found] == ["UserWarning: odd", "gguf: no merges"]


def test_what_is_warned_of_while_an_export_is_made_is_kept(tmp_path, monkeypatch):
    """A library that every export calls warns."""
    run = copied_run(tmp_path)
    config = run.project.config
    config = replace(config, export=replace(config.export, targets=("hf",)))
    dumps = json.dumps

    def warning(*args, **options):
        warnings.warn("old files", UserWarning, stacklevel=2)
        return dumps(*args, **options)

    monkeypatch.setattr(json, "dumps", warning)
    made = export_small(replace(run, project=replace(run.project, config=config)))
    assert list(made.folders) == ["hf"]
    assert made.warnings == ("UserWarning: old files",)


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
