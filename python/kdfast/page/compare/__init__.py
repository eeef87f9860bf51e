"""Several runs side by side on one HTML page: curves, numbers, gates, and where their configs differ.

`render_comparison` makes the page from `Run`s. It says first which numbers may be held against each other.
"""

from kdfast.page.compare.render import render_comparison
from kdfast.page.compare.run import Run, labels

__all__ = ["Run", "labels", "render_comparison"]
