"""The lines of a chat: typed by a person, or from a pipe or file."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator

from kdfast.errors import DataError

_PROMPT = "> "


def person_types() -> bool:
    """Whether stdin is a terminal; a closed one is not."""
    # Python gives no stdin at all to a process that was started without one
    return sys.stdin is not None and sys.stdin.isatty()


def typed_lines(say: Callable[[str], None]) -> Iterator[str]:
    """The lines of a terminal, until Ctrl-D. A line that cannot be decoded is told to the person and left out.

    Args:
        say: shows a line.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - lets `input` edit the line and remember the last ones
    _keep_undecodable_bytes()
    while True:
        try:
            line = input(_PROMPT)
        except EOFError:
            print()  # the shell's prompt shall not stand behind ours
            return
        byte = _undecodable(line)
        if byte is None:
            yield line
        else:
            say(
                f"  not sent, type it again: the terminal must send {sys.stdin.encoding}, got the byte {byte}"
            )


def piped_lines(say: Callable[[str], None]) -> Iterator[str]:
    """The lines of a pipe or file, shown as if they were typed: UTF-8 whatever the locale, with or without a BOM.

    Args:
        say: shows a line.

    Raises:
        DataError: a line is not UTF-8.
        OSError: stdin cannot be read.
    """
    if sys.stdin is None:
        return
    _keep_undecodable_bytes(encoding="utf-8-sig")
    for number, line in enumerate(iter(sys.stdin.readline, ""), start=1):
        byte = _undecodable(line)
        if byte is not None:
            raise DataError(f"the input must be UTF-8; convert it; got the byte {byte}", "stdin", number)
        text = line.rstrip("\r\n")
        say(f"{_PROMPT}{text}")
        yield text


def _keep_undecodable_bytes(encoding: str | None = None) -> None:
    """Lets stdin give bytes that it cannot decode as lone surrogates.

    An error of its decoder would not say in which line it was, and could come again at every read.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=encoding, errors="surrogateescape")


def _undecodable(line: str) -> str | None:
    """The first byte that stdin could not decode, such as "0xff"; None = there is none."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        return f"0x{ord(line[error.start]) & 0xFF:02x}"
    return None
