"""`kdfast journal`: arguments, exit codes and streams."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asked_journal
import journals
import pytest
from journals import request
from taught import taught

from kdfast.cli import main

COMMANDS = {
    "show": [],
    "stats": [],
    "export": ["--out", "out.jsonl"],
    "verify": [],
    "backup": ["--out", "copy.db"],
}


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with journals.quick_folder() as folder:
        monkeypatch.chdir(folder)
        asked_journal.build(folder / "answers.db").close()
        yield Path("answers.db")


Run = Callable[..., "Done"]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `kdfast journal ARGUMENTS` in this process, without torch."""

    def run(*arguments: str | Path) -> Done:
        code = main(["journal", *map(str, arguments)])
        return Done(code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_whole_journal_is_exit_code_0(run: Run, path: Path, command: str) -> None:
    done = run(command, path, *COMMANDS[command])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "error: FILE: no such file (check the path): other.db\n"),
        (b"", "an empty file is no journal"),
        (b"{}\n" * 200, "not a journal, or a damaged one"),
    ],
)
def test_a_file_that_is_no_journal_is_exit_code_2(
    run: Run, path: Path, command: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        Path("other.db").write_bytes(content)
    done = run(command, "other.db", *COMMANDS[command])
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(one.name for one in Path().iterdir()) == ["answers.db"] + ["other.db"] * (
        content is not None
    )


def test_a_journal_of_a_newer_kdfast_is_exit_code_2(run: Run, path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[60:64] = (2).to_bytes(4, "big")  # user_version
    path.write_bytes(whole)
    done = run("stats", path)
    assert done.returncode == 2
    assert "written by a newer kdfast; update kdfast to read it: version 2" in done.stderr


def test_filters_of_show(run: Run, path: Path) -> None:
    done = run("show", path, "--verdict", "filtered", "--reason", "cut", "--json")
    (row,) = json.loads(done.stdout)["shown"]
    assert row["request"] == request(1).hash
    done = run("show", path, "--state", "not_sent", "--limit", "1", "--json")
    assert [row["order"] for row in json.loads(done.stdout)["shown"]] == [4]


def test_show_of_one_request(run: Run, path: Path) -> None:
    done = run("show", path, request(3).hash[:8], "--json")
    assert json.loads(done.stdout)["attempts"][0]["reason"] == "no whole response came: read timeout"
    done = run("show", path, "abc", "--state", "unknown")
    assert done.returncode == 2
    assert "--state: means nothing beside HASH" in done.stderr
    done = run("show", path, "xyz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: HASH: no request's hash begins so")


def test_stats_for_machines_is_one_document(run: Run, path: Path) -> None:
    done = run("stats", path, "--json")
    assert json.loads(done.stdout)["requests"] == 7
    assert done.stderr == ""


def test_verify_of_a_dataset_that_is_not_held_is_exit_code_2(run: Run, path: Path) -> None:
    made = {"request": "0" * 64, "response": "1" * 64}
    Path("out.jsonl").write_text(json.dumps({"metadata": {"teacher": made}}) + "\n")
    done = run("verify", path, "--dataset", "out.jsonl")
    assert done.returncode == 2
    assert "missing      out.jsonl:1: the answer to 000000000000" in done.stdout
    assert "records were made from answers that this journal does not hold (1 missing)" in done.stderr
    done = run("verify", path, "--dataset", "none.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --dataset: no such file (check the path): none.jsonl\n"


def test_verify_with_a_config(run: Run, path: Path) -> None:
    made = taught(Path("job").absolute())
    done = run("verify", path, "--config", made.config_file)
    assert done.returncode == 2
    assert "no teacher store of this config is in" in done.stderr
    made.write_store(made.config_file.with_name("store"), range(6))
    done = run("verify", path, "--config", made.config_file)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("verify", path, "--config", made.config_file, "teacher.k=5")
    assert done.returncode == 2
    assert "this config does not read it: teacher.k is 5, its is 4" in done.stdout
    done = run("verify", path, "teacher.k=5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "teacher.k=5: means nothing without --config" in done.stderr
    done = run("verify", path, "--config", "none.yaml")
    assert (done.returncode, done.stderr) == (2, "error: no such config file: none.yaml\n")


def test_a_copy_does_not_replace_what_is_no_copy(run: Run, path: Path) -> None:
    Path("records.jsonl").write_text("{}\n")
    for arguments in (["backup", path, "--out", "records.jsonl"], ["export", path, "--out", path]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: --out: ")
    assert Path("records.jsonl").read_text() == "{}\n"


@pytest.mark.slow
def test_no_command_imports_torch(path: Path) -> None:
    made = taught(Path("job").absolute())
    made.write_store(made.config_file.with_name("store"), range(6))
    with_config = ["journal", "verify", str(path), "--config", str(made.config_file)]
    code = (
        "import sys, kdfast.cli\n"
        "assert kdfast.cli.main(['journal', 'show', '--help']) == 0\n"
        "assert not {'rich', 'sqlite3', 'kdfast._rust'} & sys.modules.keys()\n"
        f"for command, rest in {COMMANDS!r}.items():\n"
        f"    assert kdfast.cli.main(['journal', command, {str(path)!r}, *rest]) == 0\n"
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()\n"
        f"assert kdfast.cli.main({with_config!r}) == 0\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
