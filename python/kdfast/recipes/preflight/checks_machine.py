"""Will this machine carry it: places that can be written, room on their disks, time, locks, GPU, cores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kdfast.config import Config
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import PreflightRequest, Sample, trained_elsewhere
from kdfast.recipes.preflight.made.machine import Machine
from kdfast.runs.folder import RunFolder

if TYPE_CHECKING:
    from kdfast.data import KDDataset
    from kdfast.recipes.teach.plan import Plan

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No kdfast that looks at the machine is older."""

CHECKPOINT_SECONDS = 60.0
"""A checkpoint that takes longer is worth a word."""

CLOCK_SECONDS = 60.0
"""Files may be so far from the clock; more makes caches and resumed runs doubt what is newer."""

_ELSEWHERE = "train it on another machine, or with io.run_dir on a larger disk"
_ANSWER_BYTES_PER_TOKEN = 8
_JOURNAL_ROW_BYTES = 2_000


def places_are_writable(machine: Machine) -> Finding:
    """A file was made in each place."""
    locked = {key: disk for key, disk in machine.disks.items() if not disk.writable}
    if locked:
        key, disk = next(iter(locked.items()))
        others = f", and {len(locked) - 1} other places" if len(locked) > 1 else ""
        why = f" ({disk.problem})" if disk.problem else ""
        remedy = f"give yourself the right to write there, or set {key} to another folder"
        return failed(f"{key}: nothing can be written to {disk.path}{why}{others}", remedy)
    return passed(f"a file was written and removed again in {len(machine.disks)} places")


def disks_have_room(
    config: Config,
    machine: Machine,
    figures: dict[str, int],
    train_rows: KDDataset,
    sample: Sample,
    plan: Plan | None,
    request: PreflightRequest,
) -> Finding:
    """What is written fits, over all places that share a disk."""
    needed = {
        "io.run_dir": _run_bytes(config, figures),
        "teacher.store": _store_bytes(figures, train_rows, sample),
        "teacher.journal": _journal_bytes(config, plan),
    }
    shown = []
    for device in sorted({disk.device for disk in machine.disks.values() if disk.writable}):
        here = {key: disk for key, disk in machine.disks.items() if disk.device == device and disk.writable}
        free = min(disk.free for disk in here.values())
        parts = {key: needed.get(key, 0) for key in here}
        total = sum(parts.values())
        said = ", ".join(f"{key} {_size(size)}" for key, size in parts.items() if size)
        if total > free or not free:
            what = f"needs about {_size(total)} ({said or 'nothing yet'}) and has {_size(free)} free"
            largest = max(parts, key=lambda key: parts[key])
            remedy = f"free some, lower train.keep_last, or set {largest} to a folder on another disk"
            own = parts.get("io.run_dir", 0)
            if total - own <= free and trained_elsewhere(figures, request):
                return warned(
                    f"the disk of {largest} ({here[largest].path}) {what}: it cannot be trained here",
                    _ELSEWHERE,
                )
            return failed(f"the disk of {largest} ({here[largest].path}) {what}", remedy)
        shown.append(f"{' and '.join(here)}: needs {_size(total)}, has {_size(free)} free")
    if not shown:
        return skipped("no place can be written to")
    return passed(f"{len(shown)} disk(s) hold what {len(machine.disks)} places will need", *shown)


def disk_is_fast_enough(config: Config, machine: Machine, figures: dict[str, int]) -> Finding:
    """How long a checkpoint will take."""
    speed = machine.disks["io.run_dir"].write_mb_s
    if speed is None:
        return skipped("nothing could be written to io.run_dir")
    size = figures["checkpoint_bytes"]
    seconds = size / 1e6 / max(speed, 1e-9)
    text = f"{speed:.0f} MB/s: a checkpoint of {_size(size)} takes about {seconds:.1f} s"
    if seconds <= CHECKPOINT_SECONDS:
        return passed(text)
    every = config.train.checkpoint_every_steps
    remedy = f"set io.run_dir to a faster disk, or raise train.checkpoint_every_steps ({every})"
    return warned(f"{text}, while training waits", remedy)


def clock_is_right(machine: Machine) -> Finding:
    """The clock is not before kdfast was made, and files are as old as it says."""
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(machine.clock))
    if machine.clock < EARLIEST:
        remedy = "set the clock: certificates of servers are refused, and newer files pass for older ones"
        return failed(f"the clock says {now} UTC, before kdfast was made", remedy)
    worst = max(machine.disks.items(), key=lambda one: abs(one[1].ahead_seconds), default=None)
    if worst is not None and abs(worst[1].ahead_seconds) > CLOCK_SECONDS:
        key, ahead = worst[0], worst[1].ahead_seconds
        where = "ahead of" if ahead > 0 else "behind"
        remedy = "set the clocks of this machine and of its file server by NTP"
        return warned(
            f"a file just written to {key} is {abs(ahead):.0f} s {where} the clock ({now} UTC)", remedy
        )
    return passed(f"{now} UTC, and files just written have that time")


def locks_work(machine: Machine) -> Finding:
    """The run folder and the journal can be kept from a second process."""
    journal, run = machine.disks.get("teacher.journal"), machine.disks["io.run_dir"]
    if journal is not None and (journal.network or not journal.locks):
        why = journal.network or "its file system has no locks"
        remedy = "set teacher.journal to a file on a local disk: paid answers are kept there"
        return failed(f"teacher.journal ({journal.path}): {why}", remedy)
    if not run.writable:
        return skipped("nothing could be written to io.run_dir")
    if not run.locks:
        remedy = "set io.run_dir to a local disk, or see to it that only one process trains there"
        return warned(f"io.run_dir ({run.path}): its file system has no locks", remedy)
    also = "" if journal is None else ", and the journal's disk is of this machine"
    return passed(f"a file in io.run_dir's disk could be locked{also}")


def gpu_is_there(config: Config, machine: Machine) -> Finding:
    """The devices that the config names are in this machine."""
    asked = {"train.device": config.train.device}
    if config.teacher.model is not None and not config.teacher.live:
        asked["teacher.device"] = config.teacher.device
    there = ", ".join(
        f"{name} with {_size(size)}" for name, size in zip(machine.gpu_names, machine.gpu_memory, strict=True)
    ) or ("Apple's GPU" if machine.mps else "no GPU")
    found = {"cuda": bool(machine.gpu_memory), "mps": machine.mps}
    for key, device in asked.items():
        if device in found and not found[device]:
            remedy = f"set {key} to cpu or auto, or run on a machine with such a GPU"
            return failed(f"{key} is {device}, and torch sees {there}", remedy)
    text = ", ".join(f"{key} is {device}" for key, device in asked.items())
    if set(asked.values()) <= {"cpu"}:
        return skipped(f"no GPU is asked for: {text}")
    return passed(f"{text}; torch sees {there}")


def threads_fit(config: Config, machine: Machine) -> Finding:
    """Threads and processes are not more than cores."""
    asked = {
        "train.threads": config.train.threads,
        "data.threads": config.data.threads,
        "data.workers": config.data.workers,
    }
    too_many = {key: count for key, count in asked.items() if count > machine.cpus}
    if too_many:
        said = ", ".join(f"{key} is {count}" for key, count in too_many.items())
        remedy = f"lower {' and '.join(too_many)} to {machine.cpus}, or to 0; more wait for each other"
        return warned(f"{said}, and this process may use {machine.cpus} core(s)", remedy)
    return passed(
        f"{machine.cpus} core(s) for " + ", ".join(f"{key} {count}" for key, count in asked.items())
    )


def _run_bytes(config: Config, figures: dict[str, int]) -> int:
    """Checkpoints, the student, and its exports."""
    from kdfast.recipes.train.trial_save import bytes_needed  # loads torch

    # two more are kept under quantisation: where it began, and where the run goes back to
    kept = config.train.keep_last + 2 * config.quant.enabled
    there = len(list(RunFolder(config.io.run_dir).checkpoints.glob("step_*")))
    students = 1 + len(config.export.targets)
    return (
        bytes_needed(figures["checkpoint_bytes"], keep_last=kept, there=there)
        + students * figures["weights_bytes"]
    )


def _store_bytes(figures: dict[str, int], train_rows: KDDataset, sample: Sample) -> int:
    """The teacher store of all training rows."""
    each = figures.get("teacher_store_bytes_per_token", 0)
    tokens = int(train_rows.lengths.sum())
    if sample.asked and sample.records:  # `train_rows` are answers to the sample only
        tokens = tokens * max(sample.of, len(sample.records)) // len(sample.records)
    return each * tokens


def _journal_bytes(config: Config, plan: Plan | None) -> int:
    """Requests and answers, each with its hashes; an answer at its longest."""
    if plan is None:
        return 0
    most = config.teacher.max_new_tokens * _ANSWER_BYTES_PER_TOKEN
    requests: Sequence[int] = [len(one.request.content) for one in plan.asked[:_REQUESTS]]
    mean = sum(requests) / max(len(requests), 1)
    return int(len(plan.asked) * (mean + most + _JOURNAL_ROW_BYTES))


_REQUESTS = 200
"""Requests whose length is looked at; the others are taken to be as long."""


def _size(count: float) -> str:
    """Bytes in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


CHECKS = (
    Check(
        name="machine.places_are_writable",
        proves="Files can be made in every place that the run writes to.",
        look=places_are_writable,
        owns=("machine",),
    ),
    Check(
        name="machine.disks_have_room",
        proves="Stores, journal, checkpoints and exports fit on their disks.",
        look=disks_have_room,
    ),
    Check(
        name="machine.disk_is_fast_enough",
        proves="Saving a checkpoint does not hold up the run.",
        look=disk_is_fast_enough,
    ),
    Check(
        name="machine.clock_is_right",
        proves="Certificates will be accepted, and newer files count as newer.",
        look=clock_is_right,
    ),
    Check(
        name="machine.locks_work",
        proves="No second process can write to the same run or journal.",
        look=locks_work,
    ),
    Check(
        name="machine.gpu_is_there",
        proves="The devices that the config names are in this machine.",
        look=gpu_is_there,
    ),
    Check(
        name="machine.threads_fit",
        proves="No more threads are asked for than there are cores.",
        look=threads_fit,
    ),
)
