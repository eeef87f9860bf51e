"""The table of critical paths names tests that exist, leaves none out, and says truly how they ended."""

from __future__ import annotations

import ast
import io
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from documents import ROOT
from rich.console import Console

sys.path.append(str(ROOT / "tests"))  # critical_paths.py is a script, of no package

import critical_paths
from critical_paths import Case, CriticalPath, judge, read_cases, read_table, run, show

PHASES, PATHS = read_table()
ENTRIES = [entry for each in PATHS for entry in each.tests]

PROMISED = (
    "unit/test_losses_speed.py",
    "unit/test_enumerated_shapes.py",
    "unit/test_qat_integration.py",
    "unit/test_speed_metrics.py",
    "unit/test_speed_gates.py",
    "unit/test_config.py",
    "integration/test_speed_optimization_integration.py",
    "integration/test_dataset_speed_metadata.py",
    "integration/test_qat_training_loop.py",
    "integration/test_speed_metrics_validation.py",
    "integration/test_training_loop_speed_features.py",
)
"""Files that users run by their names: they never move."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def ids_of(file: str) -> frozenset[str]:
    """The ids of a file's tests and classes, without the file."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found.add(node.name)
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inner = {
                f"{node.name}::{part.name}"
                for part in node.body
                if isinstance(part, ast.FunctionDef) and part.name.startswith("test_")
            }
            found |= inner | ({node.name} if inner else set())
    return frozenset(found)


@cache
def all_files() -> tuple[str, ...]:
    """All files of tests but those that need a real server (`make test-all`)."""
    found = (name(path) for path in (ROOT / "tests").rglob("test_*.py"))
    return tuple(sorted(file for file in found if not file.startswith("tests/all/")))


# ------------------------------------------------------------------ the table


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_names_tests_that_exist(entry: str) -> None:
    file, _, inside = entry.partition("::")
    if inside:
        assert inside in ids_of(file)
    else:
        below = [path for path in all_files() if path == file or path.startswith(f"{file}/")]
        assert any(ids_of(path) for path in below), "no file of tests, and no folder that has one"


def test_every_path_has_tests_and_no_sentence_is_there_twice() -> None:
    assert len({each.path for each in PATHS}) == len(PATHS) >= 15
    for each in PATHS:
        assert each.tests, each.path
        assert len(set(each.tests)) == len(each.tests), each.path


@pytest.mark.parametrize("file", PROMISED)
def test_every_file_that_was_promised_is_in_the_table(file: str) -> None:
    assert f"tests/{file}" in {entry.partition("::")[0] for entry in ENTRIES}


def test_every_file_belongs_to_exactly_one_phase() -> None:
    wrong = {}
    for file in all_files():
        names = [phase.name for phase in PHASES if phase.has(file)]
        if len(names) != 1:
            wrong[file] = names
    assert not wrong, f"give each a folder or a line under 'phases' of tests/critical_paths.yaml: {wrong}"


def test_the_phases_are_in_the_order_in_which_one_fixes() -> None:
    assert [phase.name for phase in PHASES] == ["unit", "integration", "end to end"]
    assert all((ROOT / path).exists() for phase in PHASES for path in phase.paths)
    unit, integration, whole = PHASES
    assert (unit.without, integration.without, whole.without) == ((), whole.paths, ())
    assert "python" in unit.paths, "the examples of the docstrings"


def test_pytest_is_called_with_the_phase_s_files_and_no_others() -> None:
    called = critical_paths.command(PHASES[1], Path("x.xml"))
    first = "tests/integration/test_training_loop_speed_features.py"
    assert called[:8] == [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--junitxml=x.xml"]
    assert f"--ignore={first}" in called
    assert called[-1] == "tests/integration"


# ------------------------------------------------------------------ the results

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest">
<testcase classname="tests.unit.test_a" name="test_one[x.y]"/>
<testcase classname="tests.unit.test_a" name="test_one[z]"/>
<testcase classname="tests.unit.test_a.TestB" name="test_two"><failure message="1 != 2">...</failure></testcase>
<testcase classname="tests.unit.test_a.TestB" name="test_three"/>
<testcase classname="tests.unit.test_ab" name="test_four"><skipped type="pytest.skip" message="no GPU"/></testcase>
<testcase classname="tests.unit.deep.test_c" name="test_five"><error message="in a fixture">...</error></testcase>
<testcase classname="" name="tests.unit.test_d"><error message="collection failure">...</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def junit(tmp_path: Path) -> Path:
    (tmp_path / "unit.xml").write_text(JUNIT, encoding="utf-8")
    return tmp_path / "unit.xml"


@pytest.mark.parametrize(
    ("entries", "status", "text"),
    [
        ("tests/unit/test_a.py::test_one", "passed", "2 passed"),
        ("tests/unit/test_a.py::TestB::test_three", "passed", "1 passed"),
        ("tests/unit/test_a.py::test_one tests/unit/test_a.py::TestB::test_three", "passed", "3 passed"),
        ("tests/unit/test_a.py", "FAILED", "1 failed, 3 passed: tests.unit.test_a.TestB.test_two"),
        (
            "tests/unit/test_a.py tests/unit/test_a.py::TestB",
            "FAILED",
            "1 failed, 3 passed: tests.unit.test_a.TestB.test_two",
        ),
        ("tests/unit/deep", "FAILED", "1 failed: tests.unit.deep.test_c.test_five"),
        ("tests/unit/test_d.py::test_six", "FAILED", "1 failed: tests.unit.test_d"),
        ("tests/unit/test_ab.py", "not run", "tests/unit/test_ab.py (otherwise 1 skipped)"),
        ("tests/unit/test_e.py", "not run", "tests/unit/test_e.py"),
        (
            "tests/unit/test_a.py::test_one tests/integration/test_e.py",
            "not run",
            "tests/integration/test_e.py (otherwise 2 passed)",
        ),
    ],
)
def test_what_is_said_of_a_path(junit: Path, entries: str, status: str, text: str) -> None:
    result = judge(CriticalPath("it holds", tuple(entries.split())), read_cases(junit, 1))
    assert (result.status, result.text) == (status, text)


def test_a_skipped_test_beside_one_that_passed_is_counted() -> None:
    cases = [
        Case("tests.unit.test_a.test_one", "", "passed"),
        Case("tests.unit.test_a.test_two", "", "skipped"),
    ]
    result = judge(CriticalPath("it holds", ("tests/unit/test_a.py",)), cases)
    assert (result.status, result.text) == ("passed", "1 passed, 1 skipped")


@pytest.mark.parametrize("exit_code", [2, 3, 130, -9])
def test_a_session_that_was_broken_off_has_passed_nothing(junit: Path, exit_code: int) -> None:
    cases = read_cases(junit, exit_code)
    assert {case.status for case in cases} == {"failed"}
    assert judge(CriticalPath("it holds", ("tests/unit/test_a.py::test_one",)), cases).status == "not run"


def test_a_phase_that_did_not_run_has_no_results(tmp_path: Path) -> None:
    assert read_cases(tmp_path / "none.xml", 0) == []


def test_the_table_shows_each_path_with_its_tests_and_result(junit: Path) -> None:
    paths = [
        CriticalPath("one holds [x]", ("tests/unit/test_a.py::test_one",)),
        CriticalPath("two breaks", ("tests/unit/test_a.py::TestB",)),
        CriticalPath("three waits", ("tests/integration/test_e.py", "tests/unit/test_a.py::test_one")),
    ]
    console = Console(file=io.StringIO(), width=140)
    show(paths, read_cases(junit, 1), console)
    assert isinstance(console.file, io.StringIO)
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in console.file.getvalue().splitlines()
        if line.startswith("│")
    ]
    assert lines == [
        ["one holds [x]", "unit/test_a.py::test_one", "2 passed"],
        [
            "two breaks",
            "unit/test_a.py::TestB",
            "FAILED: 1 failed, 1 passed: tests.unit.test_a.TestB.test_two",
        ],
        ["three waits", "integration/test_e.py", "not run: tests/integration/test_e.py (otherwise 2 passed)"],
        ["", "unit/test_a.py::test_one", ""],
    ]
    assert console.file.getvalue().endswith("1 of 3 critical paths hold\n")


# ------------------------------------------------------------------ the run, with a small project of its own

TABLE = """
phases:
  - {name: unit, paths: [tests/unit]}
  - {name: integration, paths: [tests/integration]}
  - {name: end to end, paths: [tests/integration/test_whole.py]}
critical_paths:
  - {path: a part works, tests: [tests/unit/test_part.py]}
  - {path: parts work, tests: [tests/integration/test_parts.py]}
  - {path: all works, tests: [tests/integration/test_whole.py]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a test a phase; the middle one fails if the file `broken` is there."""
    for variable in (
        "PYTEST_ADDOPTS",
        "PYTEST_XDIST_WORKER",
        "PYTEST_XDIST_WORKER_COUNT",
        "PYTEST_CURRENT_TEST",
    ):
        monkeypatch.delenv(variable, raising=False)
    for file, test in (
        ("tests/unit/test_part.py", "assert True"),
        ("tests/integration/test_parts.py", "import pathlib; assert not pathlib.Path('broken').exists()"),
        ("tests/integration/test_whole.py", "assert True"),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"def test_it():\n    {test}\n", encoding="utf-8")
    (tmp_path / "tests/critical_paths.yaml").write_text(TABLE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_it_stops_at_the_first_phase_that_fails(project: Path) -> None:
    def printed() -> tuple[int, list[str]]:
        console = Console(file=io.StringIO(), width=140)
        code = run(console, project)
        assert isinstance(console.file, io.StringIO)
        return code, [re.sub(r" +", " ", line).strip("│ ") for line in console.file.getvalue().splitlines()]

    code, lines = printed()
    assert code == 0
    assert [line for line in lines if line.startswith("==")] == [
        "== phase 1 of 3: unit",
        "== phase 2 of 3: integration",
        "== phase 3 of 3: end to end",
    ]
    assert "parts work │ integration/test_parts.py │ 1 passed" in lines
    assert lines[-1] == "3 of 3 critical paths hold"

    (project / "broken").touch()
    code, lines = printed()
    assert code == 1
    assert "== phase 3 of 3: end to end" not in lines
    assert "a part works │ unit/test_part.py │ 1 passed" in lines
    failed = "tests.integration.test_parts.test_it"
    assert f"parts work │ integration/test_parts.py │ FAILED: 1 failed: {failed}" in lines
    # it passed a minute ago, and that is not shown
    assert "all works │ integration/test_whole.py │ not run: tests/integration/test_whole.py" in lines
    assert lines[-2:] == [
        "1 of 3 critical paths hold",
        "fix before proceeding: the phase 'integration' failed",
    ]
