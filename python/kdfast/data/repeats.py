"""What a dataset has twice: equal rows, prompts with two answers, prompts that are held out and trained on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kdfast.data.dataset import KDDataset


def duplicate_rows(dataset: KDDataset) -> int:
    """How many rows have the tokens and the supervised positions of an earlier row.

    Args:
        dataset: the rows.
    """
    keys = dataset.keys("")
    return len(keys) - len(set(map(bytes, keys)))


def other_answers(dataset: KDDataset) -> list[tuple[Path, int]]:
    """The records that ask what an earlier record asks, with the same tools, and have another answer.

    A teacher's answer is compared with teachers' answers, a ground truth with ground truths: one record may have both.

    Args:
        dataset: the rows.

    Returns:
        file and line of each such record, in the order of the rows.
    """
    first: dict[tuple[bytes, int], bytes] = {}
    found: dict[tuple[Path, int], None] = {}
    keys = dataset.keys("")
    for index, row in enumerate(dataset.rows.tolist()):
        asked = (_prompt(dataset, row), int(dataset.store.row(row)["source"]))
        if first.setdefault(asked, keys[index].tobytes()) != keys[index].tobytes():
            found[dataset.place(row)] = None
    return list(found)


def shared_prompts(train: KDDataset, validation: KDDataset) -> tuple[int, int]:
    """How many held-out prompts, with their tools, are prompts of the training data too, and how many there are.

    Args:
        train: the training rows.
        validation: the held-out rows.
    """
    held_out = _prompts(validation)
    return len(held_out & _prompts(train)), len(held_out)


def _prompts(dataset: KDDataset) -> set[bytes]:
    return {_prompt(dataset, row) for row in dataset.rows.tolist()}


def _prompt(dataset: KDDataset, row: int) -> bytes:
    """A hash of the tokens of a row's prompt and of its tools, unless the prompt hides them."""
    key = hashlib.blake2b(dataset.store.prompt_ids(row).tobytes(), digest_size=16)
    if not dataset.template.hides_tools:
        key.update((dataset.store.tools(row) or "").encode())
    return key.digest()
