"""Shows the white space of a text that a model wrote: an answer may be right but for a space at its end."""

from __future__ import annotations

import re
from itertools import groupby

from markupsafe import Markup, escape

_LONG = 8
"""A longer run of one character is shown by its length."""
_NAMES = {" ": ("space", "spaces"), "\n": ("break", "line breaks"), "\t": ("tab", "tabs")}
_HIDDEN = re.compile(
    r"""
    \A\ +                         # spaces at the start of the text
    | (?<![\n\ ])\ {2,}           # several spaces, but not those that indent a line: one sees them
    | (?<!\ )\ +(?=[\n\r\t]|\Z)   # spaces before a line break, before a tab and at the end
    | \n+ | \t+
    | [^\S\n\t\ ]+                # other white space, such as a carriage return
    | [\x00-\x08\x0e-\x1b\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]+  # without width
    """,
    re.VERBOSE,
)


def visible(text: str) -> Markup:
    """The text as HTML for a `pre` element, with a dim mark at white space that one could not see.

    The style sheet makes the marks. So the text that a reader copies has no marks, but the white space itself.

    Args:
        text: any text.

    Returns:
        the escaped text. An empty text is the word "(empty)", which cannot be copied.

    Examples:
        >>> print(visible("a <b> "))
        a &lt;b&gt;<span class="white space"> </span>
        >>> print(visible(""))
        <span class="empty">(empty)</span>
    """
    if not text:
        return Markup('<span class="empty">(empty)</span>')
    body, at = [], 0
    for found in _HIDDEN.finditer(text):
        body.append(escape(text[at : found.start()]))
        body += [_marked(character, len(list(run))) for character, run in groupby(found.group())]
        at = found.end()
    return Markup("").join([*body, escape(text[at:])])


def _marked(character: str, count: int) -> Markup:
    """A run of one character with its marks."""
    # A browser drops a NUL, and reads a bare carriage return as a line break.
    written = {"\0": "", "\r": Markup("&#13;")}.get(character, escape(character))
    kind, plural = _NAMES.get(character, ("other", f"times U+{ord(character):04X}"))
    if count > _LONG:
        return Markup('<span class="white run" data-mark="[{} {}]">{}</span>').format(
            f"{count:,}", plural, written * count
        )
    mark = Markup("") if character in _NAMES else Markup(' data-mark="U+{:04X}"').format(ord(character))
    return Markup('<span class="white {}"{}>{}</span>').format(kind, mark, written) * count
