"""The report of a measurement: a JSON document whose metric objects look like AIPerf's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.files import write_text_whole
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
        JSON values only. An infinite number is None, and its metric counts the infinite samples.
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
    text = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    write_text_whole(Path(path), text + "\n")


def read_speed_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file of `write_speed_report`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
        DataError: the file is damaged, or not a speed report of this version; the message names file and remedy.
    """
    target = Path(path)
    try:
        document = json.loads(target.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested without end
        raise DataError(f"not a readable speed report ({error}); {_REMEDY}", str(target)) from None
    problem = _problem(document)
    if problem:
        raise DataError(f"not a speed report: {problem}; {_REMEDY}", str(target))
    report: dict[str, Any] = document
    return report


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _problem(document: object) -> str | None:
    if not isinstance(document, dict):
        return f"must be an object, got {type(document).__name__}"
    if document.get("kind") != REPORT_KIND:
        return f"kind must be {REPORT_KIND!r}, got {document.get('kind')!r}"
    version = document.get("schema_version")
    if not isinstance(version, str) or version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        return f"schema_version must be {SCHEMA_VERSION!r}, got {version!r}"
    wrong = [name for name in _SECTIONS if not isinstance(document.get(name), dict)]
    return f"{wrong[0]!r} must be an object, got {document.get(wrong[0])!r}" if wrong else None
