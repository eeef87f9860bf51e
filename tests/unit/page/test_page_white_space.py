"""White space of answers: what is otherwise invisible has a mark, and the text stays as it was."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.page.white_space import visible

SPACE, BREAK, TAB = (
    f'<span class="white {name}">{character}</span>'
    for name, character in (("space", " "), ("break", "\n"), ("tab", "\t"))
)


class Text(HTMLParser):
    """The text of a fragment, word for word."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found = ""
        self.feed(str(document))
        self.close()

    def handle_data(self, data: str) -> None:
        self.found += data


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "a b"),  # one space between words is seen
        (" a", f"{SPACE}a"),
        ("a ", f"a{SPACE}"),
        (" ", SPACE),
        ("a  b", f"a{SPACE}{SPACE}b"),
        ("\na", f"{BREAK}a"),  # a pre element would swallow a first line break that is not in an element
        ("a \n\n  b", f"a{SPACE}{BREAK}{BREAK}  b"),  # an indentation is seen
        ("a\t b\t", f"a{TAB} b{TAB}"),
        ("a \t", f"a{SPACE}{TAB}"),
        ("a\r\n", f'a<span class="white other" data-mark="U+000D">&#13;</span>{BREAK}'),
        ("a\u00a0b\u200b", 'a<span class="white other" data-mark="U+00A0">\u00a0</span>b'
         '<span class="white other" data-mark="U+200B">\u200b</span>'),
        (" " * 9 + "a", '<span class="white run" data-mark="[9 spaces]">         </span>a'),
        ("<b>", "&lt;b&gt;"),
        ("", '<span class="empty">(empty)</span>'),
    ],
)  # fmt: skip
def test_marks(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.sampled_from(" \n\t\r\u00a0\u3000\u200bab<&"), max_size=40))
def test_the_text_stays_and_its_ends_are_seen(text: str) -> None:
    shown = visible(text)
    if text:
        assert Text(shown).found == text
        bare = re.sub(r"<span.*?</span>", "\0", shown, flags=re.DOTALL)
        assert bare == bare.strip()
        assert "  " not in bare.lstrip("\0 ") or "\0 " in bare  # several spaces only as an indentation
        assert not re.search(r"[\n\t\r\u00a0\u3000\u200b]", bare)


def test_a_model_that_writes_only_spaces_takes_no_time() -> None:
    started = time.perf_counter()
    for text in ("\n" + " " * 300_000 + "x", (" " * 9 + "\n") * 20_000, "\t" * 300_000):
        assert len(visible(text)) < 3_000_000
    assert time.perf_counter() - started < 5
