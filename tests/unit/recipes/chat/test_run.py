"""`kdfast chat` on tiny models: PyTorch and llama.cpp, from a pipe, and what users get wrong."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from commands import Finished, exit_code, run_command
from model_commands import fails, write_nan_model
from tiny_export import write_export
from tiny_run import TOOL, write_teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("chat")
    write_teacher(directory / "teacher")
    write_export(directory / "export", directory / "teacher")
    (directory / "tools.json").write_text(json.dumps([TOOL]))
    return directory


def chat(monkeypatch: pytest.MonkeyPatch, model: Path, typed: bytes, *options: str | Path) -> Finished:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))
    fixed = ("--template=hermes", "--max-new-tokens=5", "--threads=1")
    return run_command("chat", model, *fixed, *options)


def answers(shown: str) -> list[str]:
    """Without the greeting, which names the engine, the warning of an export, and the times."""
    return [line for line in shown.splitlines()[1:] if not line.startswith(("  [", "warning: "))]


def test_both_engines_say_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "Grüß Rom 🦀\n\nAnd Oslo?\n".encode()
    one, other = (
        chat(monkeypatch, folder / name, typed, "--tools", folder / "tools.json", "--system", "Be brief.")
        for name in ("teacher", "export")
    )
    assert (one.returncode, other.returncode, one.stderr, other.stderr) == (0, 0, "", "")
    assert answers(one.stdout) == answers(other.stdout)
    assert "> Grüß Rom 🦀" in one.stdout
    assert one.stdout.startswith(f"{folder / 'teacher'} in PyTorch; tools: get_weather; /help shows")
    assert other.stdout.startswith(f"{folder / 'export'} in llama.cpp; tools: get_weather; /help shows")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (b"/nothing\n", "there is no such command; /help shows them: /nothing"),
        (b"\nhello \xff\n", "stdin:2: the input must be UTF-8"),
        (b"a " * 3000, "the conversation is full; /new starts again"),
    ],
)
def test_a_script_sees_the_first_mistake(
    folder: Path, monkeypatch: pytest.MonkeyPatch, typed: bytes, message: str
) -> None:
    finished = chat(monkeypatch, folder / "export", typed)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_an_empty_pipe_is_no_mistake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = chat(monkeypatch, folder / "export", b"")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "no tools" in finished.stdout
    monkeypatch.setattr("sys.stdin", None)  # as Python starts with a closed one
    closed = run_command("chat", folder / "export", "--template=hermes")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_bad_line_of_a_terminal_does_not_end_the_chat(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, ours = os.openpty()
    with os.fdopen(ours, encoding="utf-8", errors="strict") as stdin:
        os.write(person, b"hello\n\xff\n/nothing\nhello\n\x04")
        monkeypatch.setattr("sys.stdin", stdin)
        finished = run_command("chat", folder / "export", "--template=hermes", "--max-new-tokens=5")
    os.close(person)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "  not sent, type it again: the terminal must send utf-8, got the byte 0xff\n" in finished.stdout
    assert finished.stdout.count("  [prompt ") == 2


def test_the_names_of_tools_do_not_steer_the_terminal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools.json").write_text(json.dumps([{"name": "f\x1b[31m", "parameters": {}}]))
    finished = chat(monkeypatch, folder / "export", b"a \x1b[2J b\n", "--tools", tmp_path / "tools.json")
    assert "tools: f\\x1b[31m; /help" in finished.stdout
    assert "> a \\x1b[2J b\n" in finished.stdout
    assert "\x1b" not in finished.stdout


def test_an_export_that_failed_or_was_not_compared_is_told_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"status": "failed", "measured": {}, "reason": "x"}
    write_export(tmp_path / "failed", folder / "teacher", parity={"weights": failed})
    for export, says in (
        (folder / "export", "warning: this export was not compared with what was trained: "),
        (
            tmp_path / "failed",
            "warning: this export differs from what was trained: weights; do not ship it\n",
        ),
    ):
        shown = chat(monkeypatch, export, b"hello\nhello\n").stdout
        assert shown.splitlines()[1].startswith(says.rstrip())
        assert shown.count("warning: ") == 1
    assert "warning: " not in chat(monkeypatch, folder / "teacher", b"hello\n").stdout


def test_tools_too_long_for_any_context(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdfast.recipes.chat.prompt._LONGEST", 64)
    finished = chat(monkeypatch, folder / "export", b"hello\n", "--tools", folder / "tools.json")
    assert finished.returncode == 2
    assert (
        "tools.json: the tools and the system prompt are too long for any context: more than 64 tokens"
        in (finished.stderr)
    )


def test_what_users_get_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(model: Path, *options: str | Path) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
        return exit_code("chat", model, "--template=hermes", *options)

    teacher, export = folder / "teacher", folder / "export"
    fails(capsys, wrong(tmp_path / "none"), "no such directory", "none")
    fails(capsys, wrong(teacher, "--tools", tmp_path / "none.json"), "--tools: no such file", "none.json")
    (tmp_path / "bad.json").write_text("{")
    fails(capsys, wrong(teacher, "--tools", tmp_path / "bad.json"), "bad.json: --tools: not JSON")
    fails(capsys, wrong(export, "--device=cuda"), "--device: an export runs on the CPU")
    fails(capsys, wrong(export, "--dtype=bf16"), "--dtype: an export runs with the numbers of its file")
    fails(
        capsys,
        wrong(export / "student-f32.gguf"),
        "this is a file of an export; name the folder",
        str(export),
    )
    fails(capsys, exit_code("chat", teacher, "--template=none.jinja"), "none.jinja")
    fails(capsys, exit_code("chat", teacher, "--template=tokenizer"), "ignores tools", "--template")
    nan = write_nan_model(teacher, tmp_path / "nan")
    fails(capsys, wrong(nan), "cannot answer: the model's logits are NaN", "nan")
