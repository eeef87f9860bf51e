"""The documents say what is so: what they name exists, their links lead somewhere, and their examples run."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tiny
import tiny_store
from documents import DOCUMENTS, ROOT, Piece, anchors, blocks, files, links, name, spans, tree, words

from kdfast.cli import kdfast
from kdfast.cli.train import train
from kdfast.config.config import SECTIONS

PAGES = pytest.mark.parametrize("page", DOCUMENTS, ids=name)
LATER = ("python/kdfast/export/", "tool_formats")
"""What documents announce and does not exist yet. Remove a name when it comes."""

MADE = ("runs/", ".venv", ".cache/", "dist/", "rust/fuzz/artifacts/", "target/")
"""Folders that commands make."""

FOREIGN = frozenset(["bodyLength", "num_step", "optimizer_steps", "utils.py"])
"""Names that are not ours: of Arrow, of examples, of what must not be."""
CODE = {".py", ".pyi", ".rs", ".md", ".toml", ".jinja", ".css", ".yml", ".lock", ".txt", ".in"}
RUN_FILES = {".json", ".jsonl", ".yaml"}


# Names


@PAGES
def test_paths_exist(page: Path) -> None:
    wrong = [piece for piece in spans(page) if _looks_like_a_path(piece.text) and not _exists(piece.text)]
    assert not wrong, _told(wrong, "no such file or folder")


def _looks_like_a_path(text: str) -> bool:
    if (
        not re.fullmatch(r"[\w.\-/]+", text)
        or text.startswith(("/", *MADE))
        or text in LATER
        or text in FOREIGN
    ):
        return False
    return Path(text).suffix in CODE or (text.endswith("/") and len(text) > 1)


def _exists(text: str) -> bool:
    """Whether some file of the project ends with the path; `NAME` is any name, a folder is one that holds files."""
    pattern = re.escape(text).replace("NAME", r"\w+") + (".+" if text.endswith("/") else "")
    ending = re.compile(rf"(?:.*/)?{pattern}")
    return any(ending.fullmatch(path) for path in files())


@PAGES
def test_dotted_names_exist(page: Path) -> None:
    wrong = []
    for piece in spans(page):
        text = piece.text.partition("(")[0].removeprefix("@")
        if re.fullmatch(r"kdfast(\.\w+)+", text):
            if not _imports(text) and not (page.name == "stores.md" and text in _header_keys()):
                wrong.append(piece)
        elif (found := re.fullmatch(r"([A-Z]\w+)(?:\.|::)(\w+)", text)) and Path(text).suffix not in CODE:
            if found[1] not in FOREIGN and found[2] not in FOREIGN and not _member(found[1], found[2]):
                wrong.append(piece)
        elif (found := re.fullmatch(r"(\w+)::(\w+)", text)) and not _rust_function(found[1], found[2]):
            wrong.append(piece)
    assert not wrong, _told(wrong, "no such name")


@cache
def _header_keys() -> set[str]:
    """What the headers of the stores may hold."""
    rust = [path.read_text(encoding="utf-8") for path in (ROOT / "rust/core/src").rglob("*.rs")]
    return {f"kdfast.{key.removeprefix('kdfast.')}" for key in re.findall(r'"([\w.]+)"', "\n".join(rust))}


def _imports(dotted: str) -> bool:
    module_path = ROOT / "python" / dotted.replace(".", "/")
    if module_path.with_suffix(".py").is_file() or (module_path / "__init__.py").is_file():
        return True  # not imported: that takes seconds where it needs transformers
    parts, module = dotted.split("."), None
    for count in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        break
    target: Any = module
    for part in parts[count:]:
        if not hasattr(target, part):
            return part in getattr(target, "__annotations__", {})
        target = getattr(target, part)
    return module is not None


def _member(owner: str, member: str) -> bool:
    return member in _classes().get(owner, ()) or (owner, member) in _rust_members()


@cache
def _classes() -> dict[str, set[str]]:
    """Class -> its own names: methods, attributes, fields; of all modules of the package."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "python").rglob("*.py*"):
        if path.suffix not in (".py", ".pyi"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names = found.setdefault(node.name, set())
                for part in ast.walk(node):
                    if isinstance(part, ast.FunctionDef):
                        names.add(part.name)
                    elif isinstance(part, ast.Name | ast.Attribute) and isinstance(part.ctx, ast.Store):
                        names.add(part.id if isinstance(part, ast.Name) else part.attr)
    return found


@cache
def _rust_members() -> set[tuple[str, str]]:
    """(type, function) of all `impl` blocks of the Rust crates."""
    found = set()
    for path in (ROOT / "rust").glob("*/src/**/*.rs"):
        owner = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if begun := re.match(r"impl(?:<[^>]*>)? (?:.* for )?(\w+)", line):
                owner = begun[1]
            elif made := re.match(r"    (?:pub(?:\([^)]*\))? )?fn (\w+)", line):
                found.add((owner, made[1]))
    return found


def _rust_function(module: str, function: str) -> bool:
    paths = [
        path for path in (ROOT / "rust").glob("*/src/**/*.rs") if module in (path.stem, path.parent.name)
    ]
    return any(re.search(rf"\bfn {function}\b", path.read_text(encoding="utf-8")) for path in paths)


@PAGES
def test_identifiers_occur_in_the_sources(page: Path) -> None:
    """One with an underscore or an inner capital is meant as code: somewhere it must be spelled so."""
    wrong = []
    for piece in spans(page):
        text = piece.text.partition("(")[0]
        meant = re.fullmatch(r"\w+", text) and (("_" in text.strip("_")) or re.search(r"[a-z][A-Z]", text))
        if meant and "NAME" not in text and text not in words() and text not in FOREIGN and text not in LATER:
            wrong.append(piece)
    assert not wrong, _told(wrong, "spelled nowhere in the sources")


@PAGES
def test_config_keys_exist(page: Path) -> None:
    known = {f"{section}.{key}" for section, made in SECTIONS.items() for key in made.names()}
    wrong = []
    for piece in spans(page):
        for word in piece.text.split():
            found = re.fullmatch(rf"((?:{'|'.join(SECTIONS)})\.(\w+))[:=]?.*", word)
            if not found or found[1] in known or found[2] in FOREIGN or _exists(word):
                continue
            if Path(word).suffix not in RUN_FILES or f'"{word}"' not in _package():
                wrong.append(piece)
    assert not wrong, _told(wrong, "no such config key")


@cache
def _package() -> str:
    """The package's source."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "python").rglob("*.py"))


def test_the_tree_of_the_architecture_is_the_tree() -> None:
    told = list(tree(ROOT / "ARCHITECTURE.md"))
    wrong = [piece for piece in told if not (ROOT / piece.text).is_dir()]
    assert not wrong, _told(wrong, "no such folder")
    for root in ("python/kdfast", "rust/core/src"):
        there = {path.parent for key, path in files().items() if key.startswith(f"{root}/")}
        missing = {f"{name(folder)}/" for folder in there} - {piece.text for piece in told}
        assert not missing, f"ARCHITECTURE.md: the tree lacks {sorted(missing)}"


# Links


@PAGES
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for piece in links(page):
        target, _, anchor = piece.text.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(piece)
    assert not wrong, _told(wrong, "the link leads nowhere")


# Commands


@PAGES
def test_commands_targets_and_options_exist(page: Path) -> None:
    wrong = []
    for piece in _commands(page):
        problem = _problem(piece.text)
        if problem:
            wrong.append(Piece(f"{piece.text}: {problem}", piece.place, page))
    assert not wrong, _told(wrong, "cannot be run")


def _commands(page: Path) -> list[Piece]:
    """Commands in spans and in blocks without a language."""
    found = [piece for piece in spans(page) if piece.text.startswith(("kdfast ", "kdfast-train ", "make "))]
    for block in blocks(page):
        if block.language in ("", "sh", "yaml"):
            first = int(block.place.rpartition(":")[2])
            text = re.sub(r"(\\|>-)\n\s*", lambda made: " ", block.text)
            for number, line in enumerate(text.splitlines()):
                command = re.search(r"(?:^|[ /])((?:kdfast|kdfast-train|make) .*)", line)
                if command and not re.search(r"[─►]", line):
                    found.append(Piece(command[1], f"{name(page)}:{first + number}", page))
    return found


def _problem(line: str) -> str:
    """What is wrong with a command line; "" = nothing."""
    program, *arguments = shlex.split(line.replace("...", ""), comments=True)
    arguments = [argument.strip("[]") for argument in arguments]
    if program == "make":
        targets = [one for one in arguments if re.fullmatch(r"[a-z-]+", one)]
        unknown = [
            one for one in targets if f"\n{one}:" not in (ROOT / "Makefile").read_text(encoding="utf-8")
        ]
        return f"no target {unknown[0]}" if unknown else ""
    command: click.Command = train if program == "kdfast-train" else kdfast
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        inner = command.commands.get(arguments[0])
        if inner is None:
            return f"no command {arguments[0]}"
        command, arguments = inner, arguments[1:]
    context = click.Context(command, info_name=program, help_option_names=["-h", "--help"])
    options = {option for one in command.get_params(context) for option in one.opts}
    for argument in arguments:
        if argument.startswith("--") and argument.partition("=")[0] not in options:
            return f"no option {argument}"
        section, dot, rest = argument.partition(".")
        key, equals, _ = rest.partition("=")
        if dot and equals and section in SECTIONS and key not in SECTIONS[section].names():
            return f"no key {section}.{key}"
    return ""


# Examples


def _written(block: Piece) -> str:
    """A block's code on the lines that it has in its document, so that a traceback names these."""
    return "\n" * (int(block.place.rpartition(":")[2]) - 1) + block.text


def _with_examples() -> list[Path]:
    return [page for page in DOCUMENTS if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", _with_examples(), ids=name)
def test_examples_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = _given(page, tmp_path)
    for block in blocks(page):
        if block.language == "python":
            exec(compile(_written(block), page, "exec"), names)  # noqa: S102 - our own documentation


def _given(page: Path, folder: Path) -> dict[str, Any]:
    """What a page's examples take for granted: the reader's files and functions."""
    if page.name == "README.md":
        record = json.loads(next(block.text for block in blocks(page) if block.language == "json"))
        (folder / "train.jsonl").write_text((json.dumps(record) + "\n") * 8, encoding="utf-8")
        tiny.write_tokenizer(folder)
        (folder / "MODEL_DIR").mkdir()
        (folder / "tokenizer.json").rename(folder / "MODEL_DIR" / "tokenizer.json")
        return {"tools": record["tools"]}
    if page.name == "stores.md":
        Path(tiny_store.build(folder).path).rename(folder / "….tokens.arrow")
    if page.name == "gates.md":
        draws = np.random.default_rng(0)

        def run_pairs(count: int) -> Any:
            return [[100 + draws.normal(size=(4, count)) for _ in range(2)] for _ in range(2)]

        return {"run_pairs": run_pairs, "candidate_report": {"metrics": {}}}
    return {}


@PAGES
def test_json_examples_are_json(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)


def _told(pieces: list[Piece], what: str) -> str:
    return "\n" + "\n".join(f"{piece.place}: {what}: {piece.text}" for piece in pieces)
