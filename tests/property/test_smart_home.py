"""What holds for every seed and every choice of sizes: calls, held-out templates, distinct sentences, bytes."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from small_import import parts
from small_intents import HOME, write_wheel

from kdfast import ToolSchema, find_tool_calls
from kdfast.importers.smart_home.importer import Options, import_smart_home
from kdfast.importers.smart_home.sentences import fold

WHEEL = write_wheel(Path(tempfile.mkdtemp()) / "w.whl")
FILES = ("train", "labels", "prompts", "validation", "test")

options = st.builds(
    Options,
    rows=st.integers(1, 120),
    labels=st.integers(1, 10),
    prompts=st.integers(1, 20),
    validation_rows=st.integers(1, 20),
    test_rows=st.integers(1, 25),
    no_call_fraction=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    held_out_templates=st.sampled_from([0.0, 0.1, 0.15, 0.3, 0.5]),
    tools_per_record=st.sampled_from([None, 1, 3, 50]),
    home=st.just(HOME),
    seed=st.integers(0, 10_000),
)


def imported(chosen):
    with tempfile.TemporaryDirectory() as directory:
        import_smart_home(WHEEL, Path(directory), chosen)
        content = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    files = {name: [json.loads(line) for line in content[f"{name}.jsonl"].splitlines()] for name in FILES}
    return content, files


@settings(deadline=None, max_examples=25)
@given(options)
def test_calls_are_valid_and_what_needs_no_call_has_none(chosen):
    _, files = imported(chosen)
    for name, records in files.items():
        for record in records:
            if name == "prompts":
                assert set(record) == {"messages", "tools", "metadata"}
                continue
            calls = record["truth_message"].get("tool_calls", [])
            assert record["tool_should_be_used"] is bool(calls)
            if calls:
                assert ToolSchema(record["tools"]).is_valid(json.dumps(calls[0]["function"]))
            else:
                assert not find_tool_calls(record["truth_message"]["content"])
        rows = len(records)
        without = sum(not record.get("tool_should_be_used", True) for record in records)
        assert name == "prompts" or without == round(rows * chosen.no_call_fraction)


@settings(deadline=None, max_examples=25)
@given(options)
def test_sentences_are_distinct_and_held_out_templates_absent_from_training(chosen):
    _, files = imported(chosen)
    sentences = [fold(record["messages"][0]["content"]) for records in files.values() for record in records]
    assert len(sentences) == len(set(sentences))
    trained = {
        (record["metadata"]["intent"], record["metadata"]["template"])
        for name in ("train", "labels")
        for record in files[name]
        if record["tool_should_be_used"]
    }
    held = {
        name: {
            (record["metadata"]["intent"], record["metadata"]["template"])
            for record in files[name]
            if record["metadata"]["slice"] == "held_out_template"
        }
        for name in ("validation", "test")
    }
    assert not (held["validation"] | held["test"]) & trained
    assert not held["validation"] & held["test"]
    slices = {
        record["metadata"]["slice"] for name in ("train", "labels", "prompts") for record in files[name]
    }
    assert slices == {"train"}


@settings(deadline=None, max_examples=10)
@given(options)
def test_the_same_options_give_the_same_bytes_and_another_seed_others(chosen):
    first, _ = imported(chosen)
    assert imported(chosen)[0] == first
    fields = {name: getattr(chosen, name) for name in Options.__dataclass_fields__}
    other, _ = imported(Options(**fields | {"seed": chosen.seed + 1}))
    assert other["train.jsonl"] != first["train.jsonl"] or chosen.rows < 5


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.5]))
def test_what_is_called_is_what_is_said(seed, share):
    own = parts(WHEEL, share=share, seed=seed)
    for template, sentence in own.sentences(80, seed):
        assert "  " not in sentence.text
        assert template in own.reader.sentences_of(sentence.text)
        for name, value in sentence.arguments.items():
            said = [span for span in sentence.spans if span.slot == name]
            if isinstance(value, str) and value not in sentence.text:
                lists = [own.package.lists.get(span.source, {}).get("values", []) for span in said]
                out = [one["out"] for values in lists for one in values]
                assert value in out or template.fixed[name] == value
