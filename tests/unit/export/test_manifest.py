"""The manifest: what it says of files and tensors, what it must not say, and what is refused when it is read."""

import hashlib
import json

import pytest
import torch
from quantized_models import tiny_model
from safetensors.torch import save_file

from kdfast.config.quant import QuantConfig
from kdfast.errors import DataError
from kdfast.export.manifest import (
    CHECKS,
    Manifest,
    describe_tensors,
    not_verified,
    read_manifest,
    saved_tensors,
    versions,
    write_manifest,
)
from kdfast.export.parity.result import ParityCheck
from kdfast.quantized import QuantizedTable, plan_model, quantize, write_table
from kdfast.runs.export_folder import ExportFolder


def manifest(**changes):
    whole = {
        "target": "gguf",
        "source": {"kind": "run", "name": "first"},
        "fingerprints": {"model": "ab" * 32},
        "tensors": describe_tensors([("norm", torch.ones(4))]),
        "teacher": {"kind": "none", "terms": "not stated"},
        "data": {},
        "parity": {"weights": ParityCheck(name="weights", status="passed", figures={"tensors": 1})},
        "not_measured": {"speed": "no prompts were given"},
        "gguf": {"file": "student-q4_0.gguf", "type": "q4_0", "origin": "trained"},
        "made_at": 1.5,
    }
    return Manifest(**whole | changes)


@pytest.fixture
def export(tmp_path):
    (tmp_path / "student-q4_0.gguf").write_bytes(b"GGUF...")
    (tmp_path / "README.md").write_text("card")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    write_manifest(manifest(), tmp_path)
    return tmp_path


def test_what_is_written_is_read(export):
    found = read_manifest(export)
    assert found.value == json.loads(json.dumps(manifest().to_json(found.value["files"])))
    assert found.value["files"] == [
        {
            "file": name,
            "bytes": (export / name).stat().st_size,
            "sha256": hashlib.sha256((export / name).read_bytes()).hexdigest(),
        }
        for name in ("README.md", "additional_chat_templates/tool_use.jinja", "student-q4_0.gguf")
    ]
    assert found.value["versions"] == versions()
    assert found.value["not_measured"] == {"speed": "no prompts were given"}


def test_the_export_folder_reads_it(export):
    folder = ExportFolder(export)
    assert folder.holds_export
    assert folder.gguf == export / "student-q4_0.gguf"
    assert folder.checked_hash(folder.gguf) == hashlib.sha256(b"GGUF...").hexdigest()
    assert folder.fingerprint("model") == "ab" * 32


def test_written_again_it_does_not_count_itself(export):
    before = read_manifest(export).value["files"]
    write_manifest(manifest(), export)
    assert read_manifest(export).value["files"] == before


def test_without_verification_every_check_says_so():
    made = manifest(parity=not_verified("--no-verify"), not_measured={}).to_json()
    assert {name: check["status"] for name, check in made["parity"].items()} == dict.fromkeys(
        CHECKS, "not_measured"
    )
    assert made["not_measured"] == {f"parity.{name}": "--no-verify" for name in CHECKS}


def test_the_rest_of_a_check_in_part_is_not_measured():
    check = ParityCheck(name="calls", status="passed", reason="right answers are not measured: refused")
    assert manifest(parity={"calls": check}, not_measured={}).gaps == {"parity.calls": check.reason}


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    check = ParityCheck(name="logits", status="failed", figures={"mean_kl": float("nan")})
    with pytest.raises(ValueError, match="Out of range float"):
        write_manifest(manifest(parity={"logits": check}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_target_has_no_gguf(tmp_path):
    write_manifest(manifest(target="hf", gguf=None), tmp_path)
    assert "gguf" not in read_manifest(tmp_path).value


def test_a_tensors_hash_is_of_its_bits():
    zero, minus = torch.zeros(3), -torch.zeros(3)
    one = describe_tensors(
        [("a", zero), ("b", minus), ("c", zero.half()), ("d", zero.view(1, 3)), ("e", zero.clone())]
    )
    assert len({one[name]["sha256"] for name in "abcd"}) == 4
    assert (
        one["a"] == one["e"] == {"format": "float32", "shape": [3], "bytes": 12, "sha256": one["a"]["sha256"]}
    )
    assert one["c"]["bytes"] == 6
    nan = torch.tensor([float("nan")], dtype=torch.bfloat16)
    assert describe_tensors([("n", nan)])["n"]["format"] == "bfloat16"


@pytest.mark.parametrize(
    ("kind", "size"), [("q4_0", 3 * 2 * 18), ("q8_0", 3 * 2 * 34), ("int8_channel", 3 * 66)]
)
def test_a_quantised_tensor_has_the_hash_of_the_table(kind, size):
    torch.manual_seed(0)
    one = quantize(torch.randn(3, 64), kind)
    found = describe_tensors([("w", one)])["w"]
    assert found["sha256"] == QuantizedTable({"w": one}).hashes()["w"]
    assert (found["format"], found["shape"], found["bytes"]) == (kind, [3, 64], size)


def test_saved_tensors_come_from_the_table_where_there_is_one(tmp_path):
    model = tiny_model(layers=1, tied=True)
    weights = {name: one.detach() for name, one in model.named_parameters()}
    plan = plan_model(model, QuantConfig(enabled=True, format="q4_0"))
    table = QuantizedTable({one.name: quantize(weights[one.name], one.format) for one in plan.tensors})
    save_file(weights, tmp_path / "model.safetensors")
    assert {one["format"] for one in describe_tensors(saved_tensors(tmp_path)).values()} == {"float32"}
    write_table(table, tmp_path)
    found = describe_tensors(saved_tensors(tmp_path))
    assert found.keys() == weights.keys()
    assert {name: one["sha256"] for name, one in found.items() if name in table.tensors} == table.hashes()


def test_damaged_weights_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match=r"model.safetensors: the weights are damaged .*save the model again"):
        list(saved_tensors(tmp_path))


def change(**values):
    def apply(document):
        return document | values

    return apply


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (change(kind="kdfast.run"), "kind must be 'kdfast.export'"),
        (change(schema_version="2.0"), "schema_version must be '1.0', got '2.0'"),
        (change(schema_version=None), "schema_version must be '1.0'"),
        (change(target="mlx"), "target must be 'gguf' or 'hf'"),
        (change(target=None), "target is missing"),
        (change(parity=None), "parity is missing"),
        (change(tensors=[]), "tensors must be an object"),
        (change(files={}), "files must be a list"),
        (
            change(files=[{"file": "../x", "bytes": 1, "sha256": "a"}]),
            "files.0.file must be the name of a file",
        ),
        (
            change(files=[{"file": "/etc/x", "bytes": 1, "sha256": "a"}]),
            "files.0.file must be the name of a file",
        ),
        (change(files=[{"file": "x", "bytes": "1", "sha256": "a"}]), "files.0.bytes must be a number"),
        (change(gguf={"file": ""}), "gguf.file must be the name of a file"),
        (change(gguf=None), "gguf is missing"),
    ],
)
def test_a_damaged_manifest_is_refused_with_place_and_remedy(export, edit, said):
    path = export / "manifest.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=said) as caught:
        read_manifest(export)
    assert "manifest.json" in str(caught.value)
    assert "export again (`kdfast export`)" in str(caught.value)


@pytest.mark.parametrize("text", ["", "null", "[]", '"{}"', '{"kind": NaN}', "{"])
def test_what_is_no_json_object_is_refused(export, text):
    (export / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="export again"):
        read_manifest(export)


def test_a_folder_without_a_manifest_is_no_export(tmp_path):
    with pytest.raises(DataError, match=r"manifest.json: no such file, so this is no export"):
        read_manifest(tmp_path)


def test_a_later_minor_version_is_read(export):
    path = export / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": "1.7", "new": 1}))
    assert read_manifest(export)["target"].text() == "gguf"
