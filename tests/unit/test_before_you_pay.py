"""The page for the day before a paid run: its checks print what it says, and its tests are there to be run."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
from documents import ROOT, Piece, blocks, spans

PAGE = ROOT / "docs/before_you_pay.md"
BLOCKS = blocks(PAGE)
CHECKS = [(check, answer) for check, answer in pairwise(BLOCKS) if check.text.startswith("python -c ")]


def place(piece: Piece) -> str:
    return piece.place.rpartition("/")[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the checks read, by the names that they have: README's record, a tiny tokenizer, configs."""
    folder = tmp_path_factory.mktemp("checkout")
    quickstart = folder / ".cache/quickstart"
    tiny.write_tokenizer(quickstart / "teacher")
    record = json.loads(next(block.text for block in blocks(ROOT / "README.md") if block.language == "json"))
    (quickstart / "data").mkdir()
    (quickstart / "data/train.jsonl").write_text((json.dumps(record) + "\n") * 4, encoding="utf-8")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


def test_every_part_of_the_package_has_its_check() -> None:
    assert len(CHECKS) >= 10
    imported = "\n".join(check.text for check, _ in CHECKS)
    for name in (
        "KDDataset",
        "collate_kd_batch",
        "forward_kl",
        "sample_enumerated_shape",
        "should_enable_qat",
    ):
        assert name in imported
    for name in ("aggregate_speed_metrics", "is_valid_tool_json", "evaluate_speed_gates", "student_9b_gqa"):
        assert name in imported


@pytest.mark.parametrize(("check", "answer"), CHECKS, ids=[place(check) for check, _ in CHECKS])
def test_a_check_prints_what_the_page_says(
    check: Piece,
    answer: Piece,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    python, option, code = shlex.split(check.text)
    assert (python, option, answer.language) == ("python", "-c", "text")
    assert not set(code) & set('\\"$`!'), "a shell would change it"
    monkeypatch.chdir(checkout)
    exec(compile(code, check.place, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own documentation
    assert capsys.readouterr().out == answer.text


def test_the_tests_that_it_names_are_there() -> None:
    commands = [piece.text.split()[1] for piece in spans(PAGE) if piece.text.startswith("pytest ")]
    assert len(commands) >= 12
    for command in commands:
        file, *inside = command.split("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert all(re.search(rf"^ *(class|def) {name}\b", source, re.MULTILINE) for name in inside), command


def test_each_step_says_what_it_proves_and_what_it_costs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    steps = re.findall(r"^## (\d+)\. (.+?)$(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _, _ in steps] == list(range(1, 13))
    for _, title, body in steps:
        assert re.search(r"\bcosts?\b", body, re.IGNORECASE), title
        commands = [block for block in BLOCKS if block.language == "" and block.text in body]
        assert commands or "`kdfast " in body, title
    told = re.findall(r"^\| (\d+) \| `([^`]+)` \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert [int(number) for number, *_ in told] == list(range(1, 13))
    paid = {number for number, _, _, costs in told if "paid" in costs}
    assert paid == {"5", "6", "8"}, "only these ask the real teacher"
