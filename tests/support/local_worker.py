"""A job of a local teacher in processes of its own that can be killed, without the seconds that imports take.

With `kill_at` = n the process kills itself as soon as its n-th answer is in the journal; 0 = never.
"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import forking
from local_jobs import quiet, read, requests_of
from transformers import LlamaForCausalLM

from kdfast.config import load_config
from kdfast.recipes.teach.local import answer
from kdfast.stop import StopRequest
from kdfast.teacher.api.journal import Answer, Journal

assert LlamaForCausalLM  # imported before the first fork


class KilledJournal(Journal):
    """Ends its process after so many answers."""

    def __init__(self, path: Path, kill_at: int) -> None:
        super().__init__(path)
        self.kill_at = kill_at
        self.numbers = itertools.count(1)

    def finish_attempt(self, *arguments: Any, **options: Any) -> Answer:
        answer = super().finish_attempt(*arguments, **options)
        if next(self.numbers) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def work(config_file: str, path: str, requests: int, kill_at: int) -> None:
    config = load_config(Path(config_file))
    with KilledJournal(Path(path), kill_at) as journal:
        asked = requests_of(config, range(requests))
        answer(asked, config, journal, read, display=quiet(), stop=StopRequest())


if __name__ == "__main__":
    forking.serve(work)
