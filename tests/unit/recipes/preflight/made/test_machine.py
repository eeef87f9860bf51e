"""The machine as it is: disks are tried, limits of control groups hold, nothing is left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import write_config

from kdfast.config import load_config
from kdfast.recipes.preflight.made.machine import available_memory, look_at_disk, look_at_machine, places


@pytest.fixture
def config(tmp_path):
    return load_config(write_config(tmp_path))


def test_all_places_are_looked_at_and_left_as_they_were(config, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    machine = look_at_machine(config, tmp_path / "work")
    assert set(machine.disks) == {
        "io.run_dir", "teacher.store", "data.train", "data.validation", "the scratch folder",
    }  # fmt: skip
    assert all(disk.writable and disk.write_mb_s > 0 and disk.locks for disk in machine.disks.values())
    assert all(abs(disk.ahead_seconds) < 60 for disk in machine.disks.values())
    assert len({disk.device for disk in machine.disks.values()}) == 1
    assert 0 < machine.memory_available <= machine.memory_total
    assert machine.cpus >= 1
    assert len(machine.gpu_memory) == len(machine.gpu_names)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_cache_takes_the_place_of_the_folders_of_the_records(config, tmp_path):
    config = replace(config, data=replace(config.data, cache=tmp_path / "cache"))
    found = places(config, tmp_path)
    assert found["data.cache"] == tmp_path / "cache"
    assert "data.train" not in found


def test_a_teacher_behind_an_api_has_a_journal(config, tmp_path):
    teacher = replace(
        config.teacher, kind="api", prompts=tmp_path / "prompts.jsonl", out=tmp_path / "out" / "answers.jsonl"
    )
    found = places(replace(config, teacher=teacher), tmp_path)
    assert found["teacher.journal"] == found["teacher.out"] == tmp_path / "out"


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    disk = look_at_disk(tmp_path / "file" / "run")
    assert not disk.writable
    assert "is a file" in disk.problem
    assert (disk.free, disk.write_mb_s) == (0, None)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no /proc")
def test_a_folder_that_takes_no_files_cannot_be_written():
    disk = look_at_disk(Path("/proc/self"))
    assert not disk.writable
    assert disk.problem


def group(root, path, **numbers):
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in numbers.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n", encoding="utf-8")


def system(root, groups):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n", encoding="utf-8")
    (root / "proc/self/cgroup").write_text(groups, encoding="utf-8")


def test_without_limits_all_that_the_system_has_is_available(tmp_path):
    system(tmp_path, "0::/a/b\n")
    group(tmp_path, "a/b", memory_max="max", memory_current="100")
    assert available_memory(tmp_path) == 8000 * 1024


def test_the_tightest_group_decides_and_cached_files_do_not_count(tmp_path):
    system(tmp_path, "0::/a/b\n")
    group(tmp_path, "a/b", memory_max="max", memory_current="100")
    group(tmp_path, "a", memory_max="4000", memory_current="3500", memory_stat="anon 1\ninactive_file 300")
    assert available_memory(tmp_path) == 800


def test_groups_of_version_1_count_too(tmp_path):
    system(tmp_path, "4:cpu,cpuacct:/x\n7:memory:/x\n")
    group(tmp_path, "memory/x", memory_limit_in_bytes="5000", memory_usage_in_bytes="6000")
    assert available_memory(tmp_path) == 0


def test_an_unknown_system_is_no_error(tmp_path):
    assert available_memory(tmp_path) == 0
