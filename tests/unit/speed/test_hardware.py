"""What was measured on: read from files of the kernel, so from any folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from kdfast.speed.hardware import (
    cpu_model,
    describe_hardware,
    describe_llama_cpp,
    nvidia_driver,
    usable_cores,
    usable_memory,
)

AFFINITY = (
    float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
)


def machine(root: Path, **files: str) -> Path:
    """A root with these files; `__` in a name is a slash, `DOT` a dot."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor : 0\nmodel name\t: Some CPU @ 3 GHz\n\nmodel name\t: Other\n", "Some CPU @ 3 GHz"),
        ("cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\nstepping\t: 8\n", "Xeon (6.143.8)"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd40\nCPU revision\t: 1\n", "ARM (0x41.0xd40.1)"),
    ],
)
def test_cpu_model(tmp_path: Path, cpuinfo: str, name: str) -> None:
    assert cpu_model(machine(tmp_path, proc__cpuinfo=cpuinfo)) == name


def test_an_unknown_cpu_has_some_name(tmp_path: Path) -> None:
    assert cpu_model(tmp_path)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("50000 100000", 0.5),
        ("max 100000", AFFINITY),
        ("9900000 100000", min(99.0, AFFINITY)),
        ("", AFFINITY),
    ],
)
def test_cores_by_a_quota_of_version_2(tmp_path: Path, quota: str, cores: float) -> None:
    root = machine(
        tmp_path,
        proc__self__cgroup="0::/user/job\n",
        sys__fs__cgroup__user__job__cpuDOTmax="max 100000\n",
        sys__fs__cgroup__user__cpuDOTmax=quota + "\n",  # a limit of a group above holds, too
    )
    assert usable_cores(root) == cores


@pytest.mark.parametrize(("quota", "cores"), [("25000", 0.25), ("-1", AFFINITY)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_cores_by_a_quota_of_version_1(tmp_path: Path, mount: str, quota: str, cores: float) -> None:
    root = machine(tmp_path, proc__self__cgroup="3:cpu,cpuacct:/box\n0::/\n")
    group = root / "sys/fs/cgroup" / mount
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(quota)  # in a container the group's own folder is not there
    (group / "cpu.cfs_period_us").write_text("100000")
    assert usable_cores(root) == cores


def test_no_control_groups_no_limit(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == AFFINITY


def test_memory(tmp_path: Path) -> None:
    physical = usable_memory(tmp_path / "nothing")
    assert physical is None or physical > 2**26
    one = machine(
        tmp_path / "1",
        proc__self__cgroup="4:memory:/a\n",
        sys__fs__cgroup__memory__a__memoryDOTlimit_in_bytes="1048576\n",
        sys__fs__cgroup__memory__memoryDOTlimit_in_bytes="9223372036854771712\n",
    )
    assert usable_memory(one) == 2**20
    two = machine(tmp_path / "2", proc__self__cgroup="0::/a\n", sys__fs__cgroup__a__memoryDOTmax="max\n")
    assert usable_memory(two) == physical
    (tmp_path / "2/sys/fs/cgroup/memory.max").write_text("4096")
    assert usable_memory(two) == 4096


def test_driver(tmp_path: Path) -> None:
    assert nvidia_driver(tmp_path) is None
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12\n"
    assert nvidia_driver(machine(tmp_path, proc__driver__nvidia__version=text)) == "550.54.15"


def test_this_machine_and_what_its_key_depends_on() -> None:
    here = describe_hardware(torch.device("cpu"), torch.bfloat16)
    assert (here.device, here.gpu, here.gpu_driver, here.dtype) == ("cpu", None, None, "bf16")
    assert here.torch_threads == torch.get_num_threads()
    assert here.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert 0 < here.cores <= AFFINITY
    document = here.to_json()
    assert document["key"] == here.key
    assert document["cpu_model"] in here.key

    def key(**changes: object) -> str:
        return dataclasses.replace(here, **changes).key

    for change in (
        {"cpu_model": "x"},
        {"cores": 0.5},
        {"torch_threads": 99},
        {"dtype": "fp32"},
        {"gpu": "y"},
    ):
        assert key(**change) != here.key
    for change in ({"load_average": (9.0, 9.0, 9.0)}, {"versions": {}}, {"memory_bytes": 1}, {"os": "z"}):
        assert key(**change) == here.key


def test_an_export_has_a_key_of_its_own() -> None:
    torch_key = describe_hardware(torch.device("cpu"), torch.float32).key
    export = describe_llama_cpp(3, "2026.1")
    assert (export.torch_threads, export.dtype, export.engine) == (3, "gguf", "llama.cpp")
    assert export.key.endswith(" / 3 threads / cpu / gguf / llama.cpp")
    assert export.key != torch_key
    assert export.key == describe_llama_cpp(3, "2026.2").key != describe_llama_cpp(2, "2026.1").key
    assert (export.versions["xllamacpp"], "xllamacpp" in describe_llama_cpp(3, None).versions) == (
        "2026.1",
        False,
    )
    assert torch_key.endswith(" / cpu / fp32")  # reports of before are still comparable
