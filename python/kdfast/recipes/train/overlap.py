"""What a run's data have twice: held-out prompts that are training prompts too, and equal training rows."""

from __future__ import annotations

from kdfast.data import KDDataset
from kdfast.data.repeats import duplicate_rows, shared_prompts
from kdfast.errors import ConfigError


def check_overlap(train: KDDataset, validation: KDDataset) -> str:
    """Refuses a validation file that says nothing.

    Args:
        train: the training rows.
        validation: the held-out rows.

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


def duplicates_note(train: KDDataset) -> str:
    """Says how many training rows are there more than once.

    Args:
        train: the training rows.

    Returns:
        a line of text; "" = every row is different.
    """
    count = duplicate_rows(train)
    if not count:
        return ""
    return f"{count} of {len(train)} training rows have the same tokens as an earlier row: they are learned again"
