"""Lines of a pipe and of a terminal: what is not UTF-8, what the locale says, what is not there."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.errors import DataError
from kdfast.recipes.chat.lines import person_types, piped_lines, typed_lines


def pipe(typed: bytes, encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(typed), encoding=encoding)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal as stdin; gives the end at which the person types."""
    person, ours = os.openpty()
    with os.fdopen(ours, encoding="utf-8", errors="strict") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield person
    os.close(person)


def piped(typed: bytes, encoding: str = "utf-8") -> list[str]:
    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", pipe(typed, encoding))
        assert not person_types()
        lines = list(piped_lines(shown.append))
    assert shown == [f"> {line}" for line in lines]
    return lines


@given(lines=st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\ufeff"))))
def test_lines_come_as_they_are(lines: list[str]) -> None:
    assert piped("".join(f"{line}\n" for line in lines).encode()) == lines


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_pipe_is_utf8_whatever_the_locale_and_its_bom_is_no_text(encoding: str) -> None:
    typed = "\ufeffGrüß Rom 🦀\r\n\nzwei".encode()
    assert piped(typed, encoding) == piped(typed.removeprefix(b"\xef\xbb\xbf"), encoding)
    assert piped(typed, encoding) == ["Grüß Rom 🦀", "", "zwei"]


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_a_bad_line_of_a_pipe_is_named_and_the_lines_before_it_count(
    monkeypatch: pytest.MonkeyPatch, bad: bytes
) -> None:
    monkeypatch.setattr("sys.stdin", pipe(b"one\ntwo " + bad))
    lines = piped_lines(lambda _: None)
    assert next(lines) == "one"
    message = rf"^stdin:2: the input must be UTF-8; convert it; got the byte 0x{bad[:1].hex()}$"
    with pytest.raises(DataError, match=message):
        next(lines)


def test_a_closed_stdin_is_an_empty_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert not person_types()
    assert list(piped_lines(lambda _: None)) == []


def test_a_bad_line_of_a_terminal_is_told_and_the_chat_goes_on(
    terminal: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    os.write(terminal, "Grüß\na \udcff\udcfe b\nafter 🦀\n\x04".encode(errors="surrogateescape"))
    assert person_types()
    assert list(typed_lines(shown.append)) == ["Grüß", "after 🦀"]
    assert shown == ["  not sent, type it again: the terminal must send utf-8, got the byte 0xff"]
    assert capsys.readouterr().out == "> > > > \n"


def test_an_end_within_a_character_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("sys.stdin", pipe(b"one\n\xc3"))
    assert list(typed_lines(shown.append)) == ["one"]
    assert shown == ["  not sent, type it again: the terminal must send utf-8, got the byte 0xc3"]
