"""Whether the teacher stores of a config hold the rows of a dataset; the twin asks for each row by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from taught import Taught, taught

from kdfast import _rust
from kdfast.config import Config
from kdfast.errors import DataError
from kdfast.recipes.journal.stores import check_stores, why_not_compared

ROWS = 6
"""The fourth record has a truth that differs: two rows."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return taught(tmp_path_factory.mktemp("taught"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def _config(made: Taught, store: Path, **teacher: object) -> Config:
    return replace(made.config, teacher=replace(made.config.teacher, store=store, **teacher))


def _faults(made: Taught, store: Path, **teacher: object) -> list[str]:
    return list(check_stores(_config(made, store, **teacher), made.out, store).faults())


def _lines(made: Taught, store: Path, **teacher: object) -> list[tuple[str, str]]:
    return list(check_stores(_config(made, store, **teacher), made.out, store).lines())


def _twin(rows: _rust.TokenStore, file: Path) -> list[int]:
    """The lines of the rows that a store lacks, asked for one by one."""
    opened = _rust.TeacherStore.open(file)
    lacking = []
    for index, key in enumerate(rows.row_keys(opened.fingerprint)):
        try:
            opened.row(key)
        except KeyError:
            lacking.append(rows.line(index))
    return lacking


def test_a_store_that_holds_every_row(made: Taught, store: Path) -> None:
    file = made.write_store(store, range(ROWS))
    found = check_stores(_config(made, store), made.out, store)
    assert (found.rows, found.refused, list(found.faults())) == (ROWS, [], [])
    assert [(one.path, one.rows, one.lacking) for one in found.stores] == [(file, ROWS, [])]
    assert list(found.lines()) == [("store", f"6 rows, 6 of the 6 rows of {made.out} among them: {file}")]


@pytest.mark.parametrize("held", [[], [0], [1, 2, 5], [0, 1, 2, 3, 4], list(range(ROWS))])
def test_the_rows_that_a_store_lacks_are_those_of_the_twin(
    made: Taught, store: Path, held: list[int]
) -> None:
    file = made.write_store(store, held)
    (found,) = check_stores(_config(made, store), made.out, store).stores
    assert found.lacking == _twin(made.rows, file)
    assert len(found.lacking) == ROWS - len(held)


def test_missing_rows_are_named_with_number_and_lines(made: Taught, store: Path) -> None:
    file = made.write_store(store, [0, 1])
    (fault,) = _faults(made, store)
    assert fault.startswith(
        "a teacher store lacks the log-probabilities of 4 rows; run `kdfast teach CONFIG`"
    )
    assert fault.endswith(str(file))
    assert ("missing", f"log-probabilities of 4 rows of {made.out} (line 3, 4, 5)") in _lines(made, store)


def test_demonstrations_are_left_out_on_purpose(made: Taught, store: Path) -> None:
    made.write_store(store, range(4))
    assert _faults(made, store, demonstrations=2) == []
    name, text = _lines(made, store, demonstrations=2)[-1]
    assert (name, "no fault, as 2 may be left out (teacher.demonstrations)" in text) == ("not scored", True)
    assert len(_faults(made, store, demonstrations=1)) == 1
    assert "; 1 may be demonstrations" in _lines(made, store, demonstrations=1)[-1][1]


def test_rows_of_the_validation_are_no_demonstrations(made: Taught, store: Path) -> None:
    made.write_store(store, range(4))
    config = _config(made, store, demonstrations=2)
    other = made.out.with_name("other.jsonl")
    config = replace(config, data=replace(config.data, train=other, validation=made.out))
    assert len(list(check_stores(config, made.out, store).faults())) == 1


def test_a_store_of_other_settings_is_not_read_by_the_config(made: Taught, store: Path) -> None:
    made.write_store(store, range(ROWS))
    made.write_store(store, [0], fingerprint="other", k=5)
    found = check_stores(_config(made, store), made.out, store)
    assert sorted(one.other_settings for one in found.stores) == ["", "teacher.k is 4, its is 5"]
    assert list(found.faults()) == []
    assert ("not compared", "this config does not read it: teacher.k is 4, its is 5") in list(found.lines())


def test_a_config_without_a_model_reads_what_is_there(made: Taught, store: Path) -> None:
    made.write_store(store, [0], k=5)
    assert len(_faults(made, store, model=None)) == 1


def test_a_store_of_the_same_settings_that_lacks_rows_is_a_fault_beside_a_whole_one(
    made: Taught, store: Path
) -> None:
    made.write_store(store, range(ROWS))
    file = made.write_store(store, [0], fingerprint="other")
    (fault,) = _faults(made, store)
    assert f"remove the store if it is of a former teacher: {file}" in fault


def test_no_store_at_all(made: Taught, store: Path) -> None:
    assert _faults(made, store) == [
        f"no teacher store of this config is in {store}; run `kdfast teach CONFIG`"
    ]
    store.mkdir()
    assert len(_faults(made, store)) == 1


def test_a_store_that_is_named_itself(made: Taught, store: Path) -> None:
    file = made.write_store(store, range(ROWS))
    found = check_stores(_config(made, file), made.out, file)
    assert ([one.path for one in found.stores], list(found.faults())) == ([file], [])


@pytest.mark.parametrize("k", [4, 5])
def test_a_row_that_changed_is_a_fault_whatever_the_config_reads(made: Taught, store: Path, k: int) -> None:
    made.write_store(store, range(ROWS), fingerprint="whole")
    file = made.write_store(store, range(ROWS), k=k)
    content = bytearray(file.read_bytes())
    logp = np.float16(made.logp).tobytes() * 4
    place = bytes(content).index(logp)
    content[place] ^= 1
    file.write_bytes(content)
    (fault,) = _faults(made, store)
    assert fault.startswith("a teacher store is damaged; restore it, or delete it and run")
    assert ("fault", f"1 of 6 rows do not match their checksum, the first is 0: {file}") in _lines(
        made, store
    )


def test_what_is_no_store_is_a_fault_and_the_others_are_checked(made: Taught, store: Path) -> None:
    made.write_store(store, [0])
    (store / "a.teacher.arrow").write_text("no store")
    faults = _faults(made, store)
    assert len(faults) == 2
    assert faults[0].endswith(str(store / "a.teacher.arrow"))


def test_lines_that_training_does_not_read_are_a_fault(made: Taught, store: Path, tmp_path: Path) -> None:
    made.write_store(store, range(ROWS))
    out = tmp_path / "out.jsonl"
    out.write_text(
        made.out.read_text() + "{}\n" + '{"prompt": "q", "teacher_text": "%s"}\n' % ("long " * 900)
    )
    found = check_stores(_config(made, store), out, store)
    assert (found.rows, found.refused) == (ROWS, [6, 7])
    (fault,) = found.faults()
    assert fault.startswith(
        "training does not read 2 lines of it; name the config that they were written with"
    )
    assert next(iter(found.lines()))[0] == "not compared"
    assert [one.lacking for one in found.stores] == [[]]


def test_a_dataset_without_a_record_is_named(made: Taught, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("\n")
    with pytest.raises(DataError) as caught:
        check_stores(_config(made, store), out, store)
    assert caught.value.source == str(out)
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_is_left_beside_the_dataset(made: Taught, store: Path) -> None:
    made.write_store(store, [0])
    before = sorted(made.out.parent.rglob("*"))
    _faults(made, store)
    assert sorted(made.out.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("keys", "api", "why"),
    [
        ({}, None, ""),
        ({"kind": "replay"}, None, ""),
        ({"kind": "replay"}, "http://127.0.0.1:1/v1", "are in the records"),
        ({"kind": "api"}, "http://127.0.0.1:1/v1", "are in the records"),
        ({"model": None, "store": None}, None, "teacher.store is not set"),
        ({"out": Path("other.jsonl")}, None, "teacher.out is not among data.train"),
    ],
)
def test_when_a_store_is_compared(made: Taught, keys: dict[str, object], api: str | None, why: str) -> None:
    config = replace(made.config, teacher=replace(made.config.teacher, **keys))
    config = replace(config, api=replace(config.api, base_url=api))
    found = why_not_compared(config)
    assert (found == "") == (why == "")
    assert why in found


def test_the_small_dataset_is_what_the_tests_say(made: Taught) -> None:
    assert [made.rows.line(row) for row in range(len(made.rows))] == [1, 2, 3, 4, 4, 5]
