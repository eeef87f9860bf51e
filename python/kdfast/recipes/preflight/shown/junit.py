"""The result of a preflight as JUnit XML, which CI systems read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from kdfast.recipes.preflight.shown.result import Result, Row

_SUITE = "kdfast.preflight"


def junit_xml(result: Result) -> str:
    """One test suite a group, one test case a row.

    Warnings are test cases that pass: JUnit has no word for them. They and the lines to look at are in `system-out`.

    Returns:
        The document; encode it as UTF-8.

    Example:
        >>> row = Row(name="data.leak", proves="No leak.", status="fail", text="1 < 2 rows leak", remedy="remove it")
        >>> facts = {"seconds": 1.5, "config_fingerprint": "ab", "started_at": 0.0, "kdfast_version": "1.0"}
        >>> '<failure message="1 &lt; 2 rows leak" type="fail">' in junit_xml(Result(rows=(row,), **facts))
        True
    """
    root = ET.Element("testsuites", {"name": _SUITE, **_counts(result.rows, result.seconds)})
    names = _unique_names(result.rows)
    for group in dict.fromkeys(row.group for row in result.rows):
        rows = [(number, row) for number, row in enumerate(result.rows) if row.group == group]
        counts = _counts([row for _, row in rows], sum(row.seconds for _, row in rows))
        suite = ET.SubElement(root, "testsuite", {"name": f"{_SUITE}.{group}", **counts})
        for number, row in rows:
            _add_case(suite, names[number], row)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _counts(rows: Sequence[Row], seconds: float) -> Mapping[str, str]:
    found = Counter(row.status for row in rows)
    return {
        "tests": str(len(rows)),
        "failures": str(found["fail"]),
        "errors": "0",
        "skipped": str(found["skip"]),
        "time": f"{seconds:.3f}",
    }


def _unique_names(rows: Sequence[Row]) -> list[str]:
    """A check may have several rows; readers of JUnit XML take cases of one name for one case."""
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        seen[row.name] += 1
        names.append(row.own_name if seen[row.name] == 1 else f"{row.own_name} ({seen[row.name]})")
    return names


def _add_case(suite: ET.Element, name: str, row: Row) -> None:
    attributes = {"classname": f"{_SUITE}.{row.group}", "name": name, "time": f"{row.seconds:.3f}"}
    case = ET.SubElement(suite, "testcase", attributes)
    if row.status == "fail":
        failure = ET.SubElement(case, "failure", {"message": row.text, "type": "fail"})
        failure.text = "\n".join(filter(None, (row.proves, row.text, row.remedy)))
    elif row.status == "skip":
        ET.SubElement(case, "skipped", {"message": row.text})
    lines = list(row.shown)
    if row.status == "warn":
        lines = [f"warning: {row.text}", row.remedy, *lines]
    if lines:
        ET.SubElement(case, "system-out").text = "\n".join(lines)
