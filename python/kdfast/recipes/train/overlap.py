"""Held-out records must be held out: prompts that stand in the training data too are counted."""

from __future__ import annotations

import hashlib

from kdfast.data import KDDataset
from kdfast.errors import ConfigError


def shared_prompts(train: KDDataset, validation: KDDataset) -> tuple[int, int]:
    """How many held-out prompts, with their tools, are prompts of the training data too, and how many there are.

    Args:
        train: the training rows.
        validation: the held-out rows.
    """
    held_out = _prompts(validation)
    return len(held_out & _prompts(train)), len(held_out)


def check_overlap(train: KDDataset, validation: KDDataset) -> str:
    """Refuses a validation file that says nothing.

    Returns:
        a warning; "" = no prompt is shared.

    Raises:
        ConfigError: every held-out prompt is in the training data.
    """
    shared, total = shared_prompts(train, validation)
    if not shared:
        return ""
    if shared == total:
        raise ConfigError(
            f"data.validation: all {total} of its prompts are in the training data too, so that its numbers would say "
            f"nothing about new ones; hold other records out: {validation.path}"
        )
    return (
        f"{shared} of {total} held-out prompts are in the training data too: validation looks better than it is "
        f"({validation.path})"
    )


def _prompts(dataset: KDDataset) -> set[bytes]:
    found = set()
    for row in dataset.rows.tolist():
        key = hashlib.blake2b(dataset.store.prompt_ids(row).tobytes(), digest_size=16)
        key.update((dataset.store.tools(row) or "").encode())
        found.add(key.digest())
    return found
