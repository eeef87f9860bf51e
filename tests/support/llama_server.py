"""A real server: llama.cpp's own, of the package xllamacpp, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

START_S = 120.0
ANSWER_S = 300.0

# All that the library prints goes to the log; the address alone goes to the pipe. The process reads its input until the
# test's process closes it, however that ends: no server is left behind.
_SERVE = """
import os, sys
address = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.model_alias = sys.argv[1], {sys.argv[2]}
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_ctx, params.n_parallel = int(sys.argv[3]), 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.ui, params.cache_ram_mib, params.verbosity = False, 0, 0
server = xllamacpp.Server(params)
print(server.listening_address, file=address, flush=True)
sys.stdin.read()
"""

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def llama_server(gguf: Path, name: str = "teacher", context: int = 4096) -> Iterator[str]:
    """Serves a model on loopback with one thread and one slot; yields the address that `chat/completions` is below.

    Answers are the same again only for requests with `cache_prompt: false` and temperature 0: what is in its cache is
    not computed again, so that the rest is computed in other batches.

    Args:
        gguf: the model.
        name: what the server calls it.
        context: the most tokens of a prompt and its answer.

    Raises:
        RuntimeError: it does not start; with what it wrote.
    """
    command = [sys.executable, "-c", _SERVE, str(gguf), name, str(context)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"the server did not start: {_end(log)}")
            _wait(f"{address}/health", log)
            yield f"{address}/v1"
        finally:
            process.kill()


def ask(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Sends a request without any code of ours, and reads the reply.

    Args:
        url: what `llama_server` yields.
        path: below it, such as `/chat/completions`.
        body: the request.
    """
    request = urllib.request.Request(  # noqa: S310 - loopback
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with _OPENER.open(request, timeout=ANSWER_S) as answer:
        reply: dict[str, Any] = json.load(answer)
    return reply


def _wait(url: str, log: IO[bytes]) -> None:
    """Waits until the server says that it is ready: until then it answers 503."""
    end = time.monotonic() + START_S
    while True:
        try:
            with _OPENER.open(url, timeout=START_S):
                return
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > end:
                raise RuntimeError(f"the server does not get ready ({error}): {_end(log)}") from None
            time.sleep(0.1)


def _end(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-2000:]
