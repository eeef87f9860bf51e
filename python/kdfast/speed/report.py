"""The report of a measurement: a JSON document whose metric objects look like AIPerf's."""

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
    """How, when and on what the numbers were measured.

    Attributes:
        hardware: the machine.
        measured_at: the time of the measurement, in Unix seconds.
        fingerprints: hashes of `prompts` and `truth` (what answers are scored against), and of those that are known of
            `dataset` (the file of the prompts), `model`, `tokenizer`, `template` and `config`.
        step: the training step; None = a finished model.
        export: whether the exported model ran; False = its PyTorch proxy ran.
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
    """Makes the report document.

    Args:
        samples: the result of `measure_proxy`.
        options: the options that it ran with.
        provenance: how, when and on what it ran.
        quality: the section `quality`, see `kdfast.scoring.quality`; its `absent` is merged into the report's. None =
            not measured.
        failure: why nothing could be measured; then every metric is absent for this reason. None = no failure.

    Returns:
        JSON values only. An infinite number is None, and its metric counts the infinite samples (`infinite`) and those
        of them whose answer was cut at the token limit (`cut`, only of first actions).
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
    """Writes a report: the whole file, or nothing. Missing folders are created.

    Raises:
        ValueError: a number in the report is NaN or infinite.
        OSError: the file cannot be written.
    """
    write_document(path, report)


def read_speed_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file of `write_speed_report`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
        DataError: the file is damaged, or not a speed report of this version; the message names file and remedy.
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
