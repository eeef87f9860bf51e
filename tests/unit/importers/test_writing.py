"""All files of an import, or none."""

import pytest

from kdfast.errors import DataError
from kdfast.importers.writing import check_directory, to_line, write_files


def test_files_are_written_with_one_line_each(tmp_path):
    paths = write_files(tmp_path / "a" / "b", {"x.jsonl": iter(["{}", "[1]"]), "y.json": ["[]"]})
    assert paths["x.jsonl"].read_bytes() == b"{}\n[1]\n"
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["x.jsonl", "y.json"]


def test_an_error_leaves_the_old_files_and_nothing_else(tmp_path):
    (tmp_path / "x.jsonl").write_text("old\n")

    def lines():
        yield "new"
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        write_files(tmp_path, {"x.jsonl": ["new"], "y.jsonl": lines()})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.jsonl", "old\n")]


def test_a_file_in_the_directorys_place_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    for refuse in (lambda: check_directory(tmp_path / "out"), lambda: write_files(tmp_path / "out", {})):
        with pytest.raises(DataError, match="a file is there"):
            refuse()


def test_what_json_does_not_know_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        to_line(float("nan"))
