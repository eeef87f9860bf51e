"""The templates of the pages, and the filters that they use."""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from kdfast.page.white_space import visible
from kdfast.page.wording import counted, duration, number, share


@cache
def environment() -> Environment:
    """Jinja with escaping everywhere; a name that a template does not know is an error."""
    made = Environment(
        loader=PackageLoader("kdfast.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "code": _code,
        "counted": counted,
        "duration": duration,
        "number": number,
        "share": share,
        "visible": visible,
    }
    return made


def _code(text: str) -> Markup:
    """Escapes a text, and turns `text in backticks` into <code> elements."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped
