"""One run as one HTML page: whether it was good, and the numbers and curves behind that.

The page is static: HTML, CSS and SVG in one file. `RunFiles` is what it is made of; `render_page` makes it.
"""

from kdfast.page.render import render_page
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles

__all__ = ["Missing", "Node", "RunFiles", "render_page"]
