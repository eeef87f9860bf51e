"""Measures the student's speed inside validations. A failure to measure is shown and never stops the run."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from torch import nn

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.runs.metrics import MetricsLog
from kdfast.scoring import quality
from kdfast.speed import (
    Provenance,
    SpeedMetrics,
    SpeedOptions,
    SpeedPrompt,
    SpeedSample,
    aggregate_speed_metrics,
    by_shape,
    describe_hardware,
    headline,
    measure_proxy,
    prompts_fingerprint,
    speed_prompts,
    speed_report,
    truth_fingerprint,
    write_speed_report,
)

FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""Errors that a model or a prompt may raise: no memory on the device, NaN logits, too many positions, a schema that
does not compile. OSError is not among them: a full disk must stop the run."""
_SHOWN = ("ttft_ms", "tps", "ttfa_tokens")


@dataclass
class SpeedProbe:
    """Measures the student on the same few held-out prompts each time.

    Attributes:
        config: the run's config.
        student: the bare model, in training or evaluation mode.
        data: the held-out records.
        file: where the newest report is written.
        clock: gives the time in seconds.
    """

    config: Config
    student: nn.Module
    data: KDDataset
    file: Path
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        settings, most = self.config.speed, self.config.speed.max_new_tokens
        self.prompts: list[SpeedPrompt] = []
        self._no_prompts: str | None = None
        try:
            self.prompts = speed_prompts(self.data, settings.prompts, spread=True, formats=self.data.formats)
        except FAILURES as error:
            self._no_prompts = in_words(error)
        self.options = SpeedOptions(
            max_new_tokens=self.config.train.eval_max_new_tokens if most is None else most,
            warmup=settings.warmup,
            eos_ids=tuple(self.data.turn_end_ids[-1:]),  # a saved student's end of sequence
            formats=self.data.formats,
        )

    def run_when_due(self, step: int, log: MetricsLog, display: Display) -> None:
        """Measures if this validation shall; writes a line of kind `speed` to the metrics, and the report.

        The line has `ttft_ms.p50`, ... over all prompts, `shape_512.ttft_ms.p50`, ... over the prompts of one shape,
        `ttfa_tokens.cut` (how many of `ttfa_tokens.infinite` were cut at the token limit), `export: false`, and under
        `absent` the reason for each metric that is missing. A failure is written as such a reason.

        Raises:
            OSError: the files cannot be written.
        """
        train, settings = self.config.train, self.config.speed
        every = train.validate_every_steps
        if not settings.due(step=step, num_steps=train.num_steps, validate_every_steps=every):
            return
        samples: list[SpeedSample] = []
        qualities: dict[str, Any] | None = None
        failure = self._no_prompts
        if failure is None:
            with display.validating(len(self.prompts), "speed") as on_progress:
                samples, qualities, failure = self._measure(
                    self.prompts, self.options, lambda _: on_progress(1)
                )
        speed = aggregate_speed_metrics(samples) if failure is None else SpeedMetrics.failed(failure)
        values = headline(speed)
        for shape, part in by_shape(samples).items():
            values |= {f"shape_{shape}.{name}": value for name, value in headline(part).items()}
        log.write("speed", step, values, tags={"export": False, "absent": dict(speed.absent)})
        provenance = self._provenance(self.prompts, step)
        report = speed_report(samples, self.options, provenance, quality=qualities, failure=failure)
        write_speed_report(self.file, report)
        text = (
            _summary(speed, self.options.max_new_tokens)
            if failure is None
            else f"[bold red]not measured[/bold red]: {escape(failure)}"
        )
        display.console.print(f"[bold]speed at step {step}[/bold]  {text}", highlight=False, soft_wrap=True)

    def report_on(
        self,
        prompts: Sequence[SpeedPrompt],
        max_new_tokens: int,
        step: int,
        on_progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """The speed report on given prompts, with its quality; nothing is written.

        Args:
            prompts: prompts of the held-out records.
            max_new_tokens: an answer is cut after this many tokens.
            step: the training step.
            on_progress: called with the number of prompts done.

        Returns:
            the document. If the student could not be measured, every metric is absent, with the reason.
        """
        options = replace(self.options, max_new_tokens=max_new_tokens)
        samples, qualities, failure = self._measure(prompts, options, on_progress)
        provenance = self._provenance(prompts, step)
        return speed_report(samples, options, provenance, quality=qualities, failure=failure)

    def _measure(
        self, prompts: Sequence[SpeedPrompt], options: SpeedOptions, on_progress: Callable[[int], None]
    ) -> tuple[list[SpeedSample], dict[str, Any] | None, str | None]:
        """The samples and their quality; or the reason why there are none."""
        try:
            samples = measure_proxy(
                self.student,
                prompts,
                self.data.tokenizer,
                options,
                clock=self.clock,
                on_progress=lambda done, _: on_progress(done),
            )
            qualities = quality([sample.score(options.formats) for sample in samples])
        except FAILURES as error:
            return [], None, in_words(error)
        return samples, qualities, None

    def _provenance(self, prompts: Sequence[SpeedPrompt], step: int) -> Provenance:
        weight: Any = next(self.student.parameters())
        return Provenance(
            hardware=describe_hardware(weight.device, weight.dtype),
            measured_at=time.time(),
            step=step,
            fingerprints={
                "prompts": prompts_fingerprint(prompts),
                "truth": truth_fingerprint(prompts),
                "dataset": self.data.fingerprint,
                "tokenizer": self.data.tokenizer.fingerprint,
                "template": hashlib.sha256(self.data.template.source.encode()).hexdigest(),
                "config": self.config.fingerprint(),
            },
        )


def in_words(error: BaseException) -> str:
    r"""A failure in one line.

    Example:
        >>> in_words(RuntimeError("no memory\nleft"))
        'RuntimeError: no memory left'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _summary(speed: SpeedMetrics, limit: int) -> str:
    """The medians in one line. Without a first action it is "never", or "cut" if the limit stopped the answer."""
    parts = []
    for name in _SHOWN:
        if name not in speed.metrics:
            parts.append(f"{name} absent ({speed.absent[name]})")
            continue
        metric = speed[name]
        counts = {"never in": metric.never, f"cut at {limit} tokens in": metric.cut or 0}
        told = ", ".join(f"{what} {count}" for what, count in counts.items() if count)
        value = metric.percentile(50)
        word = f"{value:.1f}" if math.isfinite(value) else metric.infinite_word
        parts.append(f"{name} p50 {word}" + (f" ({told} of {metric.count})" if told else ""))
    return "  ".join(parts)
