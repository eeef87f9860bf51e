"""The process in which llama.cpp's server runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kdfast.errors import DataError

_END_S = 2.0

# What the library prints goes to the log; the address alone goes to the pipe. The process reads its input until this
# process closes it, however that ends: no server is left behind.
_SERVE = """
import os, sys
address = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_ctx, params.n_parallel = int(sys.argv[2]), 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[3])
params.n_gpu_layers, params.no_kv_offload, params.no_op_offload = 0, True, True  # exports run on the CPU
params.use_jinja, params.ui, params.cache_ram_mib, params.verbosity = True, False, 0, 1
server = xllamacpp.Server(params)
print(server.listening_address, file=address, flush=True)
sys.stdin.read()
os._exit(0)
"""

# `0.00.046.375 E llama_model_load: error ...`, or a check in its code that ends the process.
_ERROR_LINE = re.compile(r"(?:[\d.]+ E |(?=.*GGML_ASSERT))(.*)")


class ServerProcess:
    """A server that runs, and what it writes.

    Attributes:
        url: its address on loopback, without a path.
        gguf: the model that it serves.
    """

    def __init__(self, url: str, gguf: Path, process: subprocess.Popen[str], log: IO[bytes]) -> None:
        self.url = url
        self.gguf = gguf
        self._process = process
        self._log = log
        self._said = 0

    def mark(self) -> None:
        """Remembers how much it has written: the reason of a later end comes after it."""
        self._said = os.fstat(self._log.fileno()).st_size

    def ended(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    def gone(self, error: Exception) -> DataError:
        """The error of a request that got no answer: whether the process is over, and what it wrote since `mark`."""
        try:
            state = f"ended with {self._process.wait(_END_S)}"  # its connection may end before it does
        except subprocess.TimeoutExpired:
            state = "does not answer"
        return DataError(
            f"llama.cpp's server {state} ({error}): {_reason(self._log, self._said)}", source=str(self.gguf)
        )


@contextmanager
def server_process(gguf: Path, context: int, threads: int) -> Iterator[ServerProcess]:
    """Starts the server; ends it after the `with`.

    Args:
        gguf: the model.
        context: tokens.
        threads: threads that compute.

    Raises:
        DataError: it does not start; with what it wrote.
    """
    command = [sys.executable, "-c", _SERVE, str(gguf.resolve()), str(context), str(threads)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            url = process.stdout.readline().strip()
            if not url:
                process.wait()
                raise DataError(f"llama.cpp's server does not start: {_reason(log)}", source=str(gguf))
            yield ServerProcess(url, gguf, process, log)
        finally:
            process.kill()


def _reason(log: IO[bytes], since: int = 0) -> str:
    """The first error in the log, or else its last line.

    Args:
        log: what the server wrote.
        since: bytes at its start that are not looked at.
    """
    log.seek(since)
    lines = [" ".join(line.split()) for line in log.read().decode(errors="replace").splitlines()]
    errors = [found[1] for line in lines if (found := _ERROR_LINE.match(line))]
    return next(iter([*errors, *(line for line in reversed(lines) if line)]), "it wrote nothing")
