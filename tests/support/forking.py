"""Processes that a test starts, waits for and kills, without the seconds that imports take.

A script imports all that it needs and calls `serve(work)`. A `Starter` runs it once; for each start the script forks a
child that runs `work(*arguments)`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Starter:
    """Starts children of a script, one after the other.

    Args:
        script: calls `serve`.
    """

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, script],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.commands, self.replies = self.process.stdin, self.process.stdout

    def start(self, *arguments: Any) -> int:
        """Starts a child; gives its process number."""
        values = [str(value) if isinstance(value, Path) else value for value in arguments]
        self.commands.write(json.dumps(values) + "\n")
        self.commands.flush()
        return int(self.replies.readline())

    def wait(self) -> int:
        """Waits for the child; gives its exit code, or the negative number of the signal that ended it."""
        return int(self.replies.readline())

    def run(self, *arguments: Any) -> int:
        """Starts a child and waits for it."""
        self.start(*arguments)
        return self.wait()

    def close(self) -> None:
        """Ends the script."""
        self.commands.close()
        self.process.wait()
        self.replies.close()


def serve(work: Callable[..., int | None]) -> None:
    """For each line of the input: forks a child for `work`, prints its number, waits, prints its exit code."""
    for line in sys.stdin:
        arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(work(*arguments) or 0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
