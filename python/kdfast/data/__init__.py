"""The dataset: token rows from the Rust store, collated into batches of enumerated shapes.

The work is done in Rust: `KDDataset` maps the token store of a JSONL file (built on first use), and
`collate_kd_batch` makes a whole padded batch in one call.
"""

from kdfast.data.collate import collate_kd_batch
from kdfast.data.dataset import DEFAULT_SHAPES, KDDataset, Rows
from kdfast.data.template import Template, load_template

__all__ = ["DEFAULT_SHAPES", "KDDataset", "Rows", "Template", "collate_kd_batch", "load_template"]
