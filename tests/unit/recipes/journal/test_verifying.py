"""What `kdfast journal verify` says of a journal and of what was made from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from journals import request
from taught import Taught, taught

from kdfast.errors import ConfigError, DataError
from kdfast.recipes.journal.verifying import verify
from kdfast.teacher.api.journal import Journal

Printed = Callable[[], list[str]]


def _dataset(path: Path, folder: Path, **changes: dict[str, str]) -> Path:
    """A dataset of the accepted answers; `changes` by the order of the request."""
    out = folder / "out.jsonl"
    with Journal(path, read_only=True) as journal, out.open("w") as file:
        for answer in journal.all_answers():
            if answer.verdict is not None and answer.verdict.kind == "accepted":
                made = {"request": answer.hash, "response": answer.digest} | changes.get(
                    f"at_{answer.order}", {}
                )
                file.write(json.dumps({"prompt": "a", "metadata": {"teacher": made}}) + "\n")
        file.write('{"prompt": "mine", "teacher_text": "b"}\n')
    return out


def test_a_whole_journal(path: Path, printed: Printed) -> None:
    verify(path)
    assert printed() == [f"read 7 requests, 5 responses: {path}", "verdict whole"]


def test_a_dataset_that_was_made_from_it(path: Path, folder: Path, printed: Printed) -> None:
    out = _dataset(path, folder)
    verify(path, [out])
    assert printed()[1:] == [
        f"compared 2 records: {out}",
        "others 1 record without metadata.teacher.request: not compared",
        "verdict whole, and the records were made from its answers",
    ]


def test_accepted_answers_in_no_dataset_are_no_fault(path: Path, folder: Path, printed: Printed) -> None:
    empty = folder / "empty.jsonl"
    empty.write_text("")
    verify(path, [empty])
    named = f"{request(0).hash[:12]}, {request(6).hash[:12]}"
    assert printed()[2:] == [
        f"not written 2 accepted answers in no dataset ({named}): no fault",
        "verdict whole",
    ]


def test_answers_that_it_does_not_hold(path: Path, folder: Path, printed: Printed) -> None:
    out = _dataset(path, folder, at_0={"request": "0" * 64}, at_6={"response": "1" * 64})
    with pytest.raises(DataError, match=r"does not hold \(1 missing, 1 differing\); name the journal"):
        verify(path, [out])
    lines = printed()
    assert f"missing {out}:1: the answer to 000000000000" in lines
    assert f"differing {out}:2: the answer to {request(6).hash[:12]}" in lines
    assert not any(line.startswith("verdict") for line in lines)


def test_many_missing_answers_are_counted(path: Path, folder: Path, printed: Printed) -> None:
    out = folder / "out.jsonl"
    made = [{"request": f"{number:064x}", "response": "0" * 64} for number in range(15)]
    out.write_text("".join(json.dumps({"metadata": {"teacher": one}}) + "\n" for one in made))
    with pytest.raises(DataError, match="15 missing"):
        verify(path, [out])
    assert "missing and 5 more" in printed()


def test_a_response_that_changed_is_a_fault(path: Path, printed: Printed) -> None:
    changed = sqlite3.connect(path)
    for trigger in ("response_kept",):
        sql = changed.execute("SELECT sql FROM sqlite_master WHERE name = ?", [trigger]).fetchone()[0]
        changed.execute(f"DROP TRIGGER {trigger}")
        changed.execute("UPDATE attempt SET digest = ? WHERE status = 200", ["0" * 64])
        changed.execute(sql)
    changed.commit()
    changed.close()
    with pytest.raises(DataError, match=r"damaged \(4 faults\); put a copy in its place"):
        verify(path)
    assert sum(line.startswith("fault ") for line in printed()) == 4


# A config


def _job(path: Path, folder: Path, **teacher: object) -> Taught:
    """A job whose records were made from the journal's answers."""
    made = taught(folder, **teacher)
    records = [json.loads(line) for line in made.out.read_text().splitlines()]
    with Journal(path, read_only=True) as journal:
        first = next(iter(journal.all_answers()))
    for record in records:
        origin = {"request": first.hash, "response": first.digest}
        record["metadata"] = record.get("metadata", {}) | {"teacher": origin}
    made.out.write_text("".join(json.dumps(record) + "\n" for record in records))
    return made


def test_a_config_whose_store_holds_every_row(path: Path, folder: Path, printed: Printed) -> None:
    made = _job(path, folder)
    file = made.write_store(folder / "store", range(6))
    verify(path, config=made.config)
    lines = printed()
    assert f"compared 5 records: {made.out}" in lines
    assert lines[-2:] == [
        f"store 6 rows, 6 of the 6 rows of {made.out} among them: {file}",
        "verdict whole, and the records were made from its answers, and their log-probabilities are in the store",
    ]


def test_a_config_whose_store_lacks_rows(path: Path, folder: Path, printed: Printed) -> None:
    made = _job(path, folder)
    made.write_store(folder / "store", [0, 1, 2])
    with pytest.raises(DataError, match="a teacher store lacks the log-probabilities of 3 rows") as caught:
        verify(path, config=made.config)
    assert caught.value.source == str(made.out)
    lines = printed()
    assert f"missing log-probabilities of 3 rows of {made.out} (line 4, 5)" in lines
    assert not any(line.startswith("verdict") for line in lines)


def test_demonstrations_are_in_the_verdict(path: Path, folder: Path, printed: Printed) -> None:
    made = _job(path, folder, demonstrations=2)
    made.write_store(folder / "store", range(4))
    verify(path, config=made.config)
    assert printed()[-1].endswith("their log-probabilities are in the store, but for demonstrations")


def test_faults_of_the_journal_and_of_the_store_are_said_together(path: Path, folder: Path) -> None:
    made = _job(path, folder)
    text = made.out.read_text()
    made.out.write_text(text.replace('"response": "', '"response": "' + "0" * 64 + '", "was": "'))
    with pytest.raises(DataError, match=r"does not hold \(\d differing\).*; no teacher store") as caught:
        verify(path, config=made.config)
    assert caught.value.source == str(path)


def test_a_config_of_a_server_counts_the_records_with_log_probabilities(
    path: Path, folder: Path, printed: Printed
) -> None:
    made = _job(path, folder)
    (first, *others) = made.out.read_text().splitlines()
    topk = {"ids": [[5]], "logprobs": [[-0.5]]}
    first = json.dumps(json.loads(first) | {"teacher_topk": topk})
    made.out.write_text("\n".join([first, *others]) + "\n")
    teacher = replace(made.config.teacher, kind="api")
    verify(path, config=replace(made.config, teacher=teacher))
    assert printed()[-3:] == [
        "teacher_topk 1 of 5 records carry log-probabilities; training makes a store of them",
        "store not compared: the log-probabilities of a server's answers are in the records",
        "verdict whole, and the records were made from its answers",
    ]


def test_teacher_out_is_compared_once(path: Path, folder: Path, printed: Printed) -> None:
    made = _job(path, folder)
    made.write_store(folder / "store", range(6))
    verify(path, [made.out], made.config)
    assert f"compared 5 records: {made.out}" in printed()


def test_a_config_without_teacher_out(path: Path, folder: Path) -> None:
    made = taught(folder, out=None, prompts=None)
    with pytest.raises(ConfigError, match=r"^teacher\.out: needed by --config"):
        verify(path, config=made.config)


def test_a_config_whose_dataset_is_not_there(path: Path, folder: Path) -> None:
    made = taught(folder)
    made.out.unlink()
    with pytest.raises(ConfigError, match=r"^teacher\.out: no such file"):
        verify(path, config=made.config)
