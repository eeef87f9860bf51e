"""The made-up teacher store: every supervised token of every row has a distribution that sums to 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_objects import clean

from kdfast import _rust
from kdfast.recipes.preflight.made.fake_store import TAIL, made_up, write_fake_store


@given(st.integers(3, 40), st.data())
def test_made_up_numbers_are_a_distribution(vocab: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(2, vocab - 1))
    said = np.array(data.draw(st.lists(st.integers(0, vocab - 1), max_size=9)), dtype=np.int32)
    ids, logp = made_up(said, k=k, vocab=vocab)
    assert ids.shape == logp.shape == (len(said), k)
    for token, row, values in zip(said, ids, logp, strict=True):
        assert row[0] == token
        assert len(set(row.tolist())) == k
        assert 0 <= row.min() <= row.max() < vocab
        assert float(np.exp(values.astype(np.float64)).sum()) + TAIL == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("samples", [0, 3])
def test_every_row_is_known(tmp_path: Path, samples: int) -> None:
    rows = clean().get("sample_rows")
    file = write_fake_store(tmp_path / "store", [rows, rows], k=8, samples=samples, temperature=2.0)
    store = _rust.TeacherStore.open(file)
    assert (store.k, store.logprob_temperature, store.samples) == (8, 2.0, samples)
    keys = rows.keys(store.fingerprint)
    assert store.contains(keys).all()
    for index, row in enumerate(rows.rows.tolist()):
        known = store.row(keys[index])
        said = [
            token
            for start, end in rows.store.row(row)["supervised"]
            for token in rows.store.row(row)["ids"][start:end]
        ]
        assert known["topk_ids"][:, 0].tolist() == said
