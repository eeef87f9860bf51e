"""The importer of BFCL: what it reads, writes, leaves out and refuses."""

import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from kdfast.errors import DataError
from kdfast.importers.bfcl import CALL_CATEGORIES, CATEGORIES, import_bfcl
from kdfast.importers.bfcl_schema import conforms
from kdfast.importers.bfcl_split import Shares
from kdfast.scoring import match_calls

WHEELS = sorted((Path(__file__).parents[3] / ".cache" / "wheels").glob("bfcl_eval-*.whl"))


def bfcl_function(name="area", properties=None, required=("side",)):
    properties = properties or {"side": {"type": "integer"}, "unit": {"type": "string", "default": "cm"}}
    return {
        "name": name,
        "description": f"Does {name}.",
        "parameters": {"type": "dict", "properties": properties, "required": list(required)},
    }


def entry(identifier, question, functions):
    return {"id": identifier, "question": [[{"role": "user", "content": question}]], "function": functions}


def tiny_files():
    """Eight simple, eight multiple, eight irrelevance records; the content is ours, the form is BFCL's."""
    files = {}
    simple = [
        entry(f"simple_python_{i}", f"Area of side {i}?", [bfcl_function(f"area.v{i}")]) for i in range(8)
    ]
    several = [
        entry(f"multiple_{i}", f"Volume of {i}?", [bfcl_function(f"volume{i}"), bfcl_function(f"weight{i}")])
        for i in range(8)
    ]
    irrelevant = [entry(f"irrelevance_{i}", f"Sing song {i}", [bfcl_function(f"sum{i}")]) for i in range(8)]
    files["simple_python"] = simple, [{"area.v%d" % i: {"side": [i], "unit": ["cm", ""]}} for i in range(8)]  # noqa: UP031
    files["multiple"] = several, [{f"weight{i}": {"side": [i], "unit": [""]}} for i in range(8)]
    files["irrelevance"] = irrelevant, None
    return files


def write_wheel(path, files=None):
    with zipfile.ZipFile(path, "w") as wheel:
        for category, (entries, truths) in (files or tiny_files()).items():
            name = f"BFCL_v4_{category}.json"
            wheel.writestr(f"bfcl_eval/data/{name}", "\n".join(json.dumps(row) for row in entries))
            if truths is not None:
                rows = [
                    {"id": row["id"], "ground_truth": truth if isinstance(truth, list) else [truth]}
                    for row, truth in zip(entries, truths, strict=True)
                ]
                wheel.writestr(
                    f"bfcl_eval/data/possible_answer/{name}", "\n".join(json.dumps(row) for row in rows)
                )
    return path


TINY = ("simple_python", "multiple", "irrelevance")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_import_writes_records_in_kdfast_form(tmp_path):
    wheel = write_wheel(tmp_path / "bfcl_eval-1.whl")
    summary = import_bfcl(
        wheel, tmp_path / "out", categories=TINY, shares=Shares(validation_fraction=0.25), seed=3
    )
    train, validation = read(summary.train_path), read(summary.validation_path)
    assert summary.read == {"simple_python": 8, "multiple": 8, "irrelevance": 8}
    assert summary.skipped == {}
    assert summary.train == {"simple_python": 6, "multiple": 6, "irrelevance": 6}
    assert summary.validation == {"simple_python": 2, "multiple": 2, "irrelevance": 2}
    by_id = {record["metadata"]["id"]: record for record in train + validation}
    assert len(by_id) == 24
    assert by_id["simple_python_3"] == {
        "messages": [{"role": "user", "content": "Area of side 3?"}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "area.v3",
                    "description": "Does area.v3.",
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "side": {"type": "integer"},
                            "unit": {"type": "string", "default": "cm"},
                        },
                        "required": ["side"],
                    },
                },
            }
        ],
        "truth_message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "area.v3", "arguments": {"side": 3}}}],
        },
        "tool_should_be_used": True,
        "metadata": {
            "id": "simple_python_3",
            "category": "simple_python",
            "language": "python",
            "accepted": [{"area.v3": {"side": [3], "unit": ["cm", ""]}}],
        },
    }
    irrelevant = by_id["irrelevance_2"]
    assert irrelevant["tool_should_be_used"] is False
    assert irrelevant["metadata"]["synthetic"] is True
    assert "accepted" not in irrelevant["metadata"]
    assert set(irrelevant["truth_message"]) == {"role", "content"}
    assert "sum2" in irrelevant["truth_message"]["content"]


def test_the_unpacked_directory_gives_the_same_bytes_and_another_seed_others(tmp_path):
    wheel = write_wheel(tmp_path / "bfcl_eval-1.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")

    def digest(source, seed):
        summary = import_bfcl(source, tmp_path / f"out{seed}", categories=TINY, seed=seed)
        return [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (summary.train_path, summary.validation_path)
        ]

    first = digest(wheel, 0)
    assert first == digest(tmp_path / "unpacked", 0) == digest(wheel, 0)
    assert first[0] != digest(wheel, 1)[0]
    assert sorted(path.name for path in (tmp_path / "out0").iterdir()) == ["train.jsonl", "validation.jsonl"]


def test_parallel_calls_and_broken_truths(tmp_path):
    function = bfcl_function("play", {"song": {"type": "string"}}, ["song"])
    entries = [entry("parallel_0", "Play both", [function]), entry("parallel_1", "Play others", [function])]
    truths = [[{"play": {"song": ["A"]}}, {"play": {"song": ["B"]}}], [{"stop": {}}]]
    wheel = write_wheel(tmp_path / "w.whl", {"parallel": (entries, truths)})
    summary = import_bfcl(
        wheel, tmp_path / "o", categories=["parallel"], shares=Shares(validation_fraction=0.0)
    )
    (record,) = read(summary.train_path)
    calls = [call["function"] for call in record["truth_message"]["tool_calls"]]
    assert calls == [
        {"name": "play", "arguments": {"song": "A"}},
        {"name": "play", "arguments": {"song": "B"}},
    ]
    assert summary.skipped == {"the ground truth calls a function that is not among the tools": 1}
    assert summary.validation_path.read_bytes() == b""


def test_long_records_and_live_relevance_are_counted_not_lost(tmp_path):
    files = tiny_files()
    files["simple_python"][0][0]["question"][0][0]["content"] = "long " * 100
    files["live_relevance"] = [entry("live_relevance_0", "Draw", [bfcl_function("search")])], None
    summary = import_bfcl(
        write_wheel(tmp_path / "w.whl", files),
        tmp_path / "o",
        categories=[*TINY, "live_relevance"],
        max_chars=600,
    )
    assert summary.skipped == {"longer than 600 characters": 1, "no ground truth": 1}
    assert sum(summary.train.values()) + sum(summary.validation.values()) == 23


def test_asked_sizes_and_shares(tmp_path):
    shares = Shares(rows=10, validation_rows=4, irrelevance_fraction=0.2, validation_irrelevance_fraction=0.5)
    summary = import_bfcl(write_wheel(tmp_path / "w.whl"), tmp_path / "o", categories=TINY, shares=shares)
    assert summary.train == {"simple_python": 4, "multiple": 4, "irrelevance": 2}
    assert summary.validation == {"simple_python": 1, "multiple": 1, "irrelevance": 2}
    assert summary.to_json()["train_path"].endswith("train.jsonl")


def test_an_irrelevance_share_alone_keeps_as_many_rows_as_it_allows(tmp_path):
    shares = Shares(validation_rows=0, irrelevance_fraction=0.2)
    summary = import_bfcl(write_wheel(tmp_path / "w.whl"), tmp_path / "o", categories=TINY, shares=shares)
    # 16 records with calls are 80 % of 20.
    assert summary.train == {"simple_python": 8, "multiple": 8, "irrelevance": 4}


def test_too_few_records_is_an_error(tmp_path):
    wheel = write_wheel(tmp_path / "w.whl")
    with pytest.raises(DataError, match=r"fewer records \(\d+\) than asked for.*100"):
        import_bfcl(wheel, tmp_path / "o", categories=TINY, shares=Shares(rows=100, validation_rows=2))
    assert not (tmp_path / "o").exists()


def test_sources_that_are_no_bfcl_data(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="no such file or directory; give the bfcl-eval wheel"):
        import_bfcl(tmp_path / "nowhere.whl", out)
    (tmp_path / "text.whl").write_text("hello")
    with pytest.raises(DataError, match="not a wheel"):
        import_bfcl(tmp_path / "text.whl", out)
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("other/data.json", "{}")
    with pytest.raises(DataError, match=r"no BFCL v4 data inside.*BFCL_v4_simple_python\.json"):
        import_bfcl(tmp_path / "other.whl", out)
    with pytest.raises(DataError, match="no BFCL v4 data inside"):
        import_bfcl(tmp_path, out)
    with pytest.raises(DataError, match=r"unknown BFCL categories.*: simpel"):
        import_bfcl(tmp_path, out, categories=["simpel"])
    assert not out.exists()


def test_a_damaged_line_is_named_and_nothing_is_written(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr("bfcl_eval/data/BFCL_v4_irrelevance.json", '{"id": "a"}\n{"id": \n')
    with pytest.raises(DataError, match="not a BFCL v4 record"):
        import_bfcl(tmp_path / "w.whl", tmp_path / "o", categories=["irrelevance"])
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr("bfcl_eval/data/BFCL_v4_irrelevance.json", '\n{"id": \n')
    with pytest.raises(DataError, match=r"irrelevance\.json:2:8: not JSON"):
        import_bfcl(tmp_path / "w.whl", tmp_path / "o", categories=["irrelevance"])
    assert not (tmp_path / "o").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "o").write_text("mine")
    with pytest.raises(DataError, match="must be a directory"):
        import_bfcl(write_wheel(tmp_path / "w.whl"), tmp_path / "o", categories=TINY)
    assert (tmp_path / "o").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.skipif(
    not WHEELS,
    reason="the bfcl-eval wheel is not in .cache/wheels (make quickstart-llm or make bench-agreement fetches it)",
)
def test_every_call_of_the_real_wheel_satisfies_its_schema_and_its_ground_truth(tmp_path):
    summary = import_bfcl(WHEELS[-1], tmp_path, categories=CATEGORIES, shares=Shares(validation_fraction=0.1))
    records = read(summary.train_path) + read(summary.validation_path)
    assert sum(summary.read.values()) == len(records) + sum(summary.skipped.values())
    counts = Counter(record["metadata"]["category"] for record in records)
    assert all(counts[category] >= 0.8 * summary.read[category] for category in CALL_CATEGORIES)
    for record in records:
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in record["tools"]}
        calls = [call["function"] for call in record["truth_message"].get("tool_calls", [])]
        assert bool(calls) == record["tool_should_be_used"]
        assert all(conforms(call["arguments"], schemas[call["name"]]) for call in calls), record["metadata"]
        if calls:
            pairs = [(call["name"], call["arguments"]) for call in calls]
            assert match_calls(pairs, record["metadata"]["accepted"], record["tools"]) is None


@pytest.mark.slow
@pytest.mark.skipif(
    not WHEELS,
    reason="the bfcl-eval wheel is not in .cache/wheels (make quickstart-llm or make bench-agreement fetches it)",
)
def test_every_call_of_the_real_wheel_passes_the_json_schema_validator(tmp_path):
    from kdfast._rust import ToolSchema

    summary = import_bfcl(WHEELS[-1], tmp_path)
    for record in read(summary.train_path) + read(summary.validation_path):
        schema = ToolSchema(record["tools"])
        for call in record["truth_message"].get("tool_calls", []):
            text = f"<tool_call>{json.dumps(call['function'])}</tool_call>"
            assert schema.is_valid(text), (record["metadata"]["id"], schema.issues(text))
