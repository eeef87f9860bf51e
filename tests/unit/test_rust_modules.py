"""The modules of the Rust core use each other one way: no circles, neither of folders nor of files in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

RUST = Path(__file__).parents[2] / "rust"
# Comments, visibilities (`pub(in crate::a)`), and tests, which end a file.
NO_USE = re.compile(r"//.*|pub\([^)]*\)|#\[cfg\(test\)\]\n(?:pub\([^)]*\) )?mod \w+ \{[\s\S]*")
PATH = re.compile(r"\b(?:crate|super|self|\w+)(?:::(?:\w+|\{[^{}]*\}))+")

Name = tuple[str, ...]  # of a module: ("tool_call", "find")


def modules(root: Path) -> dict[Name, str]:
    """The code of each module, without comments and tests."""
    found = {}
    for file in sorted(root.rglob("*.rs")):
        name = file.relative_to(root).with_suffix("").parts
        name = name[:-1] if name[-1] in ("mod", "lib") else name
        if "tests" not in name:
            found[name] = NO_USE.sub("", file.read_text(encoding="utf-8"))
    return found


def paths(code: str) -> Iterator[list[str]]:
    """Every path in the code: of `crate::a::{b, c}` both `crate::a::b` and `crate::a::c`."""
    for path in PATH.findall(code):
        before, _, group = path.partition("{")
        for item in group.rstrip("}").split(","):
            yield [part for part in (before + item.strip()).split("::") if part]


def used(name: Name, code: str, known: dict[Name, str]) -> set[Name]:
    """The modules that a module's code names. lib.rs only re-exports: what it has (`crate::Error`) is of `error`."""
    found = set()
    for path in paths(code):
        at = name
        for part in path:
            if part == "crate":
                at = ()
            elif part == "super":
                at = at[:-1]
            elif (*at, part) in known:
                at = (*at, part)
            elif part != "self":
                break
        found.add(at or ("error",))
    return found - {name}


def circle(root: Path, depth: int) -> list[Name] | None:
    """Modules that use each other in a circle, a folder `depth` levels down counted as one; None = there are none."""
    known = modules(root)
    graph: dict[Name, set[Name]] = {}
    for name, code in known.items():
        if name:
            others = {other[:depth] for other in used(name, code, known)}
            graph.setdefault(name[:depth], set()).update(others - {name[:depth]})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("package", ["core", "py"])
def test_no_modules_use_each_other_in_a_circle(package, depth):
    assert circle(RUST / package / "src", depth) is None


def test_a_circle_is_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "lib.rs").write_text("pub mod a;\npub mod b;\npub mod error;\npub use error::Error;\n")
    (tmp_path / "error.rs").write_text("pub struct Error;\n")
    (tmp_path / "b.rs").write_text(
        "use crate::{Error};\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"
    )
    (tmp_path / "a/mod.rs").write_text("mod child;\nuse crate::b;\nuse child::f;\npub struct A;\n")
    (tmp_path / "a/child.rs").write_text("// super::A is a comment\npub fn f() {}\n")
    assert circle(tmp_path, 1) is None
    assert circle(tmp_path, 2) is None
    (tmp_path / "a/child.rs").write_text("pub fn f(_: super::A) {}\n")
    assert circle(tmp_path, 1) is None
    assert set(circle(tmp_path, 2) or ()) == {("a",), ("a", "child")}
    (tmp_path / "b.rs").write_text("use crate::{Error, a::A};\n")
    assert set(circle(tmp_path, 1) or ()) == {("a",), ("b",)}
