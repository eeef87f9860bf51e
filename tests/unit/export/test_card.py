"""The model card: its head for the hub, its sections, and that nothing is said that nobody knows."""

import re

import made_run
import pytest
import torch
import yaml

from kdfast.export.card import model_card
from kdfast.export.manifest import Manifest, describe_tensors, not_verified
from kdfast.export.origin import data_of, teacher_of
from kdfast.export.parity.result import ParityCheck
from kdfast.export.serving import Serving
from kdfast.quantized import quantize
from kdfast.runs.reading import read_run

SECTIONS = [
    "Training data",
    "Teacher",
    "Licence",
    "Evaluation",
    "Gates",
    "Parity",
    "Speed",
    "Limits",
    "How to serve it",
]


def manifest(**changes):
    tensors = [("w", quantize(torch.randn(4, 64), "q4_0")), ("norm", torch.ones(64))]
    whole = {
        "target": "gguf",
        "source": {"kind": "run", "name": "first", "step": 8},
        "fingerprints": {"dataset": "ab" * 32},
        "tensors": describe_tensors(tensors),
        "teacher": teacher_of(None),
        "data": {
            "train": [{"file": "t.jsonl", "rows": 1200, "sha256": "cd" * 32}],
            "validation": [{"file": "v.jsonl"}],
        },
        "parity": {"weights": ParityCheck(name="weights", status="passed")},
        "gguf": {"file": "student-q4_0.gguf", "type": "q4_0", "origin": "trained"},
    }
    return Manifest(**whole | changes)


def card(run=None, **changes):
    named = {key: changes.pop(key) for key in ("license_name", "base_model") if key in changes}
    made = manifest(**changes)
    file = made.gguf["file"] if made.gguf else ""
    serving = Serving(
        target=made.target, file=file, call_format="hermes", context=4096, stops=("<|im_end|>",)
    )
    return model_card(made, serving, run=run, **named)


def parts(text):
    """(the head as YAML, section -> text)."""
    _, head, body = text.split("---\n", 2)
    found = re.split(r"^## (.*)$", body, flags=re.MULTILINE)
    return yaml.safe_load(head), dict(zip(found[1::2], found[2::2], strict=True)), found[0]


def test_the_head_leaves_out_what_nobody_stated():
    head, sections, intro = parts(card())
    assert head == {
        "pipeline_tag": "text-generation",
        "tags": ["tool-calling", "function-calling", "knowledge-distillation", "kdfast", "gguf", "llama.cpp"],
    }
    assert list(sections) == SECTIONS
    assert "# first" in intro
    assert "step 8" in intro
    assert "trained under" not in intro
    assert "codes are those of the training under quantisation, written as they are" in intro
    assert "2 tensors (1 in float32, 1 in q4_0), 400 bytes of weights" in intro


def test_what_the_user_states_is_in_the_head():
    head, sections, intro = parts(card(license_name="Apache-2.0", base_model="org/small"))
    assert (head["license"], head["base_model"]) == ("apache-2.0", "org/small")
    assert sections["Licence"].strip() == "Apache-2.0, as the user who exported it stated."
    assert "started from org/small" in intro
    other = parts(card(license_name='My own: "licence"\n---'))[0]
    assert (other["license"], other["license_name"]) == ("other", 'My own: "licence"\n---')


def test_another_target_names_its_library():
    head, sections, _ = parts(card(target="hf", gguf=None))
    assert head["library_name"] == "transformers"
    assert "gguf" not in head["tags"]
    assert "vllm serve DIR" in sections["How to serve it"]
    assert "GGUF" not in sections["How to serve it"]


@pytest.mark.parametrize(("origin", "said"), [("post-training", "at export"), ("float", "are not quantised")])
def test_where_codes_come_from_is_said(origin, said):
    assert said in card(gguf={"file": "s.gguf", "type": "q8_0", "origin": origin})


def test_data_and_its_gaps_are_said():
    text = parts(card())[1]["Training data"]
    assert f"| training | t.jsonl | 1,200 | {'cd' * 8} |" in text
    assert "| held-out | v.jsonl | not counted: the file is no longer there |  |" in text
    assert "licence and their language: not stated" in text
    assert "Not stated" in parts(card(data={}))[1]["Training data"]


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({"kind": "none", "terms": "not stated"}, "had no teacher of its own"),
        ({"kind": "unknown", "terms": "not stated"}, "no run of kdfast"),
        (
            {"kind": "local", "model": "big", "gives": ["log-probabilities"], "terms": "not stated"},
            "A local model, `big`, that gave log-probabilities.",
        ),
        ({"kind": "api", "model": "org/big", "hosted": True, "terms": "acknowledged"}, "over HTTP, hosted."),
        ({"kind": "replay", "terms": "not stated"}, "A model whose name is not stated, by answers"),
    ],
)
def test_the_teacher_and_its_terms_are_said(teacher, said):
    text = parts(card(teacher=teacher))[1]["Teacher"]
    assert said in text
    assert ("the user has read them" in text) == (teacher["terms"] == "acknowledged")
    assert ("Terms of the teacher: not stated." in text) == (teacher["terms"] == "not stated")
    assert "restrict training other models on their answers" in text


def test_a_runs_numbers_are_in_the_card(tmp_path):
    run = read_run(made_run.write_run(tmp_path / "secret-place" / "first"))
    made = {"teacher": teacher_of(run.config), "data": data_of(run.config)}
    text = card(run, **made)
    sections = parts(text)[1]
    assert "50.0 % (1 of 2)" in sections["Evaluation"]
    assert "2 prompts got no valid call" in sections["Gates"]
    assert "Some CPU" in sections["Speed"]
    assert "conversations than 512 tokens" in sections["Limits"]
    assert "secret-place" not in text
    assert str(tmp_path) not in text


def test_what_was_not_measured_is_a_limit():
    sections = parts(card(parity=not_verified("--no-verify"), not_measured={"speed": "no <prompts>"}))[1]
    assert "- Not measured: parity.logits: --no-verify" in sections["Limits"]
    assert "- Not measured: speed: no &lt;prompts&gt;" in sections["Limits"]
    assert sections["Parity"].count("not measured") == 4


def test_a_name_cannot_write_markup():
    text = card(source={"kind": "model", "name": "<img src=x>\n## Gates"})
    assert "<img" not in text
    assert text.count("\n## Gates\n") == 1


def test_a_model_that_is_no_run_is_not_said_to_be_distilled():
    text = card(source={"kind": "model", "name": "SmolLM2"}, data={})
    head, _, intro = parts(text)
    assert head["tags"] == ["tool-calling", "function-calling", "kdfast", "gguf", "llama.cpp"]
    assert "calls tools, exported by kdfast from the model `SmolLM2`." in intro
    assert "distillation" not in text
    assert "It was trained on" not in text
    assert "trained by knowledge distillation and exported by kdfast from the run `first`" in card()
