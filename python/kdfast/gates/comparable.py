"""Whether two sides can be compared. If not, the gate is skipped, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdfast.gates.evidence import Evidence, Report


def why_times_differ(evidence: Evidence) -> str | None:
    """Why the times of the two sides cannot be compared; None if they can.

    Returns:
        A text that starts with `no_baseline`, `hardware_mismatch`, `prompts_mismatch`, `decoding_mismatch` or
            `export_mismatch`.

    Example:
        >>> from kdfast.config.gates import GatesConfig
        >>> one = {"hardware": {"key": "a"}, "metrics": {}}
        >>> other = {"hardware": {"key": "b"}, "metrics": {}}
        >>> why_times_differ(Evidence(current=[one], baseline=[other], limits=GatesConfig()))
        'hardware_mismatch: a against b'
    """
    if not evidence.baseline:
        return "no_baseline"
    if not evidence.allow_cross_hardware:
        keys = [_distinct(side, "hardware", "key") for side in (evidence.current, evidence.baseline)]
        if len({*keys[0], *keys[1]}) > 1 or None in keys[0]:
            return f"hardware_mismatch: {_shown(keys[0])} against {_shown(keys[1])}"
    reports = (*evidence.current, *evidence.baseline)
    if (
        len({bool(report.get("export")) for report in reports}) > 1
    ):  # a report that does not say is older: a proxy
        return "export_mismatch: one side is an exported model, the other a proxy"
    engines = [list(dict.fromkeys(map(_engine, side))) for side in (evidence.current, evidence.baseline)]
    if len({*engines[0], *engines[1]}) > 1:
        return f"export_mismatch: {_shown(engines[0])} against {_shown(engines[1])}"
    return why_prompts_differ(evidence)


def why_prompts_differ(evidence: Evidence) -> str | None:
    """Why results on the prompts cannot be compared; None if they can.

    A value that only one side states is a mismatch. A value that neither side states is taken to be equal.

    Returns:
        A text that starts with `no_baseline`, `prompts_mismatch` or `decoding_mismatch`.
    """
    if not evidence.baseline:
        return "no_baseline"
    sides = [_distinct(side, "fingerprints", "prompts") for side in (evidence.current, evidence.baseline)]
    if len({*sides[0], *sides[1]}) > 1:
        return f"prompts_mismatch: {_begun(sides[0])} against {_begun(sides[1])}"
    for key in ("mode", "max_new_tokens", "formats"):
        sides = [_distinct(side, "decoding", key) for side in (evidence.current, evidence.baseline)]
        if len({*sides[0], *sides[1]}) > 1:
            return f"decoding_mismatch: {key} {_shown(sides[0])} against {_shown(sides[1])}"
    return None


def why_truths_differ(evidence: Evidence) -> str | None:
    """Why the two sides were scored against different right answers; None if they were not, or no report says.

    Returns:
        A text that starts with `truth_mismatch`.
    """
    sides = [_distinct(side, "fingerprints", "truth") for side in (evidence.current, evidence.baseline)]
    if len({*sides[0], *sides[1]}) > 1:
        return f"truth_mismatch: {_begun(sides[0])} against {_begun(sides[1])}"
    return None


def why_not_alternating(evidence: Evidence) -> str | None:
    """Why the runs of the two sides do not alternate in time (`measured_at`, Unix seconds); None if they do.

    A machine that has become slower in between cannot be told from a slower model then, by any number of runs.

    Example:
        >>> from kdfast.config.gates import GatesConfig
        >>> early, late = ([{"measured_at": when}] for when in (1.0, 2.0))
        >>> why_not_alternating(Evidence(current=late, baseline=early, limits=GatesConfig()))
        'one side was measured after the other: the machine may have changed between them'
    """
    said = [[report.get("measured_at") for report in side] for side in (evidence.current, evidence.baseline)]
    current, baseline = ([float(when) for when in side if isinstance(when, int | float)] for side in said)
    if (len(current), len(baseline)) != (len(evidence.current), len(evidence.baseline)):
        return "not every report says when it was measured (measured_at): the machine may have changed between them"
    if max(current) < min(baseline) or max(baseline) < min(current):
        return "one side was measured after the other: the machine may have changed between them"
    return None


def _engine(report: Report) -> str:
    """What computed the answers; of a report that does not say, what it was then."""
    stated = (report.get("hardware") or {}).get("engine")
    return str(stated or ("llama.cpp" if report.get("export") else "torch"))


def _distinct(reports: Sequence[Report], section: str, key: str) -> list[Any]:
    """The different values of a key in these reports; lists and objects as text, None where a report lacks it."""
    values = [(report.get(section) or {}).get(key) for report in reports]
    return list(dict.fromkeys(str(one) if isinstance(one, list | dict) else one for one in values))


def _shown(values: Sequence[Any]) -> str:
    return " and ".join("unknown" if value is None else str(value) for value in values)


def _begun(hashes: Sequence[str | None]) -> str:
    """The first characters of each hash: enough to tell them apart, and they fit into a table."""
    return _shown([one and one[:12] for one in hashes])
