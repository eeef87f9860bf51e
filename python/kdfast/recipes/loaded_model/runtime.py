"""What computes a model's tokens: PyTorch, or llama.cpp for an export."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from kdfast._rust import Tokenizer
from kdfast.errors import ConfigError
from kdfast.llama_cpp.library import omp_threads
from kdfast.model_files import written_context, written_end_ids
from kdfast.pretrained import DTYPES, check_sizes, load_causal_lm, resolve_device
from kdfast.recipes.first_look.of_model import check_export_settings, check_model, export_of
from kdfast.recipes.requests import ModelSettings
from kdfast.runs.export_folder import ExportFolder
from kdfast.speed import (
    Engine,
    Hardware,
    TransformersEngine,
    describe_hardware,
    describe_llama_cpp,
    model_eos_ids,
)
from kdfast.speed.hardware import usable_cores


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A model, ready to run. Inside a `with` block; it frees what an export takes.

    Attributes:
        directory: the directory of its files: config.json, tokenizer.json, template.
        engine: generates its tokens.
        end_ids: the token ids that end an answer, as the model's own files say.
        context: the most tokens that it reads, prompt and answer; inf = it does not say.
        hardware: describes the machine that it runs on.
        model: the model in PyTorch; None = an export runs, in llama.cpp.
        export: the export; None = PyTorch runs.
        model_hash: SHA-256 (hex) of the export's GGUF file; "" = PyTorch runs.
        free: gives back the memory that an export takes.
    """

    directory: Path
    engine: Engine
    end_ids: tuple[int, ...]
    context: float
    hardware: Callable[[], Hardware]
    model: nn.Module | None = None
    export: ExportFolder | None = None
    model_hash: str = ""
    free: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free()


def open_runtime(
    named: Path, settings: ModelSettings, tokenizer: Tokenizer, *, context: int, name: str = "model"
) -> Runtime:
    """Loads a model. Sets torch's threads if PyTorch runs it.

    Args:
        named: a Hugging Face directory, a run folder, or the folder of an export.
        settings: how to run it.
        tokenizer: the model's own.
        context: tokens of the longest prompt and its answer; llama.cpp takes the memory for them at once. If the model
            reads fewer, `Runtime.context` says so.
        name: how messages call the model, such as "candidate".

    Raises:
        ConfigError: there is no model, or this machine lacks the device; an export's settings are not those of
            llama.cpp, or llama.cpp is not installed; the tokenizer has more ids than the model.
        DataError: an export is damaged, or not as it was exported.
        OSError: a file cannot be read.
    """
    directory = check_model(named, name=name)
    check_export_settings(named, settings, name=name)
    export = export_of(named, name=name)
    if export is not None:
        return _in_llama_cpp(export, settings, tokenizer, context, name)
    return _in_torch(directory, settings, tokenizer, name)


def _in_torch(directory: Path, settings: ModelSettings, tokenizer: Tokenizer, name: str) -> Runtime:
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device, key="--device")
    model: Any = load_causal_lm(
        directory, dtype=DTYPES[settings.dtype], error=ConfigError, name=name, families=None
    )
    check_sizes(model.config, ids=tokenizer.vocab_size, longest=0, error=ConfigError, name=name)
    model.to(device)
    weight = next(model.parameters())
    return Runtime(
        directory=directory,
        engine=TransformersEngine(model),
        end_ids=model_eos_ids(model),
        context=getattr(model.config, "max_position_embeddings", math.inf),
        hardware=partial(describe_hardware, weight.device, weight.dtype),
        model=model,
    )


def _in_llama_cpp(
    export: ExportFolder, settings: ModelSettings, tokenizer: Tokenizer, context: int, name: str
) -> Runtime:
    from kdfast.llama_cpp import LlamaCppModel, version
    from kdfast.speed.llama_cpp import LlamaCppEngine

    gguf = export.gguf
    assert gguf is not None  # noqa: S101 - for the type checker
    model_hash = export.checked_hash(
        gguf
    )  # before llama.cpp reads another file than the one that was compared
    threads = settings.threads or omp_threads() or max(1, int(usable_cores()))
    most = written_context(export.path) or math.inf
    end_ids = written_end_ids(export.path)
    with ExitStack() as opened:
        model = opened.enter_context(LlamaCppModel(gguf, context=int(min(context, most)), threads=threads))
        if tokenizer.vocab_size > model.vocab_size:
            raise ConfigError(
                f"{name}: the tokenizer has {tokenizer.vocab_size} ids and {gguf.name} has rows for "
                f"{model.vocab_size}; export again (`kdfast export`): {export.path}"
            )
        made_for = model.metadata(f"{model.metadata('general.architecture')}.context_length")
        return Runtime(
            directory=export.path,
            engine=LlamaCppEngine(model),
            end_ids=end_ids,
            context=min(most, float(made_for or math.inf)),
            hardware=partial(describe_llama_cpp, threads, version()),
            export=export,
            model_hash=model_hash,
            free=opened.pop_all().close,
        )
