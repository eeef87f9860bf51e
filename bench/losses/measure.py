"""Runs contenders in processes of their own: once each for peak memory, value and gradients; in turns for time.

Peak memory is the high-water mark of the process's resident memory during the run (the kernel's VmHWM, reset just
before), less what was resident before it, when inputs, code and threads were all there. It counts every page that was
touched, by any allocator, gradients included. On CUDA it is torch's peak of allocated bytes, less those before.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.losses.cases import Case, Inputs, make_inputs
from bench.losses.contenders import OWN, AbsentError, Contender, Loss
from bench.losses.peers import PEERS
from bench.losses.reference import reference, sampled_ids

ALL = {contender.name: contender for contender in (*OWN, *PEERS)}
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TIME_LIMIT_S = 900


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How everything is run.

    Attributes:
        device: "cpu" or "cuda".
        threads: of torch.
        distillkit: folder of a checkout, or None.
        rounds: each contender runs once a round,
        seconds: but no more rounds than fit into this,
        least_rounds: though at least so many.
        memory_share: of the memory that is free when a process starts, how much it may take.
    """

    device: str
    threads: int
    distillkit: Path | None
    rounds: int
    seconds: float
    least_rounds: int
    memory_share: float = 0.85


@dataclass(frozen=True)
class Footprint:
    """What one run took and gave.

    Attributes:
        peak_bytes: None where it cannot be measured.
        value: of the loss.
        grad_hidden: [N,D] and
        grad_weight: the sampled rows of [V,D]; None for what gives none.
    """

    peak_bytes: int | None
    value: float
    grad_hidden: np.ndarray | None = None
    grad_weight: np.ndarray | None = None


def _kernel_bytes(path: Path, field: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def _settle(x: Inputs) -> None:
    """Frees what is unused, so that a run starts from what is really needed."""
    x.hidden.grad = x.weight.grad = None
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    if x.hidden.is_cuda:
        torch.cuda.synchronize()


def _timed(loss: Loss, x: Inputs) -> float:
    _settle(x)
    started = time.perf_counter()
    loss(x)
    if x.hidden.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _ready(contender: Contender, case: Case, setting: Setting) -> Loss:
    """The loss after a warm-up: threads are started and code is loaded (and compiled, where it compiles)."""
    loss = contender.load(case.loss, setting.distillkit)
    whole = contender.whole_warm_up or setting.device != "cpu"
    loss(make_inputs(case if whole else replace(case, positions=64, vocab=1024), setting.device))
    return loss


def footprint(contender: Contender, case: Case, setting: Setting) -> Footprint:
    """One run in this process.

    Raises:
        AbsentError: it cannot run here.
    """
    torch.set_num_threads(setting.threads)
    loss, x = _ready(contender, case, setting), make_inputs(case, setting.device)
    _settle(x)
    peak, before = None, 0
    if x.hidden.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    elif CLEAR.exists():
        CLEAR.write_text("5")
        before = _kernel_bytes(STATUS, "VmRSS")
    value = float(loss(x))
    if x.hidden.is_cuda:
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
    elif CLEAR.exists():
        peak = _kernel_bytes(STATUS, "VmHWM") - before
    if x.hidden.grad is None or x.weight.grad is None:
        return Footprint(peak, value)
    ids = sampled_ids(x).to(x.hidden.device)
    gradients = (x.hidden.grad, x.weight.grad[ids])
    return Footprint(peak, value, *(gradient.float().cpu().numpy() for gradient in gradients))


def time_in_turns(contenders: list[Contender], case: Case, setting: Setting) -> dict[str, list[float]]:
    """Seconds of forward and backward of each contender, round by round, in a random order in each round."""
    torch.set_num_threads(setting.threads)
    losses = {contender.name: _ready(contender, case, setting) for contender in contenders}
    x = make_inputs(case, setting.device)
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for number in range(setting.rounds):
        for name in random.Random(number).sample(list(losses), len(losses)):
            enough = sum(seconds[name]) + (seconds[name][-1] if number else 0.0) > setting.seconds
            if number < setting.least_rounds or not enough:
                seconds[name].append(_timed(losses[name], x))
    return seconds


def _limit_memory(setting: Setting) -> str:
    """So that what does not fit fails, instead of pushing the machine into swapping; what to say of it then."""
    if setting.device != "cpu" or not STATUS.exists():
        return "needs more memory than there is"
    allowed = int(_kernel_bytes(Path("/proc/meminfo"), "MemAvailable") * setting.memory_share)
    limit = _kernel_bytes(STATUS, "VmSize") + allowed
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return f"needs more than the {allowed / 1e9:.0f} GB that it may take here"


def _child(
    connection: Connection, setting: Setting, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    too_large = _limit_memory(setting)
    try:
        result = work(*arguments)
    except AbsentError as error:
        result = str(error)
    except (RuntimeError, MemoryError) as error:
        if "allocate memory" not in str(error) and not isinstance(
            error, MemoryError | torch.OutOfMemoryError
        ):
            raise
        result = too_large
    connection.send(result)


def apart(setting: Setting, work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of work in a process of its own; a string says why there is none.

    On a CPU the process is a fork of this one, which has imported everything and computed nothing.
    """
    context: Any = multiprocessing.get_context("fork" if setting.device == "cpu" else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, setting, work, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(TIME_LIMIT_S):
            process.kill()
            return f"took longer than {TIME_LIMIT_S} s"
        return ours.recv()
    except EOFError:
        process.join()
        return f"its process died (exit code {process.exitcode})"
    finally:
        process.join()


def footprint_of(name: str, case: Case, setting: Setting) -> Footprint | str:
    """`footprint` apart."""
    return apart(setting, _footprint, name, case, setting)


def _footprint(name: str, case: Case, setting: Setting) -> Footprint:
    return footprint(ALL[name], case, setting)


def times_of(names: list[str], case: Case, setting: Setting) -> dict[str, list[float]] | str:
    """`time_in_turns` apart."""
    return apart(setting, _times, names, case, setting)


def _times(names: list[str], case: Case, setting: Setting) -> dict[str, list[float]]:
    return time_in_turns([ALL[name] for name in names], case, setting)


def reference_of(case: Case, setting: Setting) -> Any:
    """`reference` apart."""
    return apart(setting, reference, case, setting.threads)
