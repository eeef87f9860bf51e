"""The shares of an evaluation file, with their intervals if the file has any."""

from __future__ import annotations

from kdfast.page.charts import Estimate
from kdfast.runs.node import Node

_FROM_QUALITY = ("f1", "precision", "recall")


def estimates(evaluation: Node | None) -> dict[str, Estimate]:
    """The shares of an evaluation file by name; a share of no prompts is left out.

    Raises:
        DataError: the file is not as `kdfast train` writes it; the message names file and key.

    Examples:
        >>> table = {"parsed": {"count": 3, "total": 4, "fraction": 0.75}, "false_calls": {"count": 0, "total": 0}}
        >>> found = estimates(Node({"table": table}, "evaluation_after.json", "make it again"))
        >>> {name: str(estimate) for name, estimate in found.items()}
        {'parsed': '75 % (3 of 4)'}
    """
    if evaluation is None:
        return {}
    found = {}
    for name, node in evaluation["table"].items():
        count, whole = node["count"].count(), node["total"].count()
        if count > whole:
            raise node["count"].wrong(f"at most the total ({whole})")
        if whole:
            low, high = _ends(node)
            found[name] = Estimate(value=count / whole, low=low, high=high, count=count, total=whole)
    quality = evaluation.find("quality")
    for name in _FROM_QUALITY:
        node_or_none = quality.find(name) if quality is not None else None
        if node_or_none is not None:
            low, high = _ends(node_or_none)
            found[name] = Estimate(value=_fraction(node_or_none["value"]), low=low, high=high)
    return found


def reason(evaluation: Node, name: str) -> str:
    """Why `estimates` has no share of this name.

    Examples:
        >>> absent = {"precision": "no call was made"}
        >>> reason(Node({"table": {}, "quality": {"absent": absent}}, "evaluation.json", "again"), "precision")
        'no call was made'
    """
    found = evaluation["table"].find(name)
    if found is not None:
        return "no such prompt"
    quality = evaluation.find("quality")
    absent = quality.find("absent") if quality is not None else None
    told = absent.find(name) if absent is not None else None
    return told.text() if told is not None else "not in the file"


def _ends(node: Node) -> tuple[float | None, float | None]:
    low, high = node.find("low"), node.find("high")
    return (None, None) if low is None or high is None else (_fraction(low), _fraction(high))


def _fraction(node: Node) -> float:
    value = node.number()
    if not 0 <= value <= 1:
        raise node.wrong("a number in [0, 1]")
    return value
