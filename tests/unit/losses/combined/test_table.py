"""The table of terms: names, keys and titles agree with the config, the docs and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdfast.config import KDConfig
from kdfast.losses import ENTRIES, TERMS, term_weights

DOCS = (Path(__file__).parents[4] / "docs" / "losses.md").read_text(encoding="utf-8")


def test_names_are_unique_and_every_entry_is_filed_under_its_own() -> None:
    assert len({term.name for term in TERMS}) == len(TERMS)
    assert [entry.name for entry in ENTRIES.values()] == list(ENTRIES)
    # the weight of self_kl is no key of `kd`: the trainer switches it on
    assert [name for name, entry in ENTRIES.items() if not entry.specs] == ["self_kl"]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_a_term_has_its_keys_its_title_and_its_row_in_the_docs(term) -> None:
    assert term.weight == f"{term.name}_weight"
    assert term.title
    if term.final_weight is not None:
        assert term.final_weight == f"{term.name}_final_weight"
        assert term.final_weight in KDConfig.names()
    table = DOCS[: DOCS.index("A term whose weight is above 0")]
    assert f"`{term.name}`" in table


def test_every_weight_of_the_config_is_a_term_s() -> None:
    titled = [key for key in KDConfig.names() if KDConfig.key(key).title]
    assert titled == [term.weight for term in TERMS]


def test_a_weight_of_0_is_off() -> None:
    off = {term.weight: 0.0 for term in TERMS} | {"ce_truth_weight": 0.2}
    assert term_weights(KDConfig(**off)) == {"ce_truth": 0.2}
