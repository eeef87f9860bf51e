"""Reads the project's documents: their code spans, blocks, links and headings, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
SOURCES = ("python", "rust", "tests", "bench", "docs", "configs", "requirements", ".github", ".ci")
TEXTS = {".py", ".pyi", ".rs", ".toml", ".yaml", ".yml", ".jinja", ".css", ".txt", ".in"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Piece:
    """Something that a document says.

    Attributes:
        text: what it says.
        place: `file:line`, for messages.
        path: the document.
        language: of a block, as its fence names it.
    """

    text: str
    place: str
    path: Path
    language: str = ""


def name(path: Path) -> str:
    """The path below the root, for messages and for the names of tests."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Piece]:
    """The fenced blocks."""
    text = path.read_text(encoding="utf-8")
    return [
        Piece(found[2], _place(path, text, found.start(2)), path, found[1]) for found in _FENCE.finditer(text)
    ]


def spans(path: Path) -> list[Piece]:
    """The code spans of the text; line breaks in them become spaces."""
    text = _prose(path)
    return [
        Piece(found[1].replace("\n", " ").replace("\\|", "|"), _place(path, text, found.start()), path)
        for found in _SPAN.finditer(text)
    ]


def links(path: Path) -> list[Piece]:
    """The targets of links and images."""
    text = re.sub(_SPAN, lambda found: " " * len(found[0]), _prose(path))
    return [Piece(found[1], _place(path, text, found.start()), path) for found in _LINK.finditer(text)]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def files() -> dict[str, Path]:
    """Every text file of the project, by its path below the root."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in SOURCES:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {name(path): path for path in found if not {"target", "__pycache__"} & set(path.parts)}


@cache
def words() -> frozenset[str]:
    """Every identifier that the sources have; documents, recorded data and the test that asks do not count."""
    found: set[str] = set()
    for key, path in files().items():
        if path.suffix in TEXTS and not key.startswith(
            ("tests/unit/test_docs", "tests/data/", "bench/results/")
        ):
            found |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return frozenset(found)


def tree(path: Path) -> Iterator[Piece]:
    """The folders of a document's tree: a block whose first line names a folder and whose lines are indented."""
    for block in blocks(path):
        lines = block.text.splitlines()
        if block.language or not lines[0].split()[0].endswith("/"):
            continue
        above: list[tuple[int, str]] = []
        first = int(block.place.rpartition(":")[2])
        for number, line in enumerate(lines):
            depth, entry = len(line) - len(line.lstrip()), line.split()[0]
            above = [one for one in above if one[0] < depth]
            above.append((depth, entry))
            yield Piece("".join(part for _, part in above), f"{name(path)}:{first + number}", path)


def _prose(path: Path) -> str:
    """The text with its blocks blanked: places stay what they are."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), path.read_text(encoding="utf-8"))


def _place(path: Path, text: str, at: int) -> str:
    return f"{name(path)}:{text.count(chr(10), 0, at) + 1}"
