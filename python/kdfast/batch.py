"""Codes in a batch, on which data, losses and shapes must agree."""

IGNORE_INDEX = -100
"""The label of a position that no cross-entropy counts."""

SOURCES = {"teacher": 0, "truth": 1}
"""Values of the batch field `source`: whose answer a row holds."""
