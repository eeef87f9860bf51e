"""kdfast's commands: run in this process, or in one of their own where the process is the point.

A process of its own costs seconds: it imports torch and transformers. So a test starts one only for what a process
alone can show: signals, ranks, limits of the system, what is imported.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

from kdfast.cli import main

Finished = subprocess.CompletedProcess[str]
WIDTH = "200"  # of the terminal: no line of ours is wrapped
PATIENCE_S = 300.0  # a process imports torch for a minute where many others run


def run_command(*arguments: str | Path) -> Finished:
    """Runs `kdfast ARGUMENTS` in this process; returns exit code and output as `run_process` does."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS=WIDTH),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _logs_and_warnings_on(err),
    ):
        code = exit_code(*arguments)
    return subprocess.CompletedProcess(["kdfast", *map(str, arguments)], code, out.getvalue(), err.getvalue())


def exit_code(*arguments: str | Path) -> int:
    """Runs `kdfast ARGUMENTS` in this process, for a test that reads its output with `capsys`.

    A command sets torch's threads and seed; they are put back.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            return main([str(argument) for argument in arguments])
    finally:
        torch.set_num_threads(threads)


def run_process(*arguments: str | Path, ranks: int = 1, **options: Any) -> Finished:
    """Runs `kdfast ARGUMENTS` in a process of its own; under torchrun for several ranks.

    Args:
        arguments: without the program's name.
        ranks: how many processes share the run.
        options: of `subprocess.Popen`.
    """
    with start_process(
        *arguments, ranks=ranks, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_process(*arguments: str | Path, ranks: int = 1, **options: Any) -> subprocess.Popen[str]:
    """Starts what `run_process` runs and returns at once."""
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")
    return subprocess.Popen(
        [sys.executable, *(launcher if ranks > 1 else ()), "-m", "kdfast.cli", *map(str, arguments)],
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": WIDTH},
        **options,
    )


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Returns once `reached()` is true or the process has ended; gives a busy machine five minutes."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and not reached():
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"not reached in {PATIENCE_S:.0f} s")
        time.sleep(0.002)


@contextlib.contextmanager
def _logs_and_warnings_on(stream: TextIO) -> Iterator[None]:
    """Logs and warnings go to the stream, as they go to a process's stderr: pytest would keep them for itself."""
    loggers = [
        each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger)
    ]
    handlers = {handler for each in (logging.root, *loggers) for handler in each.handlers}
    # exactly this class: pytest's own handlers are of classes derived from it
    before = [
        (each, each.setStream(stream))
        for each in handlers
        if type(each) is logging.StreamHandler and not each.stream.closed
    ]
    last_resort = logging.StreamHandler(stream)  # Python has one too, but not beside pytest's handlers
    last_resort.setLevel(logging.WARNING)
    logging.root.addHandler(last_resort)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.resetwarnings()  # to what Python itself begins with
            for ignored in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", ignored)
            yield
    finally:
        logging.root.removeHandler(last_resort)
        for handler, previous in before:
            handler.setStream(previous)


def _show_warning(*warning: Any, line: str | None = None) -> None:
    message, category, filename, lineno = warning[:4]
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
