"""Enumerated shapes: the lengths that rows are padded to, and the rows of each optimiser step. No torch in here."""

from kdfast.shapes.enumerated import (
    ShapeUse,
    assign_shapes,
    sample_enumerated_shape,
    shape_probabilities,
    shape_use,
)
from kdfast.shapes.sampler import StepSampler
from kdfast.shapes.truncate import truncate_batch_to_shape

__all__ = [
    "ShapeUse",
    "StepSampler",
    "assign_shapes",
    "sample_enumerated_shape",
    "shape_probabilities",
    "shape_use",
    "truncate_batch_to_shape",
]
