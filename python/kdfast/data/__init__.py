"""The dataset: token rows from the Rust store, collated into batches of enumerated shapes.

The work is done in Rust: `KDDataset` maps the token store of a JSONL file (built on first use), and
`collate_kd_batch` makes a whole padded batch in one call.

Names are imported when they are first used: templates are read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdfast.data.collate import collate_kd_batch
    from kdfast.data.dataset import DEFAULT_SHAPES, KDDataset, Rows
    from kdfast.data.template import Template, load_template

_HOMES = {
    "DEFAULT_SHAPES": "kdfast.data.dataset",
    "KDDataset": "kdfast.data.dataset",
    "Rows": "kdfast.data.dataset",
    "Template": "kdfast.data.template",
    "collate_kd_batch": "kdfast.data.collate",
    "load_template": "kdfast.data.template",
}

__all__ = ["DEFAULT_SHAPES", "KDDataset", "Rows", "Template", "collate_kd_batch", "load_template"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdfast.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
