"""Charts as static HTML and SVG. Colours come from CSS, a chart is as wide as its container, and text never shrinks.

Every position is a percentage of the plotting area. Only paths have their own coordinates, 0 to 1000, stretched over
that area; their strokes keep their width. So charts work on a telephone, on a screen and on paper, without scripts.
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
