"""The house rules of CONTRIBUTING.md that no linter holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from documents import ROOT, files

MOST_LINES = 400
PLAN_NAMES = ("DESIGN", "FACTS", "HOUSE", "TESTPLAN")
"""Documents that readers of the repository do not have."""

HOSTS = {"github.com", "keepachangelog.com", "semver.org", "json-schema.org", "www.apache.org", "www.w3.org"}
EXAMPLE_HOSTS = {"example.com", "localhost", "127.0.0.1", "www.textualize.io"}


def _sources(*suffixes: str) -> Iterator[tuple[str, Path]]:
    code = ("python/", "rust/", "tests/", "bench/")
    return ((key, path) for key, path in files().items() if key.startswith(code) and path.suffix in suffixes)


def _lines(suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(`file:line`, line) of all sources but this file."""
    for key, path in _sources(*suffixes):
        if path != Path(__file__):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield f"{key}:{number}", line


def test_no_source_file_is_longer_than_400_lines() -> None:
    for key, path in _sources(".py", ".pyi", ".rs"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MOST_LINES, (
            f"{key}: at most {MOST_LINES} lines; split it by what its parts are: {lines}"
        )


def test_only_the_door_catches_every_exception() -> None:
    for key, path in _sources(".py"):
        if not key.startswith("python/") or key == "python/kdfast/cli/door.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type is not None else "everything"
                broad = re.search(r"\b(everything|Exception|BaseException)\b", caught)
                assert not broad, f"{key}:{node.lineno}: name the errors that you expect: {caught}"


def test_no_module_is_called_after_nothing() -> None:
    empty = {"utils", "util", "helpers", "misc", "common"}
    wrong = [key for key, path in _sources(".py", ".rs") if path.stem in empty]
    assert not wrong, f"name a file after what is in it: {wrong}"


def test_no_flag_says_whether_a_package_is_there() -> None:
    wrong = [place for place, line in _lines((".py",)) if re.search(r"\b\w+_AVAILABLE\b", line)]
    assert not wrong, f"import an optional package where it is needed: {wrong}"


def test_nothing_cites_a_document_that_is_not_here() -> None:
    pattern = re.compile(rf"\b({'|'.join(PLAN_NAMES)})\b(?!_)|\b(?:[Ss]ection|§) ?\d+(\.\d+)*\b")
    wrong = [
        place for place, line in _lines((".py", ".pyi", ".rs", ".toml", ".jinja")) if pattern.search(line)
    ]
    assert not wrong, f"say it, or name a file of this repository: {wrong}"


def test_no_file_names_where_packages_come_from() -> None:
    """Whoever builds may use a mirror; an address of an index in a file would go round it."""
    for key, path in files().items():
        if path.suffix in (".svg", ".so") or path == Path(__file__) or "/results/" in key:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for host in re.findall(r"https?://([\w.-]+)", line):
                known = host in HOSTS or host in EXAMPLE_HOSTS
                assert known, f"{key}:{number}: an address that nobody allowed (HOSTS in this test): {host}"
            option = re.search(r"(?<!no-emit-)\b(extra-)?index[-_]url\b", line)
            assert not option, f"{key}:{number}: let the builder's own settings say it: {line.strip()}"


def test_the_root_is_the_repository() -> None:
    assert (ROOT / "pyproject.toml").is_file()
    assert len(files()) > 300
