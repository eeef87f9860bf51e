"""A model with the prompts that it shall answer, and what reports say of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import nn

from kdfast._rust import Tokenizer
from kdfast.config import load_config
from kdfast.data import KDDataset
from kdfast.errors import DataError
from kdfast.evaluate.left_out import LeftOut
from kdfast.recipes.first_look.of_model import check_export_settings, check_model
from kdfast.recipes.loaded_model.records import read_records
from kdfast.recipes.loaded_model.runtime import Runtime, open_runtime
from kdfast.recipes.requests import Settings
from kdfast.runs.export_folder import ExportFolder
from kdfast.runs.folder import RunFolder
from kdfast.speed import (
    Engine,
    Provenance,
    SpeedOptions,
    SpeedPrompt,
    prompts_fingerprint,
    speed_prompts,
    truth_fingerprint,
)
from kdfast.teacher import model_fingerprint


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its device, in evaluation mode, with the prompts that it shall answer. Inside a `with` block.

    Attributes:
        named: what the user named: a Hugging Face directory, a run folder, or the folder of an export.
        runtime: the model, ready to run.
        dataset: the records, tokenised for this model.
        prompts: the prompts to answer, made from the records.
        settings: how to run the model.
        left_out: the records that were left out, as their tools are no valid JSON Schema.
    """

    named: Path
    runtime: Runtime
    dataset: KDDataset
    prompts: list[SpeedPrompt]
    settings: Settings
    left_out: tuple[LeftOut, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runtime.__exit__(kind, error, trace)

    @property
    def directory(self) -> Path:
        """The directory of the model's files."""
        return self.runtime.directory

    @property
    def model(self) -> nn.Module | None:
        """The model in PyTorch; None = an export, which only the engine runs."""
        return self.runtime.model

    @property
    def engine(self) -> Engine:
        """Generates the model's tokens."""
        return self.runtime.engine

    @property
    def export(self) -> ExportFolder | None:
        """The export that runs; None = PyTorch runs."""
        return self.runtime.export

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        return self.dataset.tokenizer

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of calls that count: those that the user named, else the one of the data."""
        return self.settings.formats or self.dataset.formats

    @property
    def options(self) -> SpeedOptions:
        """Limits, warm-up and end tokens; these are the model's own and the one with which the template ends a turn."""
        return SpeedOptions(
            max_new_tokens=self.settings.max_new_tokens,
            warmup=self.settings.warmup,
            eos_ids=tuple({*self.runtime.end_ids, *self.dataset.turn_end_ids[-1:]}),
            formats=self.formats,
        )

    def provenance(self) -> Provenance:
        """The machine, the time, and the hashes of model, prompts and config."""
        return Provenance(
            hardware=self.runtime.hardware(),
            measured_at=time.time(),
            fingerprints=self.fingerprints,
            export=self.export is not None,
        )

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """The hashes for a report. `config` is the run's config; for a plain model directory, its config.json.

        Of an export, `model` is the hash of its GGUF file, and `config` that of the run that was exported.
        """
        dataset = self.dataset
        return {
            "prompts": prompts_fingerprint(self.prompts),
            "truth": truth_fingerprint(self.prompts),
            "dataset": dataset.fingerprint,
            "model": self.runtime.model_hash or model_fingerprint(self.directory),
            "tokenizer": dataset.tokenizer.fingerprint,
            "template": hashlib.sha256(dataset.template.source.encode()).hexdigest(),
            "config": self._config_hash(),
        }

    def _config_hash(self) -> str:
        folder = RunFolder(self.named)
        if folder.holds_run:
            return load_config(folder.config).fingerprint()
        exported = self.export.fingerprint("config") if self.export is not None else None
        return exported or hashlib.sha256((self.directory / "config.json").read_bytes()).hexdigest()


def load(
    named: Path, settings: Settings, *, name: str = "model", leave_out_bad_tools: bool = False
) -> LoadedModel:
    """Loads a model and tokenises the prompts for it. Sets torch's threads if PyTorch runs it.

    Args:
        named: a Hugging Face directory, a run folder, or the folder of an export.
        settings: how to run it.
        name: how messages call the model, such as "candidate".
        leave_out_bad_tools: leave out the records whose tools are no valid JSON Schema; else such a record is an error.

    Raises:
        ConfigError: there is no model, or this machine lacks the device; see also `open_runtime`.
        DataError: bad records, or none; a prompt that is too long for the model; a damaged export.
        OSError: a file cannot be read.
    """
    directory = check_model(named, name=name)
    check_export_settings(named, settings, name=name)
    dataset, left_out = read_records(named, directory, settings, leave_out_bad_tools)
    prompts = speed_prompts(dataset, settings.limit, formats=settings.formats or dataset.formats)
    if not prompts:
        raise DataError("no records: a prompt is needed to measure on", str(settings.prompts))
    lengths = _lengths(dataset, prompts)
    context = max(lengths) + settings.max_new_tokens
    with ExitStack() as opened:
        runtime = open_runtime(named, settings, dataset.tokenizer, context=context, name=name)
        opened.enter_context(runtime)
        loaded = LoadedModel(
            named=named,
            runtime=runtime,
            dataset=dataset,
            prompts=prompts,
            settings=settings,
            left_out=tuple(left_out),
        )
        _check_lengths(loaded, lengths)
        opened.pop_all()
    return loaded


def _lengths(dataset: KDDataset, prompts: Sequence[SpeedPrompt]) -> list[int]:
    """Tokens of each prompt: as text that is measured, or as a row that is evaluated, whichever are more.

    They differ where the content of a message has the text of a special token.
    """
    rows = [int(dataset.rows[place]) for place in dataset.one_row_a_record()[: len(prompts)]]
    return [
        max(len(dataset.tokenizer.encode(prompt.text)), len(dataset.store.prompt_ids(row)))
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def _check_lengths(loaded: LoadedModel, lengths: Sequence[int]) -> None:
    most, limit = loaded.settings.max_new_tokens, loaded.runtime.context
    for prompt, tokens in zip(loaded.prompts, lengths, strict=True):
        if tokens + most > limit:
            raise DataError(
                f"the prompt has {tokens} tokens, with --max-new-tokens {most} more than the model reads; shorten it "
                f"or the answer: {limit}",
                str(loaded.settings.prompts),
                prompt.line,
            )
