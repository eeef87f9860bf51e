"""The form of the real student: a format whose blocks do not divide its widths is found before it is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from preflight_objects import assert_only_fails, clean, look

from kdfast.config import ArchConfig, Config
from kdfast.student.estimate import meta_student

ODD = ArchConfig(d_model=64, n_layers=2, n_heads=2, d_ff=100)
"""100 is no multiple of 32."""
KEPT = ("written_rows", "held_out_rows", "sample", "small", "figures", "student")


def objects(**changes):
    config: Config = clean().get("config")
    kept = {
        name: clean().get(name)
        for name in ("written_rows", "held_out_rows", "sample", "small", "figures", "student")
    }
    config = replace(config, quant=replace(config.quant, enabled=False), **changes)
    return clean().replaced(**kept, config=config)


def with_targets(**changes):
    return replace(clean().get("config").export, targets=("gguf",), **changes)


def test_the_clean_project_fits() -> None:
    found = look("export.weights_fit_the_format", clean())
    assert (found.status, found.text) == ("pass", "int8_channel can hold the 15 matrices of the student")


def test_a_width_that_no_block_divides_is_found() -> None:
    form = meta_student(replace(clean().get("config"), arch=ODD))
    made = objects(export=with_targets()).replaced(form=form)
    found = look("export.weights_fit_the_format", made)
    assert (found.status, "q8_0 cannot hold this student" in found.text) == ("fail", True)
    assert "100" in found.text


def test_under_quantisation_exactly_this_check_fails() -> None:
    config: Config = clean().get("config")
    form = meta_student(replace(config, arch=ODD))
    quant = replace(config.quant, format="q4_0", min_cosine=None)
    kept = {
        name: clean().get(name)
        for name in ("written_rows", "held_out_rows", "sample", "small", "figures", "student")
    }
    changed = clean().replaced(**kept, config=replace(config, quant=quant)).replaced(form=form)
    assert "quant" in assert_only_fails("export.weights_fit_the_format", changed).text


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_floats_need_no_blocks(kind: str) -> None:
    form = meta_student(replace(clean().get("config"), arch=ODD))
    made = objects(export=with_targets(gguf_type=kind)).replaced(form=form)
    expected = "pass" if kind == "f16" else "fail"
    assert look("export.weights_fit_the_format", made).status == expected


def test_without_formats_there_is_nothing_to_look_at() -> None:
    assert look("export.weights_fit_the_format", objects()).status == "skip"
