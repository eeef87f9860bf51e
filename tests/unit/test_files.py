import errno
import resource
from pathlib import Path

import pytest
from safetensors import SafetensorError

from kdfast.files import _take_place, remove_leftovers, write_text_whole, written_whole


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
    for name in (".step_1.tmp-77", ".step_2.old-78", "step_3", ".other.tmp-1"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path, "step_*")
    remove_leftovers(Path(tmp_path / "none"), "step_*")
    assert names(tmp_path) == [".other.tmp-1", "step_3"]


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
