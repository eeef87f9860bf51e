"""The one door out of a command: every error becomes a line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from kdfast.errors import ConfigError, KdfastError, TeacherError
from kdfast.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED, TEACHER_UNAVAILABLE

# The user named a path that is missing or of the wrong kind: bad input. Other OSErrors are the machine's failure.
_WRONG_PATH = (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError)

_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of this path is a file; choose another",
    errno.EISDIR: "name a file instead",
    errno.EEXIST: "choose another path or remove it",
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) or write elsewhere",
    errno.EACCES: "change its permissions or choose another path",
    errno.EPERM: "change its permissions or choose another path",
    errno.EROFS: "write elsewhere",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


_MEMORY_REMEDY = "lower train.micro_batch_size, teacher.batch_tokens, data.shapes or the sizes of arch"

_MISTAKE = re.compile(r"\n(?=[\w.-]+: )")
"""The end of a line of a ConfigError whose next line begins with the name of a key or an option."""


def run(command: click.Command, arguments: Sequence[str] | None, prog_name: str) -> int:
    """Runs a command and reports its failure, if any.

    Args:
        command: the command or group.
        arguments: the arguments without the program's name; None = those of this process.
        prog_name: the program's name in usage lines.

    Returns:
        The exit code: what the command returned (None counts as 0), or the code of its error.
    """
    try:
        with _terminate_like_interrupt():
            result = command.main(
                None if arguments is None else list(arguments), prog_name, standalone_mode=False
            )
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        print(f"error: {error.format_message()} (see {_help_command(error, prog_name)})", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        return _interrupted(error)
    except (KdfastError, OSError, MemoryError) as error:
        if os.environ.get("KDFAST_TRACEBACK") == "1":
            traceback.print_exc()
        for line in messages(error):
            print(f"error: {line}", file=sys.stderr)
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the last resort of the whole program
        _show_unforeseen(error)
        return FAILED
    return result if type(result) is int else DONE


def exit_code(error: BaseException) -> int:
    """The exit code for an error that a command raised on purpose.

    Examples:
        >>> exit_code(TeacherError("no answer")), exit_code(FileNotFoundError()), exit_code(PermissionError())
        (5, 2, 1)
    """
    if isinstance(error, TeacherError):
        return TEACHER_UNAVAILABLE
    return BAD_INPUT if isinstance(error, (KdfastError, *_WRONG_PATH)) else FAILED


def messages(error: BaseException) -> list[str]:
    r"""The lines to show for an error: one, or one for each mistake that a ConfigError names.

    Examples:
        >>> messages(ConfigError("data.train: no such file\nio.run_dir: must be a folder"))
        ['data.train: no such file', 'io.run_dir: must be a folder']
    """
    if not isinstance(error, ConfigError):
        return [message(error)]
    return [_one_line(mistake) for mistake in _MISTAKE.split(_with_notes(error))]


def message(error: BaseException) -> str:
    """An error in one line: what happened, the remedy, the place.

    Examples:
        >>> message(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "data.jsonl"))
        'no such file or directory (check the path): data.jsonl'
    """
    if isinstance(error, MemoryError):
        return f"out of memory; {_MEMORY_REMEDY}"
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        known = error.errno in _REMEDIES and error.strerror == os.strerror(error.errno)
        remedy = f" ({_REMEDIES[error.errno]})" if known and error.errno else ""
        text = f"{reason}{remedy}" + (f": {error.filename}" if error.filename is not None else "")
    return _one_line(_with_notes(error, text))


def _with_notes(error: BaseException, text: str | None = None) -> str:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return (str(error) if text is None else text) + notes


def _interrupted(error: BaseException) -> int:
    if isinstance(error.__cause__, EOFError):  # click takes it for the end of the user's input
        _show_unforeseen(error.__cause__)
        return FAILED
    print("interrupted", file=sys.stderr)
    return INTERRUPTED


def _show_unforeseen(error: Exception) -> None:
    if _is_out_of_memory(error):
        print(f"error: {message(MemoryError())}", file=sys.stderr)
        return
    traceback.print_exception(error)
    print(f"error: this is a bug in kdfast, please report it: {_one_line(repr(error))}", file=sys.stderr)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not get memory; it raises no MemoryError."""
    return isinstance(error, RuntimeError) and any(
        said in str(error) for said in ("out of memory", "can't allocate memory")
    )


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _help_command(error: click.ClickException, prog_name: str) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else prog_name} --help"


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM (from a scheduler, from `kill`) ends a command the way Ctrl-C does, clean-up included."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
