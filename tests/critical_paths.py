"""`make preflight`: the tests in three phases, and what their results say of each critical path.

`python tests/critical_paths.py` runs the phases of critical_paths.yaml in order and stops at the first that fails.
Then it prints each critical path with its tests and their result. Its exit code is 1 if a phase failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).parents[1]
Status = Literal["passed", "failed", "skipped"]
WHOLE = (0, 1)
"""Exit codes of pytest after which every test has its result: all passed, or some failed."""


@dataclass(frozen=True)
class Phase:
    """Tests that run together.

    Attributes:
        name: as the table shows it.
        paths: files and folders below the root.
        without: files and folders in `paths` that belong to another phase.
    """

    name: str
    paths: tuple[str, ...]
    without: tuple[str, ...]

    def has(self, file: str) -> bool:
        """Whether a file's tests run in this phase."""
        return _is_in(file, self.paths) and not _is_in(file, self.without)


@dataclass(frozen=True)
class CriticalPath:
    """Something that must hold.

    Attributes:
        path: what, in a sentence.
        tests: files, folders, FILE::TEST or FILE::CLASS.
    """

    path: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One test as it ended.

    Attributes:
        name: its id with dots, without its parameters: `tests.unit.test_a.TestB.test_c`.
        parameters: of a test that has them; else "".
        status: how it ended; an error in a fixture is a failure.
    """

    name: str
    parameters: str
    status: Status


@dataclass(frozen=True)
class Result:
    """What the tests of a critical path say.

    Attributes:
        status: `passed` only if each of its tests ran, none failed, and of each entry at least one was not skipped.
        text: the counts, and the names of what failed or was not run.
    """

    status: Literal["passed", "FAILED", "not run"]
    text: str


def read_table(root: Path = ROOT) -> tuple[list[Phase], list[CriticalPath]]:
    """The phases in their order, and the critical paths."""
    document = yaml.safe_load((root / "tests" / "critical_paths.yaml").read_text(encoding="utf-8"))
    named = {phase["name"]: tuple(phase["paths"]) for phase in document["phases"]}
    phases = []
    for name, paths in named.items():
        others = (path for other, theirs in named.items() if other != name for path in theirs)
        phases.append(Phase(name, paths, tuple(other for other in others if _is_in(other, paths))))
    return phases, [CriticalPath(each["path"], tuple(each["tests"])) for each in document["critical_paths"]]


def _is_in(file: str, paths: Iterable[str]) -> bool:
    return any(file == path or file.startswith(f"{path}/") for path in paths)


def command(phase: Phase, junit: Path) -> list[str]:
    """The call of pytest for a phase."""
    options = ["-n", "2", "--dist", "loadfile", f"--junitxml={junit}"]
    ignored = [f"--ignore={path}" for path in phase.without]
    return [sys.executable, "-m", "pytest", *options, *ignored, *phase.paths]


def read_cases(junit: Path, exit_code: int) -> list[Case]:
    """The tests of a phase, from its JUnit file; what passed in a session that was broken off does not count."""
    if not junit.is_file():
        return []
    cases = []
    for node in ET.parse(junit).iter("testcase"):  # noqa: S314 - pytest has just written it
        name = ".".join(part for part in (node.get("classname"), node.get("name")) if part)
        inside = {child.tag for child in node}
        status: Status = "skipped" if "skipped" in inside else "passed"
        if inside & {"failure", "error"}:
            status = "failed"
        if status == "failed" or exit_code in WHOLE:
            test, _, parameters = name.partition("[")
            cases.append(Case(test, parameters, status))
    return cases


def judge(path: CriticalPath, cases: Sequence[Case]) -> Result:
    """What the tests that ran say of a critical path."""
    found = {entry: [case for case in cases if _belongs(case, entry)] for entry in path.tests}
    every = {case for each in found.values() for case in each}
    told = ", ".join(
        f"{count} {status}"
        for status in ("failed", "passed", "skipped")
        if (count := sum(case.status == status for case in every))
    )
    if failed := sorted({case.name for case in every if case.status == "failed"}):
        return Result("FAILED", f"{told}: {', '.join(failed)}")
    missing = [entry for entry, each in found.items() if all(case.status == "skipped" for case in each)]
    if missing:
        return Result("not run", ", ".join(missing) + (f" (otherwise {told})" if told else ""))
    return Result("passed", told)


def _belongs(case: Case, entry: str) -> bool:
    """Whether a test is one of an entry's; a file that could not be imported failed for each test in it."""
    file, *inside = entry.split("::")
    wanted = ".".join([file.removesuffix(".py").replace("/", "."), *inside])
    whole_file = case.status == "failed" and f"{wanted}.".startswith(f"{case.name}.")
    return whole_file or f"{case.name}.".startswith(f"{wanted}.")


def show(paths: Sequence[CriticalPath], cases: Sequence[Case], console: Console) -> None:
    """Prints the table, and how many paths hold."""
    colours = {"passed": "green", "FAILED": "red", "not run": "yellow"}
    table = Table(
        "critical path", "tests", "result", title="Critical paths", title_justify="left", show_lines=True
    )
    hold = 0
    for each in paths:
        result = judge(each, cases)
        hold += result.status == "passed"
        tests = "\n".join(test.removeprefix("tests/") for test in each.tests)
        text = result.text if result.status == "passed" else f"{result.status}: {result.text}"
        table.add_row(Text(each.path), Text(tests), Text(text, style=colours[result.status]))
    console.print(table)
    console.print(f"{hold} of {len(paths)} critical paths hold", highlight=False)


def run(console: Console, root: Path = ROOT) -> int:
    """Runs the phases until one fails, prints the table; returns the exit code."""
    phases, paths = read_table(root)
    folder = root / ".cache" / "preflight"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{phase.name.replace(' ', '_')}.xml" for phase in phases]
    for junit in files:
        junit.unlink(missing_ok=True)  # what does not run today has no result, whatever an earlier run said
    cases: list[Case] = []
    failed = None
    for number, (phase, junit) in enumerate(zip(phases, files, strict=True), 1):
        console.print(f"== phase {number} of {len(phases)}: {phase.name}", style="bold", highlight=False)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command(phase, junit), cwd=root, env=environment, check=False).returncode
        cases += read_cases(junit, code)
        if code:
            failed = phase
            break
    show(paths, cases, console)
    if failed:
        told = f"fix before proceeding: the phase '{failed.name}' failed"
        console.print(told, style="bold red", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run(Console()))
