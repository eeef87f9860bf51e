"""The Hugging Face target: a student copied byte by byte, and the check that names what differs."""

import json
import shutil

import pytest
import torch
from quantized_models import tiny_model
from safetensors.torch import load_file, save_file
from tiny_models import TEMPLATE, TURN_END, write_tokenizer

from kdfast.config.quant import QuantConfig
from kdfast.errors import ConfigError, DataError, QATError
from kdfast.export.hf import check_hf, copy_tokenizer_files, export_hf, tokenizer_files
from kdfast.quantized import TABLE_FILE, QuantizedTable, plan_model, quantize, read_table, write_table
from kdfast.runs.student import weights_fingerprint


@pytest.fixture
def student(tmp_path):
    directory = write_tokenizer(tmp_path / "student")
    tiny_model(layers=1, bos_token_id=None, eos_token_id=258).save_pretrained(directory)
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN_END})
    )
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "kdfast.json").write_text('{"step": 4, "final": "last"}')
    return directory


@pytest.fixture
def quantized(student):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    plan = plan_model(model, QuantConfig(enabled=True, format="q4_0"))
    weights = dict(model.named_parameters())
    table = QuantizedTable(
        {one.name: quantize(weights[one.name].detach(), one.format) for one in plan.tensors}
    )
    with torch.no_grad():
        for name, one in table.tensors.items():
            weights[name].copy_(one.dequantize())
    model.save_pretrained(student)
    write_table(table, student)
    return student


def out(tmp_path):
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def names(paths):
    return sorted(map(str, paths))


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_student_is_copied_and_nothing_else(student, tmp_path):
    for strange in ("optimizer.pt", "lock", "pytorch_model.bin", "training_args.json"):
        (student / strange).write_text("x")
    (student / "additional_chat_templates").mkdir()
    (student / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    directory = out(tmp_path)
    made = export_hf(student, directory)
    found, source = contents(directory), contents(student)
    assert names(made) == sorted(found)
    assert sorted(found) == [
        "additional_chat_templates/tool_use.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "kdfast.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert all(source[name] == content for name, content in found.items())
    check = check_hf(directory, student)
    assert check.status == "passed"
    assert check.problems == ()
    assert check.figures["loads_in_transformers"] is True
    assert check.figures["tensors"] == len(load_file(student / "model.safetensors"))
    assert weights_fingerprint(directory) == weights_fingerprint(student)


def test_the_table_of_a_quantised_student_goes_along(quantized, tmp_path):
    directory = out(tmp_path)
    assert TABLE_FILE in names(export_hf(quantized, directory))
    assert read_table(directory).fingerprint() == read_table(quantized).fingerprint()
    assert check_hf(directory, quantized).status == "passed"


def test_weights_that_are_not_the_tables_are_refused_before_a_copy(quantized, tmp_path):
    weights = load_file(quantized / "model.safetensors")
    name = next(iter(read_table(quantized).tensors))
    weights[name][0, 0] += 1
    save_file(weights, quantized / "model.safetensors", metadata={"format": "pt"})
    directory = out(tmp_path)
    with pytest.raises(QATError, match=name):
        export_hf(quantized, directory)
    assert contents(directory) == {}


def one_weight(directory):
    weights = load_file(directory / "model.safetensors")
    weights["model.norm.weight"][3] *= 1.05
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def sign_of_zero(directory):
    weights = load_file(directory / "model.safetensors")
    weights["model.norm.weight"][:] = -0.0
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def lost_weight(directory):
    weights = load_file(directory / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def cut_weights(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def blank(name):
    def change(directory):
        (directory / name).write_text((directory / name).read_text() + " ")

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_weight, "model.safetensors: tensor model.norm.weight differs from the student's"),
        (sign_of_zero, "model.safetensors: tensor model.norm.weight differs from the student's"),
        (lost_weight, "model.safetensors: tensor model.norm.weight is missing"),
        (cut_weights, "model.safetensors: no readable safetensors file"),
        (blank("chat_template.jinja"), "chat_template.jinja: other bytes than the student's"),
        (blank("generation_config.json"), "generation_config.json: other bytes than the student's"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "tokenizer.json: missing"),
        (
            lambda directory: shutil.copy(directory / "model.safetensors", directory / "more.safetensors"),
            "more.safetensors: the student has no such file of weights",
        ),
    ],
)
def test_a_tampered_copy_fails_and_names_what_differs(student, tmp_path, change, said):
    if change is sign_of_zero:
        weights = load_file(student / "model.safetensors")
        weights["model.norm.weight"][:] = 0.0
        save_file(weights, student / "model.safetensors", metadata={"format": "pt"})
    directory = out(tmp_path)
    export_hf(student, directory)
    change(directory)
    check = check_hf(directory, student)
    assert check.failed
    assert len(check.problems) == 1
    assert check.problems[0].startswith(said)
    assert check.figures["loads_in_transformers"] is False


def test_a_student_that_transformers_cannot_load_fails(student, tmp_path):
    lost_weight(student)
    directory = out(tmp_path)
    export_hf(student, directory)
    check = check_hf(directory, student)
    assert check.failed
    assert "transformers does not load it" in check.problems[0]
    assert "model.norm.weight" in check.problems[0]


def test_sharded_weights_are_copied_with_their_index(student, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    (student / "model.safetensors").unlink()
    model.save_pretrained(student, max_shard_size="30KB")
    directory = out(tmp_path)
    made = names(export_hf(student, directory))
    assert "model.safetensors.index.json" in made
    assert sum(name.endswith(".safetensors") for name in made) > 1
    assert check_hf(directory, student).status == "passed"
    sorted(student.glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(ConfigError, match=r"model-00001.* is missing"):
        export_hf(student, directory)


def test_without_generation_config_it_is_copied_without(student, tmp_path):
    (student / "generation_config.json").unlink()
    directory = out(tmp_path)
    assert "generation_config.json" not in names(export_hf(student, directory))
    assert check_hf(directory, student).status == "passed"


def test_a_template_in_the_settings_is_one(student, tmp_path):
    (student / "chat_template.jinja").unlink()
    (student / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": TEMPLATE, "eos_token": TURN_END})
    )
    assert "chat_template.jinja" not in names(copy_tokenizer_files(student, out(tmp_path)))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda path: (path / "chat_template.jinja").unlink(), ConfigError, "has no chat template"),
        (lambda path: (path / "tokenizer.json").unlink(), ConfigError, "has no tokenizer.json"),
        (lambda path: (path / "config.json").unlink(), ConfigError, "no readable config.json"),
        (lambda path: (path / "config.json").write_text("[]"), ConfigError, "no readable config.json"),
        (lambda path: (path / "model.safetensors").unlink(), ConfigError, "has no weights as safetensors"),
        (
            lambda path: (path / "model.safetensors").rename(path / "other.safetensors"),
            ConfigError,
            "has neither model.safetensors nor model.safetensors.index.json",
        ),
        (
            lambda path: shutil.copy(path / "model.safetensors", path / "adapter.safetensors"),
            ConfigError,
            "adapter.safetensors does not belong to them",
        ),
    ],
)
def test_what_is_no_student_is_refused(student, tmp_path, change, error, said):
    change(student)
    directory = out(tmp_path)
    with pytest.raises(error, match=said):
        export_hf(student, directory)
    assert contents(directory) == {}


@pytest.mark.parametrize("text", ["", "null", "[1]", "{", '"{}"'])
def test_damaged_settings_are_named(student, text):
    (student / "chat_template.jinja").unlink()
    (student / "tokenizer_config.json").write_text(text)
    with pytest.raises(DataError, match=r"tokenizer_config.json: .*save the model again"):
        tokenizer_files(student)


@pytest.mark.parametrize("text", ["[]", '{"weight_map": null}', '{"weight_map": {"a": 1}}', "{"])
def test_a_damaged_index_is_named(student, tmp_path, text):
    (student / "model.safetensors").rename(student / "model-00001-of-00001.safetensors")
    (student / "model.safetensors.index.json").write_text(text)
    with pytest.raises(DataError, match=r"index.json: .*save the model again"):
        export_hf(student, out(tmp_path))


def test_a_weight_that_is_no_number_fails(tmp_path, student):
    path = student / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    out = tmp_path / "out"
    out.mkdir()
    export_hf(student, out)
    found = check_hf(out, student)
    assert found.failed
    assert "tensor model.norm.weight has a weight that is no finite number" in found.problems[0]
