"""The table of divergences is what config, docs and tests say."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import naive
import pytest
import torch
import twins
from loss_forms import teacher_logits

from kdfast.config import KDConfig
from kdfast.losses import DIVERGENCES, DenseTeacher, RowTargets, linear_kd
from kdfast.losses.token.divergences import divergence_of

DOCS = Path(__file__).parents[4] / "docs" / "losses.md"


def test_the_config_offers_exactly_the_table() -> None:
    assert get_args(get_type_hints(KDConfig)["divergence"]) == tuple(DIVERGENCES)


def test_every_row_has_its_oracle_its_twin_and_a_row_in_the_docs() -> None:
    assert set(naive.DIVERGENCES) == set(twins.TWINS) == set(DIVERGENCES)
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for name in DIVERGENCES:
        assert any(row.startswith(f"| `{name}`") for row in rows), name


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_public_function_and_the_row_s_divergence_are_the_same_loss(name: str) -> None:
    logits, teacher = teacher_logits(4, 7, 0), DenseTeacher(teacher_logits(4, 7, 1))
    divergence = divergence_of(KDConfig(divergence=name))
    assert divergence.name == name
    result = linear_kd(
        logits, torch.eye(7, dtype=torch.float64), RowTargets(teacher=teacher, divergence=divergence)
    )
    assert float(result.total) == pytest.approx(float(DIVERGENCES[name].function(logits, teacher).total))
