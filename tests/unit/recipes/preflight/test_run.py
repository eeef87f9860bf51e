"""The whole: rows in order, strictness, what nobody answers for, where the result goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from preflight_objects import write_project

from kdfast.config import Config
from kdfast.errors import ConfigError
from kdfast.recipes.preflight.check import Check, passed, warned
from kdfast.recipes.preflight.facts import PreflightRequest
from kdfast.recipes.preflight.run import preflight, run
from kdfast.runs.folder import RunFolder


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return write_project(tmp_path)


def check(name: str, look) -> Check:
    return Check(name=name, proves="It is so.", look=look)


def test_rows_are_in_order_and_the_scratch_folder_is_gone(config: Config) -> None:
    seen: list[Path] = []

    def look(work: Path):
        seen.append(work)
        assert work.is_dir()
        return [passed("one"), passed("two")]

    result = preflight(
        config, PreflightRequest(), checks=[check("a.x", look), check("b.y", lambda: passed("three"))]
    )
    assert [(row.name, row.text) for row in result.rows] == [("a.x", "one"), ("a.x", "two"), ("b.y", "three")]
    assert result.exit_code == 0
    assert not seen[0].exists()


def test_a_warning_fails_only_if_it_is_strict(config: Config) -> None:
    checks = [check("a.x", lambda: warned("odd", "mend it")), check("a.y", lambda: passed("fine"))]
    assert preflight(config, PreflightRequest(), checks=checks).exit_code == 0
    strict = preflight(config, PreflightRequest(strict=True), checks=checks)
    assert (strict.exit_code, [row.name for row in strict.failed]) == (4, ["a.x"])


def test_what_nobody_answers_for_fails_beside_all_else(config: Config) -> None:
    config.data.tokenizer.joinpath("tokenizer.json").unlink()
    checks = [check("a.x", lambda reader: passed("read")), check("a.y", lambda: passed("fine"))]
    result = preflight(config, PreflightRequest(), checks=checks)
    assert [(row.name, row.status) for row in result.rows] == [
        ("a.x", "skip"),
        ("a.y", "pass"),
        ("preflight.everything_is_made", "fail"),
    ]
    assert "tokenizer" in result.failed[0].text


def test_a_file_that_cannot_be_written_is_refused_before_the_minute(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--junit: is a directory"):
        run(config, PreflightRequest(junit_out=tmp_path))
    with pytest.raises(ConfigError, match="--json: nothing may be written there"):
        run(config, PreflightRequest(json_out=config.data.train_files[0] / "out.json"))


def test_the_preflight_of_a_run_that_is_going_on_stays(config: Config, tmp_path: Path) -> None:
    folder = RunFolder(config.io.run_dir)
    folder.path.mkdir()
    folder.preflight.write_text("{}", encoding="utf-8")
    holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    # a lock keeps other processes out, not its own
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(folder.lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        out = tmp_path / "out.json"
        assert run(config, PreflightRequest(json_out=out), [check("a.x", lambda: passed("fine"))]) == 0
        other.communicate("\n")
    assert folder.preflight.read_text(encoding="utf-8") == "{}"
    assert json.loads(out.read_text(encoding="utf-8"))["counts"]["pass"] == 1
