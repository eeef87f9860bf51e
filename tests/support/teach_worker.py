"""`kdfast teach` in processes of its own that can be killed, without the seconds of its imports.

With `kill_at` = n the process kills itself before the n-th beginning or end of a change to the journal; 0 = never.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import sqlite3
from typing import Any

import forking

import kdfast.recipes.teach.run
from kdfast.cli import main

assert kdfast.recipes.teach.run  # imported before the first fork


def work(arguments: list[str], kill_at: int = 0) -> int:
    steps, connect = itertools.count(1), sqlite3.connect

    def step(statement: str) -> None:
        if statement.startswith(("BEGIN IMMEDIATE", "COMMIT")) and next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*places: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*places, **options)
        connection.set_trace_callback(step)
        return connection

    if kill_at:
        sqlite3.connect = traced
    # standard output is how the starter talks
    with contextlib.redirect_stdout(io.StringIO()):
        return main(["teach", "--no-preflight", *arguments])


if __name__ == "__main__":
    forking.serve(work)
