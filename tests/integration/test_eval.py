"""`kdfast eval` on a model, on a run, and on what users get wrong."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from model_commands import fails, run_on_model, write_nan_model
from tiny_run import record, write_config

from kdfast._rust import tool_call_formats
from kdfast.data import KDDataset
from kdfast.evaluate import eval_prompts
from kdfast.scoring import quality, score_answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("eval")
    write_config(directory)
    return directory


evaluate = partial(run_on_model, "eval")


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def test_a_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "evaluation.json"
    assert evaluate(folder, out) == 0
    shown = capsys.readouterr().out
    assert "exact match (accepted)" in shown
    assert str(out) in shown
    found = json.loads(out.read_text())
    assert (found["kind"], found["schema_version"]) == ("kdfast.evaluation", "1.0")
    assert found["decoding"]["max_new_tokens"] == 4
    assert all(len(print_) == 64 for print_ in found["fingerprints"].values())
    # one prompt a record, in the order of the file; nothing is called in four tokens
    assert [answer["line"] for answer in found["answers"]] == list(range(1, 13))
    assert (found["prompts"], found["due"]) == (12, 9)
    assert found["table"]["missed_calls"]["count"] == found["table"]["missed_calls"]["total"] == 9
    assert found["table"]["false_calls"] == {"count": 0, "total": 3, "fraction": 0.0, "low": 0.0, "high": 0.0}
    assert found["table"]["cut"]["count"] == 12
    assert found["quality"]["f1"]["value"] == 0.0
    assert found["quality"]["absent"] == {"precision": "no call was made"}
    assert "absent: no call was made" in shown
    assert found["categories"] == {}
    assert "constrained" not in found


def test_the_answers_as_csv(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "found.json"
    assert evaluate(folder, out, "--limit=3") == 0
    assert str(tmp_path / "new" / "found.csv") in capsys.readouterr().out
    with (tmp_path / "new" / "found.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    answers = json.loads(out.read_text())["answers"]
    assert [row["line"] for row in rows] == ["1", "2", "3"]
    assert [int(row["tokens"]) for row in rows] == [answer["tokens"] for answer in answers]
    assert [row["missed_call"] for row in rows] == [
        str(one["score"]["missed_call"]).lower() for one in answers
    ]
    texts = [row["text"].removeprefix("'") for row in rows]
    assert texts == [answer["text"] for answer in answers]
    fails(capsys, evaluate(folder, tmp_path / "found.csv"), "--out: is the JSON file", "found.csv")
    (tmp_path / "taken.csv").mkdir()
    fails(capsys, evaluate(folder, tmp_path / "taken.json"), "is a directory", "taken.csv")
    assert not (tmp_path / "taken.json").exists()


def test_formats_that_count(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert evaluate(folder, out, "--limit=2", "--formats=object,hermes") == 0
    assert json.loads(out.read_text())["decoding"]["formats"] == ["hermes", "object"]
    assert evaluate(folder, out, "--limit=2", "--formats=all") == 0
    assert json.loads(out.read_text())["decoding"]["formats"] == tool_call_formats()
    assert evaluate(folder, out, "--formats=xml") == 2
    assert "must be 'auto', 'all' or some of hermes, " in capsys.readouterr().err
    fails(
        capsys,
        evaluate(folder, out, "--formats=object", "--constrained"),
        "formats: must name hermes, mistral, llama3",
    )


def test_the_numbers_follow_from_the_answers(folder: Path, tmp_path: Path) -> None:
    categories = ["one", "two", None]
    records = [record(number) for number in range(48, 60)]
    for number, one in enumerate(records):
        one["metadata"]["category"] = categories[number % 3]
    prompts = write(tmp_path / "prompts.jsonl", records)
    assert evaluate(folder, tmp_path / "out.json", "--limit=7", "--batch-size=2", prompts=prompts) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["prompts"] == len(found["answers"]) == 7
    scores = [
        score_answer(
            answer["text"],
            one["tools"],
            accepted=one["metadata"].get("accepted"),
            reference_text=answer["reference_text"],
            should_call=one.get("tool_should_be_used", True),
        )
        for answer, one in zip(found["answers"], records[:7], strict=True)
    ]
    assert [answer["score"] for answer in found["answers"]] == json.loads(
        json.dumps([score.to_json() for score in scores])
    )
    assert found["quality"] == json.loads(json.dumps(quality(scores)))
    assert {name: one["prompts"] for name, one in found["categories"].items()} == {"": 2, "one": 3, "two": 2}


def test_prompts_are_one_a_record_with_the_truth(folder: Path) -> None:
    data = KDDataset(folder / "validation.jsonl", folder / "teacher", shapes=[512], threads=1)
    assert len(data) > 12  # some records have a teacher's answer as well
    prompts = eval_prompts(data)
    assert [prompt.line for prompt in prompts] == list(range(1, 13))
    assert [prompt.line for prompt in eval_prompts(data, 2)] == [1, 2]
    for prompt, number in zip(prompts, range(48, 60), strict=True):
        assert prompt.should_call == (number % 4 != 3)
        assert ("<tool_call>" in prompt.reference_text) == prompt.should_call
        assert prompt.reference_tokens == len(data.tokenizer.encode(prompt.reference_text))
        assert data.tokenizer.decode(list(prompt.ids)).endswith("<|im_start|>assistant\n")
        assert (prompt.accepted is not None) == prompt.should_call


def test_a_run_folder(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    os.link(folder / "config.yaml", run / "config.yaml")
    (run / "student").symlink_to(folder / "teacher", target_is_directory=True)
    assert evaluate(folder, tmp_path / "run.json", "--limit=2", model=run) == 0
    assert evaluate(folder, tmp_path / "model.json", "--limit=2") == 0
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("run.json", "model.json"))
    assert one["fingerprints"]["model"] == other["fingerprints"]["model"]
    assert one["answers"] == other["answers"]
    assert one["model"] == str(run)


def test_constrained_is_reported_apart(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, tmp_path / "out.json", "--limit=3", "--constrained", "--show=0") == 0
    shown = capsys.readouterr().out
    assert "constrained" in shown
    assert "wrong answers" not in shown
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["constrained"]["prompts"] == found["prompts"] == 3
    assert found["constrained"]["warnings"] == []
    assert len(found["constrained"]["answers"]) == 3
    assert evaluate(folder, tmp_path / "free.json", "--limit=3") == 0
    assert json.loads((tmp_path / "free.json").read_text())["answers"] == found["answers"]


def test_constrained_without_llguidance_is_told_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    without_weights = tmp_path / "model"
    without_weights.mkdir()
    for name in ("config.json", "tokenizer.json"):
        os.link(folder / "teacher" / name, without_weights / name)
    code = evaluate(folder, tmp_path / "out.json", "--constrained", model=without_weights)
    fails(capsys, code, "llguidance", "pip install 'kdfast[constrained]'")


def test_what_no_grammar_holds_ends_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record(48), record(49), record(50)]
    # a valid JSON Schema that llguidance does not know
    ahead = {"properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}
    records[1]["tools"] = records[2]["tools"] = [{"name": "f", "parameters": ahead}]
    prompts = write(tmp_path / "prompts.jsonl", records)
    assert evaluate(folder, tmp_path / "out.json", "--constrained", prompts=prompts) == 0
    warning = 'line 2: tool "f": pattern "(?=a)b" is left out of the grammar (2 prompts)'
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["constrained"]["warnings"] == [warning]
    assert len(found["constrained"]["answers"]) == 3
    assert f"warning            {warning}" in capsys.readouterr().out


BAD_TOOLS = [{"name": "bad", "parameters": {"type": "dict"}}]
BAD_TOOLS_ERROR = (
    'tool "bad": parameters/type: not a valid JSON Schema: "dict" is not valid under any of the schemas listed in the '
    "'anyOf' keyword"
)


@pytest.mark.parametrize("options", [(), ("--constrained",)])
def test_a_bad_tool_costs_its_own_record(
    folder: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record(number) for number in range(48, 52)]
    good = write(tmp_path / "good.jsonl", [*records[:1], *records[2:]])
    records[1]["tools"] = BAD_TOOLS
    prompts = write(tmp_path / "prompts.jsonl", records)
    assert evaluate(folder, tmp_path / "out.json", *options, prompts=prompts) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["left_out"] == [{"line": 2, "error": BAD_TOOLS_ERROR}]
    assert found["schema_notes"] == []
    assert [answer["line"] for answer in found["answers"]] == [1, 3, 4]
    shown = capsys.readouterr().out
    assert f"warning            line 2 is left out: {BAD_TOOLS_ERROR}" in shown
    assert "left out           1 of the file's records" in shown
    # the others are answered as without it, and the fingerprint is that of the user's file
    assert evaluate(folder, tmp_path / "good.json", prompts=good) == 0
    expected = json.loads((tmp_path / "good.json").read_text())
    assert expected["left_out"] == []
    assert "left out" not in capsys.readouterr().out
    for name in ("table", "quality", "due"):
        assert found[name] == expected[name]
    assert found["fingerprints"]["prompts"] == expected["fingerprints"]["prompts"]
    assert found["fingerprints"]["dataset"] == hashlib.sha256(prompts.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.glob("prompts*")) == ["prompts.jsonl"]


def test_many_bad_tools_are_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [record(48), *(record(49) | {"tools": BAD_TOOLS} for _ in range(7))]
    prompts = write(tmp_path / "prompts.jsonl", records)
    assert evaluate(folder, tmp_path / "out.json", prompts=prompts) == 0
    shown = capsys.readouterr().out
    assert [f"line {line} is left out" in shown for line in range(2, 9)] == [True] * 5 + [False] * 2
    assert "and 2 more, see the file" in shown
    assert "left out           7 of the file's records" in shown
    assert [one["line"] for one in json.loads((tmp_path / "out.json").read_text())["left_out"]] == list(
        range(2, 9)
    )


def test_bad_tools_and_nothing_else(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = write(
        tmp_path / "prompts.jsonl", [record(number) | {"tools": BAD_TOOLS} for number in (48, 49)]
    )
    code = evaluate(folder, tmp_path / "out.json", prompts=prompts)
    fails(capsys, code, "prompts.jsonl:1: no record has tools that can be used", BAD_TOOLS_ERROR)
    # a record that is bad in another way still is an error
    for other, says in (
        ({"prompt": "no answer"}, "no answer"),
        ({"prompt": "\U000f0000", "truth_text": "a"}, "private character"),
    ):
        write(prompts, [record(48), record(49) | {"tools": BAD_TOOLS}, other])
        code = evaluate(folder, tmp_path / "out.json", prompts=prompts)
        fails(capsys, code, f"error: {prompts}:3: ", says)
    assert not (tmp_path / "out.json").exists()


def test_forms_of_older_drafts_are_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = {"properties": {"city": {"type": "string", "required": True}, "days": {"type": "integer"}}}
    records = [record(48), record(49), record(50)]
    records[1]["tools"] = records[2]["tools"] = [{"name": "get_weather", "parameters": older}]
    prompts = write(tmp_path / "prompts.jsonl", records)
    assert evaluate(folder, tmp_path / "out.json", "--constrained", prompts=prompts) == 0
    note = (
        'line 2: tool "get_weather": parameters/properties/city/required: true is a form of draft 3; read as required: '
        '["city"] beside properties (2 prompts)'
    )
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["schema_notes"], found["left_out"], found["constrained"]["warnings"]) == ([note], [], [])
    assert len(found["answers"]) == 3
    assert f"warning            {note}" in capsys.readouterr().out


def test_models_that_are_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    fails(capsys, evaluate(folder, out, model=tmp_path / "none"), "no such directory", "none")
    (tmp_path / "empty").mkdir()
    fails(capsys, evaluate(folder, out, model=tmp_path / "empty"), "no readable config.json", "empty")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    fails(capsys, evaluate(folder, out, model=tmp_path / "run"), "has no student yet", "--resume", "run")
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", ("bad.jsonl", "no records")),
        (b'{"prompt": "a", "truth_text": "b"}\n{"prompt": "a", "tru', ("bad.jsonl:2:",)),
        (b'{"prompt": "a", "truth_text": "b", "metadata": {"x": NaN}}\n', ("bad.jsonl:1:",)),
        (
            b'{"prompt": "a", "truth_text": "b", "metadata": {"accepted": "f"}}\n',
            ("bad.jsonl:1:", "metadata.accepted must be a list"),
        ),
        (
            b'{"prompt": "a", "truth_text": "b", "metadata": {"accepted": [{"f": {"n": 1}}]}}\n',
            ("bad.jsonl:1:", "metadata.accepted must have one {function:"),
        ),
    ],
    ids=["empty", "truncated", "NaN", "accepted is a text", "accepted values are no list"],
)
def test_bad_prompts(
    folder: Path, tmp_path: Path, content: bytes, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(content)
    fails(capsys, evaluate(folder, tmp_path / "out.json", prompts=bad), *names)
    assert not (tmp_path / "out.json").exists()


def test_a_file_that_cannot_be_written_is_told_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, evaluate(folder, tmp_path), "is a directory", str(tmp_path))


def test_a_category_that_is_no_text_is_none(folder: Path, tmp_path: Path) -> None:
    one = record(48) | {"metadata": {"category": 3, "accepted": None}}
    prompts = write(tmp_path / "prompts.jsonl", [one])
    assert evaluate(folder, tmp_path / "out.json", prompts=prompts) == 0
    assert json.loads((tmp_path / "out.json").read_text())["categories"] == {}


def test_nan_logits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nan_model(folder / "teacher", tmp_path / "nan")
    fails(
        capsys, evaluate(folder, tmp_path / "out.json", model=tmp_path / "nan"), "cannot be evaluated", "NaN"
    )
