"""The machine: a disk that is full, slow or locked away, a wrong clock, a GPU that is not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from preflight_objects import assert_only_fails, clean, look

from kdfast.recipes.preflight.checks_machine import CHECKS
from kdfast.recipes.preflight.facts import PreflightRequest

NAMES = [check.name for check in CHECKS]


def machine(**changes):
    return clean().replaced(machine=replace(clean().get("machine"), **changes))


def disk(key, **changes):
    """The clean objects with another disk below one place."""
    disks = dict(clean().get("machine").disks)
    disks[key] = replace(disks.get(key, disks["io.run_dir"]), **changes)
    return machine(disks=disks)


def config(section, **changes):
    """The clean objects with other values in one section of the config; all else stays."""
    user = clean().get("config")
    kept = {name: clean().get(name) for name in ("machine", "small", "figures", "sample_rows", "student")}
    changed = replace(user, **{section: replace(getattr(user, section), **changes)})
    return clean().replaced(config=changed, **kept)


FAULTS = [
    ("places_are_writable", lambda: disk("teacher.store", writable=False, problem="permission denied"),
     "teacher.store: nothing can be written to", "set teacher.store to another folder"),
    ("places_are_writable", lambda: machine(disks={
        key: replace(one, writable=False) for key, one in clean().get("machine").disks.items()}),
     "and 4 other places", "io.run_dir"),
    ("disks_have_room", lambda: disk("io.run_dir", free=0), "has 0 bytes free", "train.keep_last"),
    ("disks_have_room", lambda: disk("io.run_dir", free=100_000), "has 100.0 kB free", "on another disk"),
    ("disks_have_room", lambda: disk("teacher.store", device=-1, free=10), "the disk of teacher.store", "free some"),
    ("clock_is_right", lambda: machine(clock=0.0), "the clock says 1970-01-01 00:00:00 UTC", "set the clock"),
    ("locks_work", lambda: disk("teacher.journal", locks=False), "its file system has no locks", "teacher.journal"),
    ("locks_work", lambda: disk("teacher.journal", network="it lies on nfs4"), "it lies on nfs4", "local disk"),
    ("gpu_is_there", lambda: config("train", device="cuda"), "train.device is cuda, and torch sees no GPU", "cpu"),
    ("gpu_is_there", lambda: config("teacher", device="cuda"), "teacher.device is cuda", "teacher.device"),
    ("gpu_is_there", lambda: config("train", device="mps"), "train.device is mps", "train.device"),
]  # fmt: skip

WARNINGS = [
    ("disk_is_fast_enough", lambda: disk("io.run_dir", write_mb_s=0.001), "while training waits",
     "train.checkpoint_every_steps"),
    ("clock_is_right", lambda: disk("io.run_dir", ahead_seconds=3600.0), "io.run_dir is 3600 s ahead of", "NTP"),
    ("clock_is_right", lambda: disk("io.run_dir", ahead_seconds=-90.0), "io.run_dir is 90 s behind", "NTP"),
    ("locks_work", lambda: disk("io.run_dir", locks=False), "its file system has no locks", "io.run_dir"),
    ("threads_fit", lambda: config("train", threads=1000), "train.threads is 1000", "lower train.threads"),
    ("threads_fit", lambda: config("data", workers=1000), "data.workers is 1000", "lower data.workers"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_this_machine_passes(name):
    assert look(name, clean()).status == ("skip" if name == "machine.gpu_is_there" else "pass")


@pytest.mark.parametrize(("name", "fault", "text", "remedy"), FAULTS)
def test_a_fault_is_seen_by_its_check_alone(name, fault, text, remedy):
    found = assert_only_fails(f"machine.{name}", fault())
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(("name", "fault", "text", "remedy"), WARNINGS)
def test_what_may_be_meant_so_is_warned_of(name, fault, text, remedy):
    found = look(f"machine.{name}", fault())
    assert found.status == "warn"
    assert text in found.text
    assert remedy in found.remedy


def test_a_gpu_that_is_there_passes():
    objects = config("train", device="cuda")
    there = replace(clean().get("machine"), gpu_memory=(80_000_000_000,), gpu_names=("H100",))
    kept = {name: clean().get(name) for name in ("small", "sample_rows", "student")}
    found = look("machine.gpu_is_there", objects.replaced(machine=there, **kept))
    assert found.status == "pass"
    assert "H100 with 80.0 GB" in found.text


def test_what_cannot_be_measured_is_skipped():
    objects = disk("io.run_dir", write_mb_s=None, writable=False)
    assert look("machine.disk_is_fast_enough", objects).status == "skip"
    assert look("machine.locks_work", objects).status == "skip"


def test_the_room_of_a_disk_is_shared_by_its_places():
    found = look("machine.disks_have_room", clean())
    assert "io.run_dir and teacher.store" in found.shown[0]


def test_a_store_of_all_prompts_is_meant_where_only_the_sample_is_answered():
    sample = replace(clean().get("sample"), asked=True, of=10**9)
    kept = {name: clean().get(name) for name in ("small", "sample_rows", "train_rows", "student")}
    found = look("machine.disks_have_room", clean().replaced(sample=sample, **kept))
    assert found.status == "fail"
    assert "teacher.store" in found.text


def test_a_student_of_another_machine_needs_no_room_for_its_checkpoints_here():
    figures = clean().get("figures") | {"parameters": 9_000_000_000}
    kept = {name: clean().get(name) for name in ("train_rows", "sample", "plan")}
    changed = {**kept, "figures": figures, "machine": disk("io.run_dir", free=1_000_000).get("machine")}
    found = look("machine.disks_have_room", clean().replaced(**changed))
    assert (found.status, "another machine" in found.remedy) == ("warn", True)
    here = clean().replaced(**changed, request=PreflightRequest(trains_next=True))
    assert look("machine.disks_have_room", here).status == "fail"
