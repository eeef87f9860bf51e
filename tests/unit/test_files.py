import errno
import json
import math
import resource
from pathlib import Path

import pytest
from safetensors import SafetensorError

from kdfast.errors import DataError
from kdfast.files import (
    _take_place,
    parse_json,
    put_back,
    read_document,
    remove_leftovers,
    write_document,
    write_text_whole,
    written_whole,
)


def write(directory, text):
    with written_whole(directory) as beside:
        (beside / "sub").mkdir()
        (beside / "sub" / "file").write_text(text)


def names(parent):
    return sorted(path.name for path in parent.iterdir())


def test_a_directory_appears_whole_and_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        write(tmp_path / "a" / "b", text)
        assert (tmp_path / "a" / "b" / "sub" / "file").read_text() == text
    assert names(tmp_path / "a") == ["b"]


def test_nothing_is_there_before_the_end(tmp_path):
    with written_whole(tmp_path / "b") as beside:
        (beside / "file").write_text("x")
        assert not (tmp_path / "b").exists()


def fail(directory, error):
    with written_whole(directory) as beside:
        (beside / "file").write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error):
    write(tmp_path / "b", "old")
    with pytest.raises(type(error)):
        fail(tmp_path / "b", error)
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b" / "sub" / "file").read_text() == "old"


def test_a_rename_that_fails_puts_the_former_one_back(tmp_path):
    write(tmp_path / "b", "old")
    with pytest.raises(FileNotFoundError):
        _take_place(tmp_path / "taken away", tmp_path / "b", tmp_path / "former")
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b" / "sub" / "file").read_text() == "old"


def test_errors_of_safetensors_are_those_of_the_system(tmp_path):
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(OSError, match="No space left") as caught:
        fail(tmp_path / "b", full)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "b"))
    with pytest.raises(OSError, match=r"cannot write .*/b: odd"):
        fail(tmp_path / "b", SafetensorError("odd"))


def test_a_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        write(tmp_path / "file" / "b", "x")


def test_leftovers_are_removed(tmp_path):
    for name in (".step_1.tmp-77", ".step_3.old-78", "step_3", ".other.tmp-1"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path, "step_*")
    remove_leftovers(Path(tmp_path / "none"), "step_*")
    assert names(tmp_path) == [".other.tmp-1", "step_3"]


def test_a_directory_that_a_kill_took_away_gets_its_name_again(tmp_path):
    """Between its two renames a replacement has only hidden directories: the former one comes back."""
    for name in (".step_1.old-78", ".step_1.tmp-78", ".step_2.old-77", "step_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    put_back(tmp_path, "step_*")
    assert (tmp_path / "step_1" / "file").read_text() == ".step_1.old-78"
    assert (tmp_path / "step_2" / "file").read_text() == "step_2"
    put_back(tmp_path / "none", "step_*")
    (tmp_path / "step_1").rename(tmp_path / ".step_1.old-9")
    remove_leftovers(tmp_path, "step_*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1", "step_2"]


def test_a_text_file_appears_whole_and_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file"
    for text in ("one", "zwölf"):
        write_text_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert names(path.parent) == ["file"]


def test_a_text_file_that_cannot_be_written_is_as_it_was(tmp_path):
    path = tmp_path / "file"
    write_text_whole(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_text_whole(path, "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def read(path, **options):
    return read_document(path, name="evaluation", remedy="remove it", **options)


def test_a_document_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "new" / "document.json"
    document = {"kind": "a", "text": "zwölf", "n": None, "list": [1, 2.5]}
    write_document(path, document)
    assert read(path) == document
    assert path.read_text(encoding="utf-8") == json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    write_document(path, document, sort_keys=True, ensure_ascii=True)
    assert path.read_text() == json.dumps(document, indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_document_with_nan_or_infinity_is_not_written(tmp_path, number):
    path = tmp_path / "document.json"
    write_document(path, {"n": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_document(path, {"deep": [{"n": number}]})
    assert read(path) == {"n": 1}
    assert names(tmp_path) == ["document.json"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a readable evaluation (Expecting value"),
        (b'{"n": ', "not a readable evaluation ("),
        (b'{"n": NaN}', "not a readable evaluation (NaN is not JSON); remove it"),
        (b'{"n": -Infinity}', "not a readable evaluation (-Infinity is not JSON); remove it"),
        (b"\xff", "not a readable evaluation ('utf-8' codec"),
        (b"[" * 100_000, "not a readable evaluation (nested too deeply); remove it"),
        (b"[1]", "not an evaluation: must be an object, got list; remove it"),
        (b"{}", "not an evaluation: kind must be 'a' or 'b', got None; remove it"),
        (b'{"kind": "c"}', "not an evaluation: kind must be 'a' or 'b', got 'c'; remove it"),
        (b'{"kind": "a"}', "not an evaluation: schema_version must be '1.0', got None; remove it"),
        (
            b'{"kind": "a", "schema_version": "2.0"}',
            "not an evaluation: schema_version must be '1.0', got '2.0'; remove it",
        ),
    ],
)
def test_a_document_that_cannot_be_used_is_named_with_its_remedy(tmp_path, content, told):
    path = tmp_path / "document.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path, kinds=("a", "b"), version="1.0")
    assert str(caught.value).startswith(f"{path}: {told}")
    assert caught.value.source == str(path)


def test_kind_and_version_are_looked_at_only_when_asked(tmp_path):
    path = tmp_path / "document.json"
    write_document(path, {"kind": "a", "schema_version": "1.7"})
    assert read(path) == read(path, kinds=("b", "a")) == read(path, version="1.0")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.json")


def test_numbers_keep_their_digits():
    assert parse_json(b"[123456789012345678901234567890, 0.1]") == [123456789012345678901234567890, 0.1]
