"""Charts as HTML and SVG: static, in CSS colours, as wide as their place, with text that never shrinks.

Every position is a percentage of the plotting area; only paths have a coordinate system of their own, stretched over it
with strokes that keep their width. So a page reads the same on a telephone, on a screen and on paper, without scripts.
"""

from kdfast.page.charts.histogram import Mark, histogram
from kdfast.page.charts.interval import Estimate, interval
from kdfast.page.charts.line import Line, line_chart, smooth
from kdfast.page.charts.stack import Part, stack

__all__ = [
    "Estimate",
    "Line",
    "Mark",
    "Part",
    "histogram",
    "interval",
    "line_chart",
    "smooth",
    "stack",
]
