"""The one door out of a command: one line an error, its exit code, and signals that clean up."""

import errno
import os
import signal
import threading

import click
import pytest

from kdfast.cli import run
from kdfast.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    KdfastError,
    SchemaError,
    TeacherError,
    ToolCallError,
)


def failing(error):
    @click.command()
    def command():
        raise error

    return run(command, [], "test")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a.b: bad, got 1"), 2, "a.b: bad, got 1"),
        (DataError("bad record", "d.jsonl", 3, 7), 2, "d.jsonl:3:7: bad record"),
        (SchemaError("no schema"), 2, "no schema"),
        (ToolCallError("bad call", [{"message": "x"}]), 2, "bad call"),
        (CheckpointError("damaged"), 2, "damaged"),
        (KdfastError("something"), 2, "something"),
        (TeacherError("no answer", 503, True), 5, "no answer"),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x"),
            2,
            "no such file or directory (check the path): x",
        ),
        (
            IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "x"),
            2,
            "is a directory (name a file instead): x",
        ),
        (
            NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "x"),
            2,
            "not a directory (a part of this path is a file; choose another): x",
        ),
        (
            FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "x"),
            2,
            "file exists (choose another path or remove it): x",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x"),
            1,
            "permission denied (change its permissions or choose another path): x",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            1,
            "no space left on device (free some space or write elsewhere)",
        ),
        (FileNotFoundError(errno.ENOENT, "no tokenizer.json in", "x"), 2, "no tokenizer.json in: x"),
        (OSError("odd"), 1, "odd"),
        (DataError("two\nlines"), 2, "two lines"),
        (
            MemoryError(),
            1,
            "out of memory; lower train.micro_batch_size, teacher.batch_tokens, data.shapes or the sizes of arch",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you"
            ),
            1,
            "out of memory; lower train.micro_batch_size, teacher.batch_tokens, data.shapes or the sizes of arch",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            1,
            "out of memory; lower train.micro_batch_size, teacher.batch_tokens, data.shapes or the sizes of arch",
        ),
    ],
)
def test_every_error_is_one_line_and_its_exit_code(error, code, line, capsys, monkeypatch):
    monkeypatch.delenv("KDFAST_TRACEBACK", raising=False)
    assert failing(error) == code
    assert capsys.readouterr().err == f"error: {line}\n"


def test_every_mistake_of_a_config_has_its_own_line(capsys):
    error = ConfigError(
        "data.train: no such file\nkd.kl_weight: needs a\nteacher\nio.run_dir: must be a folder"
    )
    error.add_note("a.yaml:3")
    assert failing(error) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: data.train: no such file",
        "error: kd.kl_weight: needs a teacher",
        "error: io.run_dir: must be a folder (a.yaml:3)",
    ]


def test_traceback_on_demand(capsys, monkeypatch):
    monkeypatch.setenv("KDFAST_TRACEBACK", "1")
    assert failing(ConfigError("a.b: bad")) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):")
    assert error.endswith("\nerror: a.b: bad\n")


def test_a_bug_shows_its_traceback(capsys):
    assert failing(ZeroDivisionError("oops")) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):")
    assert error.endswith("error: this is a bug in kdfast, please report it: ZeroDivisionError('oops')\n")


def test_a_file_that_ends_too_early_is_no_interruption(capsys):
    assert failing(EOFError("marshal data too short")) == 1
    assert "this is a bug in kdfast, please report it: EOFError(" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("returned", "code"), [(None, 0), (0, 0), (3, 3), (130, 130), (True, 0), ("text", 0)]
)
def test_a_command_returns_its_exit_code(returned, code):
    assert run(click.Command("test", callback=lambda: returned), [], "test") == code


@pytest.fixture
def sigint_is_heard():
    """As in a terminal: what a script starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_is_heard")
def test_ctrl_c_and_sigterm_clean_up_and_exit_130(capsys):
    for number in (signal.SIGINT, signal.SIGTERM):
        cleaned = []

        def interrupted(number=number, cleaned=cleaned):
            try:
                os.kill(os.getpid(), number)
                threading.Event().wait(10)
            finally:
                cleaned.append(True)

        before = signal.getsignal(signal.SIGTERM)
        assert run(click.Command("test", callback=interrupted), [], "test") == 130
        assert cleaned == [True]
        assert signal.getsignal(signal.SIGTERM) is before
        assert capsys.readouterr().err.strip() == "interrupted"


def test_it_runs_outside_the_main_thread():
    codes = []
    command = click.Command("test", callback=lambda: 3)
    thread = threading.Thread(target=lambda: codes.append(run(command, [], "test")))
    thread.start()
    thread.join()
    assert codes == [3]
