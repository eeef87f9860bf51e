"""One run as one HTML page: its verdict, and the numbers and curves that the verdict comes from.

The page is static: HTML, CSS and SVG in one file. `render_page` makes it from `RunFiles`, the files of the run.
"""

from kdfast.page.render import render_page
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles

__all__ = ["Missing", "Node", "RunFiles", "render_page"]
