"""The gates' results as JUnit XML, which CI systems read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

_SUITE = "kdfast.gates"
# Characters that XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(results: Sequence[Mapping[str, Any]]) -> str:
    """One test suite with one test case per gate.

    Args:
        results: the gates' results, as `GateResult.to_json` gives them.

    Returns:
        The document; encode it as UTF-8. Characters that XML forbids become U+FFFD.

    Example:
        >>> text = junit_xml([{"name": "f1", "status": "failed", "reason": "0.70 < 0.80", "value": 0.7}])
        >>> '<failure message="0.70 &lt; 0.80" type="failed"' in text
        True
    """
    skipped = sum(result["status"] not in ("passed", "failed") for result in results)
    failed = sum(result["status"] == "failed" for result in results)
    counts = {
        "tests": str(len(results)),
        "failures": str(failed),
        "errors": "0",
        "skipped": str(skipped),
        "time": "0",
    }
    root = ET.Element("testsuites", {"name": _SUITE, **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _SUITE, **counts})
    for result in results:
        case = ET.SubElement(
            suite, "testcase", {"classname": _SUITE, "name": _clean(result["name"]), "time": "0"}
        )
        status, reason = result["status"], _clean(result["reason"])
        if status == "failed":
            ET.SubElement(case, "failure", {"message": reason, "type": status}).text = reason
        elif status != "passed":
            ET.SubElement(case, "skipped", {"message": f"{status}: {reason}"})
        ET.SubElement(case, "system-out").text = _numbers(result)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _numbers(result: Mapping[str, Any]) -> str:
    infinite = result.get("infinite", ())
    shown = {name: "inf" if name in infinite else result.get(name) for name in ("value", "limit", "baseline")}
    said = ", ".join(f"{name} {number}" for name, number in shown.items() if number is not None)
    return _clean(f"{result['reason']}\n{said} {result.get('unit', '')}".strip())


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
