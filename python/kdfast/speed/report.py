"""The report of a measurement: a JSON document whose metric objects are AIPerf's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdfast.errors import DataError
from kdfast.files import read_document, write_document
from kdfast.speed.aggregate import SpeedMetrics, aggregate_speed_metrics, by_shape
from kdfast.speed.hardware import Hardware
from kdfast.speed.metric import Metric
from kdfast.speed.proxy import SpeedOptions
from kdfast.speed.sample import SpeedSample

SCHEMA_VERSION = "1.0"
REPORT_KIND = "kdfast.speed_report"
_REMEDY = "measure again (`kdfast measure MODEL`)"
_SECTIONS = ("metrics", "absent", "hardware", "fingerprints")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where numbers come from.

    Attributes:
        hardware: the machine.
        measured_at: Unix seconds.
        fingerprints: hashes: `prompts`, `truth` (what answers are scored by), and what is known of `dataset` (the file
            of the prompts), `model`, `tokenizer`, `template`, `config`.
        step: of training; None = a finished model.
        export: whether the exported model ran; a PyTorch model is a proxy of it.
    """

    hardware: Hardware
    measured_at: float
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    step: int | None = None
    export: bool = False


def speed_report(
    samples: Sequence[SpeedSample],
    options: SpeedOptions,
    provenance: Provenance,
    *,
    quality: Mapping[str, Any] | None = None,
    failure: str | None = None,
) -> dict[str, Any]:
    """The report document.

    Args:
        samples: of `measure_proxy`.
        options: what they were measured with.
        provenance: where they come from.
        quality: the section of that name, see `kdfast.scoring.quality`; its `absent` joins the report's. None = not
            measured.
        failure: why nothing was measured; every metric is absent for this reason then.

    Returns:
        JSON values only; what is infinite is None beside a count of infinities.
    """
    speed = aggregate_speed_metrics(samples) if failure is None else SpeedMetrics.failed(failure)
    shortest = [
        float(sample.prompt.shortest_call_tokens)
        for sample in samples
        if sample.prompt.shortest_call_tokens is not None
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": REPORT_KIND,
        "export": provenance.export,
        "measured_at": provenance.measured_at,
        **({} if provenance.step is None else {"step": provenance.step}),
        "hardware": provenance.hardware.to_json(),
        "decoding": {
            "mode": "free",
            "sampling": "greedy",
            "batch_size": 1,
            "max_new_tokens": options.max_new_tokens,
            "warmup": options.warmup,
            "formats": list(options.formats),
            "eos_ids": sorted(options.eos_ids),
        },
        **speed.to_json(),
        "shapes": {str(shape): part.to_json(samples=False) for shape, part in by_shape(samples).items()},
        "fingerprints": dict(provenance.fingerprints),
        "prompts": [sample.to_json() for sample in samples],
    }
    if shortest:
        document["shortest_call_tokens"] = Metric("tokens", shortest).to_json()
    if quality is not None:
        document["absent"] |= quality.get("absent", {})
        return document | {"quality": {name: found for name, found in quality.items() if name != "absent"}}
    document["absent"]["quality"] = failure or "not measured with the speed"
    return document


def write_speed_report(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Writes a report whole, or not at all; folders are made.

    Raises:
        ValueError: a number in it is NaN or infinite.
        OSError: it cannot be written.
    """
    write_document(path, report)


def read_speed_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a report of `write_speed_report`.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        DataError: it is damaged, or no speed report of this version; names the file and the remedy.
    """
    report = read_document(
        path, name="speed report", remedy=_REMEDY, kinds=(REPORT_KIND,), version=SCHEMA_VERSION
    )
    for name in _SECTIONS:
        if not isinstance(report.get(name), dict):
            raise DataError(
                f"not a speed report: {name!r} must be an object, got {report.get(name)!r}; {_REMEDY}",
                str(path),
            )
    return report
