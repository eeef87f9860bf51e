"""A model named by the user, loaded, with its tokenizer and the prompts that it shall answer."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from kdfast._rust import Tokenizer
from kdfast.config import load_config
from kdfast.data import DEFAULT_SHAPES, KDDataset, load_template
from kdfast.data.call_format import call_format
from kdfast.errors import ConfigError, DataError
from kdfast.evaluate.left_out import LeftOut, records_with_bad_tools, write_without
from kdfast.pretrained import DTYPES, check_sizes, load_causal_lm, resolve_device
from kdfast.recipes.first_look.of_model import check_model, model_folder
from kdfast.recipes.requests import Settings
from kdfast.runs.folder import RunFolder
from kdfast.speed import (
    Provenance,
    SpeedOptions,
    SpeedPrompt,
    describe_hardware,
    model_eos_ids,
    prompts_fingerprint,
    speed_prompts,
    truth_fingerprint,
)
from kdfast.teacher import model_fingerprint

__all__ = ["LoadedModel", "load", "model_folder"]

_LONGEST_SHAPE = 2**20  # so that no record is too long for the dataset; `_check_lengths` asks the model


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its device, in evaluation mode, with the prompts that it shall answer.

    Attributes:
        named: what the user named: a Hugging Face directory, or a run folder.
        directory: the model's Hugging Face directory.
        model: the model.
        dataset: the records, tokenised for this model.
        prompts: the prompts to answer, made from the records.
        settings: how to run the model.
        left_out: the records that were left out, as their tools are no valid JSON Schema.
    """

    named: Path
    directory: Path
    model: Any
    dataset: KDDataset
    prompts: list[SpeedPrompt]
    settings: Settings
    left_out: tuple[LeftOut, ...] = ()

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
            eos_ids=tuple({*model_eos_ids(self.model), *self.dataset.turn_end_ids[-1:]}),
            formats=self.formats,
        )

    def provenance(self) -> Provenance:
        """The machine, the time, and the hashes of model, prompts and config."""
        weight = next(self.model.parameters())
        return Provenance(
            hardware=describe_hardware(weight.device, weight.dtype),
            measured_at=time.time(),
            fingerprints=self.fingerprints,
        )

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """The hashes for a report. `config` is the run's config; for a plain model directory, its config.json."""
        folder, dataset = RunFolder(self.named), self.dataset
        if folder.holds_run:
            config = load_config(folder.config).fingerprint()
        else:
            config = hashlib.sha256((self.directory / "config.json").read_bytes()).hexdigest()
        return {
            "prompts": prompts_fingerprint(self.prompts),
            "truth": truth_fingerprint(self.prompts),
            "dataset": dataset.fingerprint,
            "model": model_fingerprint(self.directory),
            "tokenizer": dataset.tokenizer.fingerprint,
            "template": hashlib.sha256(dataset.template.source.encode()).hexdigest(),
            "config": config,
        }


def load(
    named: Path, settings: Settings, *, name: str = "model", leave_out_bad_tools: bool = False
) -> LoadedModel:
    """Loads a model and tokenises the prompts for it. Sets torch's threads.

    Args:
        named: a Hugging Face directory, or a run folder.
        settings: how to run it.
        name: how messages call the model, such as "candidate".
        leave_out_bad_tools: leave out the records whose tools are no valid JSON Schema; else such a record is an error.

    Raises:
        ConfigError: there is no model, or this machine lacks the device.
        DataError: bad records, or none; a prompt that is too long for the model.
        OSError: a file cannot be read.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    directory = check_model(named, name=name)
    dataset, left_out = _dataset(named, directory, settings, leave_out_bad_tools)
    prompts = speed_prompts(dataset, settings.limit, formats=settings.formats or dataset.formats)
    if not prompts:
        raise DataError("no records: a prompt is needed to measure on", str(settings.prompts))
    device = resolve_device(settings.device, key="--device")
    model: Any = load_causal_lm(
        directory, dtype=DTYPES[settings.dtype], error=ConfigError, name=name, families=None
    )
    check_sizes(model.config, ids=dataset.tokenizer.vocab_size, longest=0, error=ConfigError, name=name)
    model.to(device)
    loaded = LoadedModel(
        named=named,
        directory=directory,
        model=model,
        dataset=dataset,
        prompts=prompts,
        settings=settings,
        left_out=tuple(left_out),
    )
    _check_lengths(loaded)
    return loaded


def _dataset(
    named: Path, directory: Path, settings: Settings, leave_out_bad_tools: bool
) -> tuple[KDDataset, list[LeftOut]]:
    """The records, and those that were left out of them."""
    folder = RunFolder(named)
    shapes = load_config(folder.config).data.shapes if folder.holds_run else DEFAULT_SHAPES
    # The records are read in the format that the template writes; `settings.formats` is about answers.
    template = load_template(settings.template, directory, settings.template_kwargs, key="--template")
    written = call_format(template.compile())
    named_format = settings.formats[0] if len(settings.formats) == 1 else "hermes"
    opened = partial(
        KDDataset,
        tokenizer_path=directory,
        shapes=(*shapes, _LONGEST_SHAPE),
        template=settings.template,
        template_kwargs=settings.template_kwargs,
        tool_call_format=written or named_format,
        invalid_calls="keep",  # a right answer is shown and compared here, not learned
    )
    try:
        return opened(settings.prompts), []
    except DataError:
        left_out = records_with_bad_tools(settings.prompts) if leave_out_bad_tools else []
        if not left_out:
            raise
    return _dataset_without(settings.prompts, left_out, opened), left_out


def _dataset_without(path: Path, left_out: list[LeftOut], opened: Callable[..., KDDataset]) -> KDDataset:
    """The other records of the file, read from a copy in which the lines of those left out are blank."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        write_without(path, {one.line for one in left_out}, copy)
        try:
            dataset = opened(copy, cache=path.parent / ".kdfast")
        except DataError as error:
            source = str(path) if error.source == str(copy) else error.source
            raise DataError(error.message, source, error.line, error.column) from error
    # The rows are in the token store. Messages and the fingerprint are about the user's file.
    dataset.path, dataset.paths = path, (path,)
    return dataset


def _check_lengths(loaded: LoadedModel) -> None:
    limit = getattr(loaded.model.config, "max_position_embeddings", math.inf)
    most = loaded.settings.max_new_tokens
    for prompt in loaded.prompts:
        tokens = len(loaded.tokenizer.encode(prompt.text))
        if tokens + most > limit:
            raise DataError(
                f"the prompt has {tokens} tokens, with --max-new-tokens {most} more than the model reads; shorten it "
                f"or the answer: {limit}",
                str(loaded.settings.prompts),
                prompt.line,
            )
