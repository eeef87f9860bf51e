"""`kdfast data split`: every record on one side, and nothing held out that training knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import exit_code, run_command
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast.importers.components import components
from kdfast.recipes.data.splitting import choose


def record(question: str, *tools: str) -> dict[str, Any]:
    made = {"messages": [{"role": "user", "content": question}], "truth_text": "ok"}
    return made | ({"tools": [{"name": tool} for tool in tools]} if tools else {})


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def sides(out: Path) -> tuple[list[str], list[str]]:
    return tuple((out / f"{name}.jsonl").read_text().splitlines() for name in ("train", "validation"))  # type: ignore[return-value]


def test_every_line_goes_to_one_side_and_groups_stay_together(tmp_path: Path) -> None:
    records = [record(f"q{n}", f"tool{n // 2}") for n in range(20)] + [record("Q3!"), record("q 3", "other")]
    file = write(tmp_path / "all.jsonl", records)
    result = run_command("data", "split", file, "--out", tmp_path / "out", "--fraction", "0.3")
    assert result.returncode == 0, result.stderr
    assert "none on both sides" in result.stdout
    train, validation = sides(tmp_path / "out")
    assert sorted(train + validation) == sorted(file.read_text().splitlines())
    assert 0 < len(validation) <= round(0.3 * len(records))
    tools = [
        {tool["name"] for line in side for tool in json.loads(line).get("tools", [])}
        for side in (train, validation)
    ]
    assert not tools[0] & tools[1]
    assert exit_code("data", "split", file, "--out", tmp_path / "again", "--fraction", "0.3") == 0
    assert sides(tmp_path / "again") == (train, validation)


def test_one_set_of_tools_needs_another_rule(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", [record(f"q{n}", "same") for n in range(10)])
    result = run_command("data", "split", file, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "take --by prompt if all share one set of tools" in result.stderr
    assert not (tmp_path / "out").exists()
    assert (
        exit_code("data", "split", file, "--out", tmp_path / "out", "--by", "prompt", "--fraction", "0.2")
        == 0
    )
    assert [len(side) for side in sides(tmp_path / "out")] == [8, 2]
    assert "is there already" in run_command("data", "split", file, "--out", tmp_path / "out").stderr


def test_headers_and_odd_line_ends(tmp_path: Path) -> None:
    header = json.dumps({"__header__": {"v": 1}})
    lines = [json.dumps(record(f"q{n}")).replace(" ", "\r", 1) for n in range(4)]
    file = tmp_path / "all.jsonl"
    file.write_bytes(("\ufeff" + "\r\n".join([header, "", *lines])).encode())
    assert exit_code("data", "split", file, "--out", tmp_path / "out", "--fraction", "0.25") == 0
    texts = [(tmp_path / "out" / f"{name}.jsonl").read_bytes().decode() for name in ("train", "validation")]
    split = [text.removesuffix("\n").split("\n") for text in texts]
    assert [side[0] for side in split] == [header, header]
    assert sorted(split[0][1:] + split[1][1:]) == lines


@pytest.mark.parametrize("text", ["", "{}\n", "nope\n"])
def test_bad_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    assert exit_code("data", "split", file, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


@settings(max_examples=100)
@given(st.lists(st.sets(st.integers(0, 8), max_size=3), max_size=12), st.integers(0, 12), st.integers(0, 9))
def test_groups_are_the_reachable_ones(keys: list[set[int]], count: int, seed: int) -> None:
    groups = components(keys)
    assert sorted(index for group in groups for index in group) == list(range(len(keys)))
    for group in groups:  # walk from the first one over shared keys
        seen, todo = {group[0]}, [group[0]]
        while todo:
            here = todo.pop()
            near = {other for other in range(len(keys)) if keys[here] & keys[other]} - seen
            seen |= near
            todo += near
        assert sorted(seen) == group
    chosen = choose(groups, count, seed)
    assert len(chosen) <= count
    assert all(set(group) <= chosen or not set(group) & chosen for group in groups)
