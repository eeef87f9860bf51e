"""The result of a preflight as JUnit XML: it parses, and says what the rows say."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from kdfast.recipes.preflight.shown.junit import junit_xml
from kdfast.recipes.preflight.shown.result import Result, Row

EVIL = "]]> <b>&\x00\x1b[31m\ud800\uffff\x0b\" 'ü🦀"

ROWS = (
    Row(
        name="data.leak", proves="No leak.", status="pass", text="none", seconds=0.25, shown=("line 1", EVIL)
    ),
    Row(name="data.few", proves="Enough.", status="warn", text="2 of 96", remedy="add some", seconds=0.5),
    Row(name="data.few", proves="Enough.", status="skip", text=EVIL),
    Row(name="qat.starts", proves="It starts.", status="fail", text=EVIL, remedy="set <quant>", seconds=2.0),
)


def suites(*rows: Row, **more: Any) -> ET.Element:
    facts = {"seconds": 41.25, "config_fingerprint": "ab", "started_at": 0.0, "kdfast_version": "0.1"}
    return ET.fromstring(junit_xml(Result(rows=rows, **facts | more)))  # noqa: S314 - our own


def test_a_suite_a_group_and_a_case_a_row() -> None:
    root = suites(*ROWS)
    assert root.attrib == {
        "name": "kdfast.preflight",
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
        "time": "41.250",
    }
    assert [(suite.get("name"), suite.get("tests"), suite.get("time")) for suite in root] == [
        ("kdfast.preflight.data", "3", "0.750"),
        ("kdfast.preflight.qat", "1", "2.000"),
    ]
    assert [
        (case.get("classname"), case.get("name"), case.get("time")) for case in root.iter("testcase")
    ] == [
        ("kdfast.preflight.data", "leak", "0.250"),
        ("kdfast.preflight.data", "few", "0.500"),
        ("kdfast.preflight.data", "few (2)", "0.000"),
        ("kdfast.preflight.qat", "starts", "2.000"),
    ]


def test_what_each_status_becomes() -> None:
    leak, few, skipped, starts = suites(*ROWS).iter("testcase")
    plain = ROWS[3].text
    assert [child.tag for child in leak] == ["system-out"]
    assert leak.findtext("system-out") == f"line 1\n{plain}"
    assert [child.tag for child in few] == ["system-out"]
    assert few.findtext("system-out") == "warning: 2 of 96\nadd some"
    assert [(child.tag, child.get("message")) for child in skipped] == [("skipped", plain)]
    (failure,) = starts
    assert (failure.tag, failure.get("message")) == ("failure", plain)
    assert failure.text == f"It starts.\n{plain}\nset <quant>"


def test_strict_counts_a_warning_as_a_failure() -> None:
    root = suites(*ROWS, strict=True)
    assert root.get("failures") == "2"
    assert list(root.iter("testcase"))[1].find("failure") is not None


def test_a_preflight_without_rows_still_parses() -> None:
    root = suites()
    assert (root.get("tests"), len(root)) == ("0", 0)
