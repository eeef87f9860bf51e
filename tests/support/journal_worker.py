"""A small client of the journal, in processes of its own that can be killed.

A "server" appends the hash of each request that reaches it to `server.log` beside the journal, and answers. With
`kill_at` = n the process kills itself before its n-th step, where a step is a statement of SQLite or a request to the
server; 0 = never.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path

import forking
import journals

from kdfast.teacher.api.journal import Answer, Attempt, Journal, Leases, Request, Response, Verdict

REFUSED = tuple("01234567")
"""Requests whose hash begins so are answered with status 429 the first time."""


class Worker:
    def __init__(self, path: Path, requests: int, kill_at: int) -> None:
        self.steps = itertools.count(1)
        self.kill_at = kill_at
        self.requests = [journals.request(number) for number in range(requests)]
        self.server = os.open(path.with_name("server.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.journal = Journal(path, leases=Leases(3600))
        if kill_at:
            self.journal.database._connection.set_trace_callback(self.step)

    def step(self, _: str) -> None:
        if next(self.steps) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def send(self, attempt: Attempt) -> Response:
        if self.kill_at:
            self.step("")
        os.write(self.server, f"{attempt.hash}\n".encode())
        if self.kill_at:
            self.step("")
        status = 429 if attempt.number == 1 and attempt.hash.startswith(REFUSED) else 200
        return Response(status, {"Retry-After": "1"}, f"answer to {attempt.hash}".encode(), 5)

    def answer(self, request: Request) -> bool:
        """Whether the request has its answer."""
        made = self.journal.begin_attempt(request, 100, budget_micro=10**9)
        if isinstance(made, Attempt):
            response = self.send(made)
            final = response.status == 200
            made = self.journal.finish_attempt(made, response, final=final, cost_micro=None if final else 0)
        return isinstance(made, Answer) and made.final

    def work(self, first: int) -> None:
        waiting = [*self.requests[first:], *self.requests[:first]]
        while waiting:
            waiting = [one for one in waiting if not self.answer(one)]
            time.sleep(0.001 if waiting else 0)

    def read(self) -> None:
        for answer in self.journal.all_answers():
            if answer.verdict is None or answer.cost_micro is None:
                with self.journal.together():
                    self.journal.set_verdict(answer, Verdict("accepted"))
                    self.journal.set_cost(answer, 60)


def work(file: str, requests: int, threads: int = 1, kill_at: int = 0) -> None:
    path = Path(file)
    worker = Worker(path, requests, kill_at)
    running = [
        threading.Thread(target=worker.work, args=[first])
        for first in range(0, requests, -(-requests // threads))
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    worker.read()
    worker.journal.close()


if __name__ == "__main__":
    forking.serve(work)
