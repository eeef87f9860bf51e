"""`kdfast measure`: how fast a model answers on this machine, and after how many tokens it acts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from kdfast.display import Display
from kdfast.errors import DataError
from kdfast.evaluate.table import not_counted_text, number_text
from kdfast.files import check_file
from kdfast.recipes import loaded_model
from kdfast.recipes.first_look.of_model import export_warning
from kdfast.recipes.loaded_model import LoadedModel, model_folder
from kdfast.recipes.requests import MeasureRequest
from kdfast.scoring import quality
from kdfast.speed import (
    Provenance,
    SpeedSample,
    absences,
    aggregate_speed_metrics,
    by_shape,
    measure_proxy,
    speed_report,
    speed_table,
    write_speed_report,
)

_SHOWN = {"f1": "F1", "missed_call_rate": "missed calls", "false_call_rate": "false calls"}


def run(request: MeasureRequest) -> int:
    """Measures and writes the report.

    Returns:
        0.

    Raises:
        ConfigError: there is no model, or this machine lacks the device.
        DataError: bad records, or none; a prompt that is too long for the model; logits that are NaN; a damaged export.
        OSError: a file cannot be read or written.
    """
    model_folder(request.model)
    check_file(request.out)
    with loaded_model.load(request.model, request) as loaded:
        _run(request, loaded)
    return 0


def _run(request: MeasureRequest, loaded: LoadedModel) -> None:
    display = Display()
    warning = export_warning(request.model)
    if warning:
        _line(display.console, "warning", warning)
    samples = _measure(display, loaded)
    provenance = loaded.provenance()
    scores = [sample.score(loaded.formats) for sample in samples]
    report = speed_report(samples, loaded.options, provenance, quality=quality(scores))
    write_speed_report(request.out, report)
    _show(display.console, samples, provenance, report["quality"])
    _line(display.console, "report", str(request.out))
    not_counted = not_counted_text(sum(score.calls_not_counted > 0 for score in scores))
    if not_counted:
        _line(display.console, "not counted", not_counted)


def _measure(display: Display, loaded: LoadedModel) -> list[SpeedSample]:
    with display.working("measure", len(loaded.prompts)) as on_progress:
        try:
            return measure_proxy(
                loaded.engine if loaded.model is None else loaded.model,
                loaded.prompts,
                loaded.tokenizer,
                loaded.options,
                on_progress=lambda done, sample: on_progress(done, f"{sample.tps or 0.0:.1f} tokens/s"),
            )
        except FloatingPointError as error:
            raise DataError(f"cannot be measured: {error}", str(loaded.named)) from error


def _show(
    console: Console, samples: list[SpeedSample], provenance: Provenance, qualities: Mapping[str, Any]
) -> None:
    speed = aggregate_speed_metrics(samples)
    console.print(speed_table(speed, by_shape(samples)))
    for line in absences(speed):
        console.print(line, highlight=False, soft_wrap=True)
    known = [f"{label} {number_text(qualities[name])}" for name, label in _SHOWN.items() if name in qualities]
    if known:
        _line(console, "quality", ", ".join(known))
    hardware = provenance.hardware
    _line(console, "hardware", hardware.key)
    if hardware.load_average is not None and hardware.load_average[0] > hardware.cores:
        load = f"{hardware.load_average[0]:.1f}: other work runs here, times are longer than they would be"
        _line(console, "load", load)


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"  {name:<12} {text}", highlight=False, soft_wrap=True, markup=False)
