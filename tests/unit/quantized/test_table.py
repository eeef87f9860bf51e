"""The table: written, read back, refused when damaged, and held to weights and plan."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kdfast.config.quant import QuantConfig
from kdfast.errors import DataError, QATError
from kdfast.quantized import (
    TABLE_FILE,
    QuantizedTable,
    check_saved,
    plan_model,
    quantize,
    read_table,
    write_table,
)


def made_table():
    torch.manual_seed(0)
    weights = {"a.weight": ("q4_0", 64), "b.weight": ("q8_0", 32), "c.weight": ("int8_channel", 5)}
    return QuantizedTable(
        {name: quantize(torch.randn(3, width), kind) for name, (kind, width) in weights.items()}
    )


def weights_of(table):
    return {name: one.dequantize() for name, one in table.tensors.items()}


@pytest.fixture
def saved(tmp_path):
    table = made_table()
    write_table(table, tmp_path)
    save_file(weights_of(table) | {"norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    return tmp_path


def change(path, *, tensors=None, header=None):
    """Writes a table again with other tensors or another header."""
    old = load_file(path / TABLE_FILE)
    with safe_open(path / TABLE_FILE, framework="pt") as file:
        document = json.loads(file.metadata()["kdfast"])
    if header is not None:
        header(document)
    save_file(old | (tensors or {}), path / TABLE_FILE, metadata={"kdfast": json.dumps(document)})


def test_what_is_written_is_read(saved):
    table, found = made_table(), read_table(saved)
    assert list(found.tensors) == list(table.tensors)
    for name, one in table.tensors.items():
        assert found.tensors[name].format == one.format
        assert torch.equal(found.tensors[name].codes, one.codes)
        assert torch.equal(found.tensors[name].scales, one.scales)
    assert found.fingerprint() == table.fingerprint()
    assert sorted(path.name for path in saved.iterdir()) == ["model.safetensors", TABLE_FILE]
    assert check_saved(saved).hashes() == table.hashes()


def test_the_fingerprint_is_of_the_contents_not_of_their_order():
    table = made_table()
    turned = QuantizedTable(dict(reversed(table.tensors.items())))
    assert turned.fingerprint() == table.fingerprint()
    table.tensors["c.weight"].codes[0, 0] += 1
    assert turned.fingerprint() == table.fingerprint()  # the same tensor
    assert turned.fingerprint() != made_table().fingerprint()


def test_there_is_none(tmp_path):
    with pytest.raises(DataError, match=rf"{TABLE_FILE}: no table .*; convert and save the student again"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (lambda h: h.update(kind="weights"), "kind must be 'quantized_table', got 'weights'"),
        (lambda h: h.update(schema_version="2.0"), "schema_version must be '1.0', got '2.0'"),
        (lambda h: h.update(schema_version=1), "schema_version must be '1.0', got 1"),
        (lambda h: h.update(tensors=[]), "'tensors' must map names to objects"),
        (lambda h: h["tensors"].pop("b.weight"), "differ: b.weight.codes"),
        (lambda h: h["tensors"].update(d={}), "differ: d.codes"),
        (lambda h: h["tensors"]["a.weight"].update(format="q5_1"), "a.weight: its format must be one of"),
        (lambda h: h["tensors"]["a.weight"].update(format=None), "a.weight: its format must be one of"),
        (lambda h: h["tensors"]["a.weight"].update(format="int8_channel"), "a.weight: its block must be 64"),
        (lambda h: h["tensors"]["a.weight"].update(shape=[64, 3]), r"its codes must be int8 \[64, 3\]"),
        (
            lambda h: h["tensors"]["a.weight"].update(sha256="0"),
            "a.weight: its contents do not have the hash",
        ),
        (lambda h: h["tensors"]["a.weight"].pop("sha256"), "a.weight: its contents do not have the hash"),
    ],
)
def test_a_header_that_is_wrong_is_refused(saved, header, words):
    change(saved, header=header)
    with pytest.raises(DataError, match=rf"{TABLE_FILE}: .*convert and save the student again.*{words}"):
        read_table(saved)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("a.weight.codes", torch.full((3, 64), 8, dtype=torch.int8), r"a code is outside -8..7"),
        ("c.weight.codes", torch.full((3, 5), -128, dtype=torch.int8), r"a code is outside -127..127"),
        ("a.weight.codes", torch.zeros(3, 64), "its codes must be int8"),
        ("a.weight.codes", torch.zeros(3, 0, dtype=torch.int8), "its codes must be int8"),
        (
            "a.weight.codes",
            torch.zeros(3, 64, dtype=torch.int8),
            "a.weight: its contents do not have the hash",
        ),
        ("a.weight.scales", torch.ones(3, 2), r"its scales must be float16 \[3, 2\], got torch.float32"),
        ("a.weight.scales", torch.ones(3, 1, dtype=torch.float16), r"float16 \[3, 2\], got .*\[3, 1\]"),
        ("a.weight.scales", torch.full((3, 2), torch.inf, dtype=torch.float16), "a scale is not finite"),
    ],
)
def test_tensors_that_are_wrong_are_refused(saved, name, tensor, words):
    change(saved, tensors={name: tensor})
    with pytest.raises(DataError, match=words):
        read_table(saved)


def test_files_that_are_no_table_are_refused(saved):
    path = saved / TABLE_FILE
    whole = path.read_bytes()
    for content, words in (
        (b"", "no safetensors file"),
        (whole[:-1], "no safetensors file"),
        (whole[:50], "no safetensors file"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_table(saved)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(DataError, match="its metadata lack the key 'kdfast'"):
        read_table(saved)
    for text, words in (
        ("{", "its header is no JSON"),
        ("[]", r"kind must be .*, got \[\]"),
        ("NaN", "no JSON"),
    ):
        save_file({"a": torch.ones(1)}, path, metadata={"kdfast": text})
        with pytest.raises(DataError, match=words):
            read_table(saved)


def test_a_scale_that_is_not_finite_is_not_written(tmp_path):
    table = QuantizedTable({"a": quantize(torch.full((1, 32), 1e30), "q4_0")})
    with pytest.raises(QATError, match=r"^a: its weights are too large"):
        write_table(table, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_table_is_replaced_whole(saved):
    other = QuantizedTable({"a": quantize(torch.ones(1, 32), "q4_0")})
    write_table(other, saved)
    assert read_table(saved).fingerprint() == other.fingerprint()
    with pytest.raises(OSError, match=r"."):
        write_table(other, saved / "missing")


@pytest.mark.parametrize("name", ["a.weight", "b.weight", "c.weight"])
def test_weights_must_be_codes_times_scales(name):
    table = made_table()
    weights = weights_of(table)
    table.check_weights(weights | {"other": torch.ones(1)})
    bent = weights[name].clone()
    bent[1, 2] = torch.nextafter(bent[1, 2], torch.tensor(9.0))
    with pytest.raises(QATError, match=f"not what the table says .*: {name}$"):
        table.check_weights(weights | {name: bent})
    with pytest.raises(QATError, match=rf"must be saved in float32.*: {name} is torch.bfloat16"):
        table.check_weights(weights | {name: bent.bfloat16()})
    with pytest.raises(QATError, match=f"not among the weights, .*: {name}$"):
        table.check_weights({other: one for other, one in weights.items() if other != name})


@pytest.mark.parametrize("name", ["a.weight", "b.weight"])
def test_blocks_must_quantise_to_the_table_again(name):
    """Halved codes with doubled scales are the same weights, but another file would be made from them."""
    table = made_table()
    one = table.tensors[name]
    one.codes[2] = one.codes[2] // 2
    weights = weights_of(table)
    with pytest.raises(QATError, match=rf"blocks quantise to other codes .*: {name}, row 2, block 0"):
        table.check_weights(weights)


def test_frozen_int8_scales_need_not_be_the_rule_s():
    scales = torch.full((2, 1), 3.0, dtype=torch.float16)
    table = QuantizedTable({"a": quantize(torch.ones(2, 4), "int8_channel", scales=scales)})
    table.check_weights(weights_of(table))


def test_the_set_of_tensors_is_held_to_the_plan(saved):
    model = torch.nn.Sequential(torch.nn.Linear(64, 3, bias=False), torch.nn.Linear(3, 3))
    plan = plan_model(model, QuantConfig())
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    table = QuantizedTable({name: quantize(weights[name], "int8_channel") for name in plan.names})
    table.check_plan(plan)
    wrong = {
        "found nothing": {"0.weight": table.tensors["0.weight"]},
        "planned nothing": dict(table.tensors) | {"2.weight": table.tensors["0.weight"]},
        "found q8_0": dict(table.tensors) | {"0.weight": quantize(weights["0.weight"], "q8_0")},
        r"found int8_channel \[1, 3\]": dict(table.tensors)
        | {"1.weight": quantize(torch.ones(1, 3), "int8_channel")},
    }
    for words, tensors in wrong.items():
        with pytest.raises(QATError, match=words):
            QuantizedTable(tensors).check_plan(plan)
    with pytest.raises(QATError, match="the table is not the planned one"):
        check_saved(saved, plan)


def test_a_saved_student_is_checked_file_by_file(saved, tmp_path_factory):
    weights = load_file(saved / "model.safetensors")
    split = tmp_path_factory.mktemp("split")
    shutil.copy(saved / TABLE_FILE, split)
    save_file({"a.weight": weights["a.weight"]}, split / "model-1.safetensors")
    with pytest.raises(QATError, match=r"not among the saved weights, .*: b.weight"):
        check_saved(split)
    save_file({name: weights[name] for name in ("b.weight", "c.weight")}, split / "model-2.safetensors")
    assert len(check_saved(split).tensors) == 3
    save_file(
        {"b.weight": weights["b.weight"].half(), "c.weight": weights["c.weight"]},
        split / "model-2.safetensors",
    )
    with pytest.raises(QATError, match=r"b.weight is torch.float16"):
        check_saved(split)
    (split / "model-2.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"model-2.safetensors: the weights are damaged"):
        check_saved(split)
