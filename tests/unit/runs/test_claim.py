"""One process trains in a run folder at a time, and a refused start leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdfast.errors import ConfigError
from kdfast.runs.claim import Claim, check_not_running
from kdfast.runs.folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from kdfast.runs.claim import Claim
from kdfast.runs.folder import RunFolder
with Claim(RunFolder(Path(sys.argv[1]))) as claim:
    claim.keep()
    print("held", flush=True)
    time.sleep(600)
"""


def held_elsewhere(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_went(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    holder = held_elsewhere(folder.path)
    try:
        for attempt in (lambda: check_not_running(folder), Claim(folder).__enter__):
            with pytest.raises(
                ConfigError, match=rf"io.run_dir: a run is going on there \(process {holder.pid} "
            ):
                attempt()
        assert folder.lock.exists(), "the refused one must not take the lock file away"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    check_not_running(folder)
    with Claim(folder) as claim:
        claim.keep()
        assert f"process {os.getpid()} on " in folder.lock.read_text()
    assert list(folder.path.iterdir()) == []


def test_what_was_made_goes_unless_it_is_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "deep" / "run")
    with pytest.raises(ZeroDivisionError), Claim(folder):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with Claim(folder):
        (folder.path.parent / "of another run").mkdir()
    assert [path.name for path in folder.path.parent.iterdir()] == ["of another run"]
    with Claim(folder) as claim:
        claim.keep()
    assert folder.path.is_dir()


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    with Claim(RunFolder(tmp_path)):
        pass
    assert tmp_path.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_its_holder_removed_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    opened: list[int] = []
    real = os.open

    def slow_open(path: Path, *arguments: int) -> int:
        handle = real(path, *arguments)
        if not opened:  # between our opening and our locking, the former holder removes the file
            path.unlink()
        opened.append(handle)
        return handle

    monkeypatch.setattr(os, "open", slow_open)
    with Claim(folder):
        assert len(opened) == 2
        assert folder.lock.exists()
