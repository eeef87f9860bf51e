"""`kdfast measure`: how fast a model answers on this machine, and after how many tokens it acts."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kdfast.config import load_config
from kdfast.data import DEFAULT_SHAPES, KDDataset
from kdfast.display import Display
from kdfast.errors import ConfigError, DataError
from kdfast.pretrained import load_causal_lm, resolve_device
from kdfast.speed import (
    Provenance,
    SpeedOptions,
    SpeedPrompt,
    SpeedSample,
    absences,
    aggregate_speed_metrics,
    by_shape,
    describe_hardware,
    measure_proxy,
    model_eos_ids,
    prompts_fingerprint,
    speed_prompts,
    speed_report,
    speed_table,
    write_speed_report,
)
from kdfast.teacher import model_fingerprint

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LONGEST_SHAPE = 2**20  # a record is measured however long it is, as far as the model reads


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to measure.

    Attributes:
        model: a Hugging Face directory, or a run folder.
        prompts: records, JSONL.
        out: the report to write.
        template: "tokenizer" (the model's own), "hermes" or the path of a .jinja file.
        max_new_tokens: an answer is cut after so many tokens.
        limit: only the first so many prompts; 0 = all.
        warmup: generations before the first measured one.
        threads: torch's CPU threads; 0 = torch's default.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: of the weights: "fp32", "bf16" or "fp16".
    """

    model: Path
    prompts: Path
    out: Path
    template: str = "tokenizer"
    max_new_tokens: int = 128
    limit: int = 0
    warmup: int = 1
    threads: int = 0
    device: str = "auto"
    dtype: str = "fp32"


def run(request: Request) -> int:
    """Measures and writes the report.

    Returns:
        0.

    Raises:
        ConfigError: there is no model, or the device is not there.
        DataError: bad records, or none; a prompt that is too long for the model; logits that are NaN.
        OSError: a file cannot be read or written.
    """
    if request.threads:
        torch.set_num_threads(request.threads)
    directory = model_folder(request.model)
    _check_out(request.out)
    dataset = _dataset(request, directory)
    prompts = speed_prompts(dataset, request.limit)
    if not prompts:
        raise DataError("no records: a prompt is needed to measure on", str(request.prompts))
    device = resolve_device(request.device)
    dtype = DTYPES[request.dtype]
    model: Any = load_causal_lm(directory, dtype=dtype, error=ConfigError, name="model", families=None)
    model.to(device)
    _check_lengths(request, model, dataset, prompts)
    options = SpeedOptions(
        max_new_tokens=request.max_new_tokens,
        warmup=request.warmup,
        eos_ids=tuple({*model_eos_ids(model), *dataset.turn_end_ids[-1:]}),
    )
    display = Display()
    samples = _measure(request, display, model, dataset, prompts, options)
    provenance = Provenance(
        hardware=describe_hardware(device, dtype),
        measured_at=time.time(),
        fingerprints=fingerprints(request.model, directory, dataset, prompts),
    )
    write_speed_report(request.out, speed_report(samples, options, provenance))
    _show(display.console, samples, provenance, request.out)
    return 0


def model_folder(path: Path) -> Path:
    """The Hugging Face directory of a model: itself, or a run folder's finished student.

    Raises:
        ConfigError: a run that has no student yet.
    """
    if (path / "student").is_dir() and not (path / "config.json").exists():
        return path / "student"
    if (path / "config.yaml").exists() and not (path / "config.json").exists():
        raise ConfigError(
            "model: this run has no student yet; finish it (`kdfast train CONFIG --resume`) or name a checkpoint "
            f"of it: {path}"
        )
    return path


def fingerprints(
    named: Path, directory: Path, dataset: KDDataset, prompts: list[SpeedPrompt]
) -> dict[str, str]:
    """The hashes of a report.

    Args:
        named: what the user named: of a run folder the config is hashed, of a model its config.json.
        directory: the Hugging Face directory.
        dataset: the records.
        prompts: those of them that were measured on.
    """
    run_config = named / "config.yaml"
    if run_config.exists():
        config = load_config(run_config).fingerprint()
    else:
        config = hashlib.sha256((directory / "config.json").read_bytes()).hexdigest()
    return {
        "prompts": prompts_fingerprint(prompts),
        "model": model_fingerprint(directory),
        "tokenizer": dataset.tokenizer.fingerprint,
        "template": hashlib.sha256(dataset.template.source.encode()).hexdigest(),
        "config": config,
    }


def _check_out(out: Path) -> None:
    """Said before the measurement, not after it."""
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    out.parent.mkdir(parents=True, exist_ok=True)


def _dataset(request: Request, directory: Path) -> KDDataset:
    if not directory.is_dir():
        raise ConfigError(
            f"model: no such directory; give a Hugging Face model directory or a run folder: {directory}"
        )
    run_config = request.model / "config.yaml"
    shapes = load_config(run_config).data.shapes if run_config.exists() else DEFAULT_SHAPES
    return KDDataset(request.prompts, directory, shapes=(*shapes, _LONGEST_SHAPE), template=request.template)


def _check_lengths(request: Request, model: Any, dataset: KDDataset, prompts: list[SpeedPrompt]) -> None:
    limit = getattr(model.config, "max_position_embeddings", math.inf)
    for prompt in prompts:
        tokens = len(dataset.tokenizer.encode(prompt.text))
        if tokens + request.max_new_tokens > limit:
            raise DataError(
                f"the prompt has {tokens} tokens, with --max-new-tokens {request.max_new_tokens} more than the model "
                f"reads; shorten it or the answer: {limit}",
                str(request.prompts),
                prompt.line,
            )


def _measure(
    request: Request,
    display: Display,
    model: Any,
    dataset: KDDataset,
    prompts: list[SpeedPrompt],
    options: SpeedOptions,
) -> list[SpeedSample]:
    with display.working("measure", len(prompts)) as on_progress:
        try:
            return measure_proxy(
                model,
                prompts,
                dataset.tokenizer,
                options,
                on_progress=lambda done, sample: on_progress(done, f"{sample.tps or 0.0:.1f} tokens/s"),
            )
        except FloatingPointError as error:
            raise DataError(f"cannot be measured: {error}", str(request.model)) from error


def _show(console: Console, samples: list[SpeedSample], provenance: Provenance, out: Path) -> None:
    speed = aggregate_speed_metrics(samples)
    console.print(speed_table(speed, by_shape(samples)))
    for line in absences(speed):
        console.print(line, highlight=False, soft_wrap=True)
    hardware = provenance.hardware
    console.print(f"  {'hardware':<12} {hardware.key}", highlight=False, soft_wrap=True, markup=False)
    if hardware.load_average is not None and hardware.load_average[0] > hardware.cores:
        console.print(
            f"  {'load':<12} {hardware.load_average[0]:.1f}: other work runs here, times are longer than they would be",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"  {'report':<12} {out}", highlight=False, soft_wrap=True, markup=False)
