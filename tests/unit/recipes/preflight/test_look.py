"""One look: findings as they are, errors as failures with their remedy, what is missing as a skip."""

from __future__ import annotations

import errno
import os

import pytest

from kdfast.errors import ConfigError, DataError, KdfastError
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.look import failures, look_once
from kdfast.recipes.preflight.made.objects import Objects


def check(look, owns=()):
    return Check(name="data.example", proves="It is so.", look=look, owns=owns)


def test_findings_are_given_as_they_are() -> None:
    both = [passed("one"), warned("two", "do this")]
    assert look_once(check(lambda: both), Objects({}, {})) == both
    assert look_once(check(lambda: skipped("nothing")), Objects({}, {})) == [skipped("nothing")]


def test_an_error_of_the_check_is_a_failure() -> None:
    def look() -> Finding:
        raise ConfigError("data.shapes: must be ascending; sort them, got [2, 1]")

    assert look_once(check(look), Objects({}, {})) == [
        failed("data.shapes: must be ascending", "sort them, got [2, 1]")
    ]


def test_what_cannot_be_made_fails_its_owner_and_skips_the_others() -> None:
    def rows() -> list[int]:
        raise DataError("no record can be used", "train.jsonl")

    makers = {"rows": rows, "batches": lambda rows: rows}
    owner = look_once(check(lambda rows: passed("read"), owns=("rows",)), Objects(makers, {}))
    other = look_once(check(lambda batches: passed("read")), Objects(makers, {}))
    assert [one.status for one in owner + other] == ["fail", "skip"]
    assert "no record can be used" in owner[0].text
    assert "train.jsonl" in owner[0].text


@pytest.mark.parametrize(
    ("error", "text", "remedy"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a"),
            "no space left on device: runs/a",
            "mend this",
        ),
        (KdfastError("two\nlines; and\na remedy"), "two lines", "and a remedy"),
        (KdfastError('bad; near: "{a; b"'), 'bad; near: "{a; b"', "mend this"),
        (OSError("odd"), "odd", "mend this"),
    ],
)
def test_an_error_as_a_finding(error: KdfastError | OSError, text: str, remedy: str) -> None:
    (found,) = failures(error)
    assert (found.status, found.text) == ("fail", text)
    assert found.remedy.startswith(remedy)


def test_an_error_of_a_library_is_a_failure_with_its_traceback() -> None:
    def look() -> Finding:
        raise KeyError("nonsense")

    (found,) = look_once(check(look), Objects({}, {}))
    assert (found.status, found.text) == ("fail", "KeyError: 'nonsense'")
    assert "please report it" in found.remedy
    assert any("test_look.py" in line for line in found.shown)


def test_a_stop_by_the_user_is_no_finding() -> None:
    def look() -> Finding:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_once(check(look), Objects({}, {}))


def test_each_mistake_of_an_error_is_a_finding_of_its_own() -> None:
    error = ConfigError(
        "kd.kl_weight: needs a teacher; set it to 0\nkd.ce_teacher_weight: needs answers; ask for some"
    )
    assert [(one.text, one.remedy) for one in failures(error)] == [
        ("kd.kl_weight: needs a teacher", "set it to 0"),
        ("kd.ce_teacher_weight: needs answers", "ask for some"),
    ]
