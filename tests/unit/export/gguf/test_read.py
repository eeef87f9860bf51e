"""Reading back: what was written, and damaged files that are named."""

import struct

import numpy as np
import pytest
from export_students import any_codes_student
from gguf import GGUFWriter

from kdfast.errors import DataError
from kdfast.export.gguf import read_gguf, write_gguf
from kdfast.export.shipped import shipped_weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("read")
    student = any_codes_student(directory / "student")
    write_gguf(
        directory / "x.gguf", shipped_weights(student.model, student.table), student.directory, name="né"
    )
    return directory / "x.gguf"


def test_keys_of_every_type(tmp_path):
    writer = GGUFWriter(tmp_path / "x.gguf", "llama")
    values = {
        "uint8": 200,
        "int8": -3,
        "uint16": 60000,
        "int16": -300,
        "uint32": 4e9,
        "int32": -5,
        "uint64": 2**60,
    }
    values |= {"int64": -(2**60), "float32": 0.5, "float64": 0.1}
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(kind, int(value) if "int" in kind else value)
    writer.add_bool("yes", True)
    writer.add_string("text", "né")
    writer.add_array("texts", ["a", "b"])
    writer.add_array("numbers", [1, -2])
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("half", np.arange(3, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(tmp_path / "x.gguf")
    expected = values | {"yes": True, "text": "né", "texts": ["a", "b"], "numbers": [1, -2]}
    assert file.metadata == expected | {"general.architecture": "llama"}
    assert file.metadata["yes"] is True
    assert file.tensors["one"].floats().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert file.tensors["half"].floats().tolist() == [0, 1, 2]
    assert file.tensors["half"].stored_bytes == 6


def test_a_file_cut_anywhere_is_named(whole, tmp_path):
    content = whole.read_bytes()
    path = tmp_path / "cut.gguf"
    for size in (*range(0, 400, 7), len(content) // 2, len(content) - 64):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="export the student again") as caught:
            read_gguf(path)
        assert caught.value.source == str(path)


@pytest.mark.parametrize(
    ("at", "new", "what"),
    [
        (0, b"GGML", "no GGUF file"),
        (4, struct.pack("<I", 2), "version 3 expected, got 2"),
        (8, struct.pack("<Q", 2**62), "more tensors and keys"),
        (24, struct.pack("<Q", 2**62), "ends too early"),
        (32, b"\xff", "no UTF-8"),
    ],
)
def test_a_changed_header_is_named(whole, tmp_path, at, new, what):
    content = bytearray(whole.read_bytes())
    content[at : at + len(new)] = new
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(DataError, match=what):
        read_gguf(path)


def made(path, *, tensors=(), keys=b"", key_count=0):
    """A file with tensor infos of one's own: name, shape as in the file, type, offset."""
    infos = b"".join(
        struct.pack("<Q", len(name))
        + name
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", kind, offset)
        for name, shape, kind, offset in tensors
    )
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), key_count) + keys + infos + bytes(64))
    return path


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ([(b"a", (4,), 0, 0), (b"a", (4,), 0, 0)], "tensor a is there twice"),
        ([(b"a", (4,), 99, 0)], "unknown type 99"),
        ([(b"a", (40,), 8, 0)], "width 40, no multiple of 32"),
        ([(b"a", (4, 2**40), 0, 0)], "ends beyond the file"),
        ([(b"a", (1, 1, 1, 1, 1), 0, 0)], "5 dimensions"),
    ],
)
def test_a_damaged_tensor_is_named(tmp_path, tensors, what):
    with pytest.raises(DataError, match=what):
        read_gguf(made(tmp_path / "x.gguf", tensors=tensors))


def key(name, kind, value):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (key(b"a", 77, b""), "value of unknown type 77"),
        (key(b"a", 9, struct.pack("<IQ", 9, 1)), "array of unknown type 9"),
        (key(b"general.alignment", 4, struct.pack("<I", 0)), "alignment must be a number above 0: 0"),
        (key(b"a", 9, struct.pack("<IQ", 4, 2**61)), "ends too early"),
    ],
)
def test_a_damaged_key_is_named(tmp_path, keys, what):
    with pytest.raises(DataError, match=what):
        read_gguf(made(tmp_path / "x.gguf", keys=keys, key_count=1))
