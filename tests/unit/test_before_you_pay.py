"""The page for the day before a paid run: its checks print what it says, and its tests are there to be run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import yaml
from documents import ROOT, Piece, blocks, spans

from kdfast.config import load_config

PAGE = ROOT / "docs/before_you_pay.md"
BLOCKS = blocks(PAGE)
SERVER = next(block for block in BLOCKS if "FakeServer" in block.text)
CHECKS = [
    (check, answer)
    for check, answer in pairwise(BLOCKS)
    if check.text.startswith("python -c ") and check is not SERVER
]


def place(piece: Piece) -> str:
    return piece.place.rpartition("/")[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the checks read, by the names that they have: README's record, a tiny tokenizer, configs."""
    folder = tmp_path_factory.mktemp("checkout")
    quickstart = folder / ".cache/quickstart-llm"
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


def test_the_server_to_try_it_with_answers_until_enter() -> None:
    _, *arguments = shlex.split(SERVER.text)
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert re.fullmatch(re.escape("http://127.0.0.1:") + r"\d+/v1", url)
        with urllib.request.urlopen(f"{url}/models", timeout=30) as reply:  # noqa: S310 - of this machine, see above
            assert reply.status == 200
        server.stdin.write("\n")
        server.stdin.flush()
        assert server.wait(30) == 0


def test_its_config_is_whole(tmp_path: Path) -> None:
    """Step 4's lines, set in the config that is copied, read what the teacher writes."""
    example = yaml.safe_load((ROOT / "configs/api_teacher.yaml").read_text(encoding="utf-8"))
    for section, keys in yaml.safe_load(_config_of_step_4()).items():
        example[section] = keys if section == "price" else example[section] | keys
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(example), encoding="utf-8")
    config = load_config(tmp_path / "my.yaml")
    assert config.teacher.out in config.data.train_files
    assert config.teacher.budget == 5.0


def _config_of_step_4() -> str:
    return next(block.text for block in BLOCKS if block.language == "yaml")


def test_what_a_step_reads_was_made_before() -> None:
    """The gate judges the export of an earlier step."""
    places = [number for number, block in enumerate(BLOCKS) if "exports/small" in block.text]
    made = next(number for number, block in enumerate(BLOCKS) if "--out exports/small" in block.text)
    judged = next(number for number, block in enumerate(BLOCKS) if "--candidate exports/small" in block.text)
    assert places[0] == made < judged


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
