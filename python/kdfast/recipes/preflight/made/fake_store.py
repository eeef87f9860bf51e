"""A teacher store whose numbers are made up: a run with it shows that everything works, and costs no teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdfast import _rust
from kdfast.data import KDDataset

LIKELY = 0.7
"""What the made-up teacher gives the token that is written; the tail gets 0.05, the other ids share the rest."""
TAIL = 0.05


def write_fake_store(
    directory: Path,
    rows: list[KDDataset],
    *,
    k: int,
    samples: int,
    temperature: float,
) -> Path:
    """Writes log-probabilities for every supervised token of some rows.

    Args:
        directory: where to; it is made.
        rows: the datasets whose rows are to be known.
        k: ids a token.
        samples: drawn ids a token; 0 = none.
        temperature: the temperature that the store says.

    Returns:
        the store's file.

    Raises:
        OSError: it cannot be written.
    """
    vocab = rows[0].tokenizer.vocab_size
    fingerprint = "preflight"
    k = min(k, vocab - 1)
    with _rust.TeacherWriter.open(
        directory, fingerprint, k=k, vocab_size=vocab, samples=samples, logprob_temperature=temperature
    ) as writer:
        for dataset in rows:
            keys = dataset.keys(fingerprint)
            fresh = np.flatnonzero(~np.asarray(writer.contains(keys)))
            _, first = np.unique(keys[fresh], axis=0, return_index=True)
            for index in fresh[np.sort(first)].tolist():
                said = _supervised(dataset, index)
                ids, logp = made_up(said, k=k, vocab=vocab)
                drawn = _drawn(ids, samples)
                writer.append(
                    np.ascontiguousarray(keys[index : index + 1]),
                    ids,
                    logp,
                    np.full(len(said), np.log(TAIL), dtype=np.float32),
                    np.array([len(said)], dtype=np.int64),
                    call_opening_logp=None,
                    sample_ids=None if drawn is None else drawn[0],
                    sample_counts=None if drawn is None else drawn[1],
                )
        return Path(writer.path)


def made_up(said: NDArray[np.int32], *, k: int, vocab: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k ids of each token and their log-probabilities: the token itself first, then those that follow it by number.

    Args:
        said: [N] the tokens that are written.
        k: ids a token, below `vocab`.
        vocab: ids of the tokenizer.

    Returns:
        ids [N,k] int32 and their log-probabilities [N,k] float32.

    Example:
        >>> ids, logp = made_up(np.array([7], dtype=np.int32), k=3, vocab=9)
        >>> ids.tolist(), np.exp(logp.astype(float)).round(3).tolist()
        ([[7, 8, 0]], [[0.7, 0.125, 0.125]])
    """
    ids = (said[:, None] + np.arange(k, dtype=np.int32)) % vocab  # [N,k]
    rest = (1 - LIKELY - TAIL) / max(k - 1, 1)
    logp = np.full((len(said), k), np.log(rest), dtype=np.float32)
    logp[:, 0] = np.log(LIKELY)
    return ids.astype(np.int32), logp


def _supervised(dataset: KDDataset, index: int) -> NDArray[np.int32]:
    """The tokens of a row that are learned."""
    row = dataset.store.row(int(dataset.rows[index]))
    ids = np.asarray(row["ids"], dtype=np.int32)
    return np.concatenate([ids[start:end] for start, end in row["supervised"]])


def _drawn(ids: NDArray[np.int32], samples: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]] | None:
    """Draws that were all the likeliest id; None without samples."""
    if not samples:
        return None
    drawn = np.zeros((len(ids), samples), dtype=np.int32)
    drawn[:, 0] = ids[:, 0]
    counts = np.zeros((len(ids), samples), dtype=np.uint16)
    counts[:, 0] = samples
    return drawn, counts
