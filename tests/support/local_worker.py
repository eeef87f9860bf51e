"""A job of a local teacher in processes of its own that can be killed, without the seconds that imports take.

With `kill_at` = n the process kills itself before its n-th statement of SQLite; 0 = never.
"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import forking
from local_jobs import quiet, read, requests_of
from transformers import LlamaForCausalLM

from kdfast.config import load_config
from kdfast.recipes.teach.local import answer
from kdfast.stop import StopRequest
from kdfast.teacher.api.journal import Journal

assert LlamaForCausalLM  # imported before the first fork


def work(config_file: str, path: str, requests: int, kill_at: int) -> None:
    steps = itertools.count(1)

    def step(_: str) -> None:
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    config = load_config(Path(config_file))
    with Journal(Path(path)) as journal:
        journal.database._connection.set_trace_callback(step)
        asked = requests_of(config, range(requests))
        answer(asked, config, journal, read, display=quiet(), stop=StopRequest())


if __name__ == "__main__":
    forking.serve(work)
