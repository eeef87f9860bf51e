"""Before the first step: what would fail later, in the student and what it will read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdfast.config import Config, QuantConfig
from kdfast.distributed.ranks import Ranks
from kdfast.errors import ConfigError
from kdfast.export.gguf import check_supported
from kdfast.pretrained import check_sizes
from kdfast.quantized import plan_model
from kdfast.recipes.train.data import RunData
from kdfast.recipes.train.evaluation import choose_prompts


def check_student(
    config: Config,
    ranks: Ranks,
    data: RunData,
    *,
    student: Any,
    optimizer: torch.optim.Optimizer,
    terms: nn.Module,
    save: Callable[..., str],
) -> str:
    """Looks for too few prompts, sizes that do not fit, and a student that cannot be quantised or saved.

    Args:
        config: the run's config.
        ranks: this process among the others; they wait for each other.
        data: the run's rows.
        student: the bare model.
        optimizer: its optimiser.
        terms: parameters that loss terms learn.
        save: `try_saving` into the run's folder.

    Returns:
        what had to be changed so that the student can be saved; "" = nothing.

    Raises:
        ConfigError: what is wrong, by its key.
        DataError: the held-out file has fewer prompts than the config asks for.
    """
    train = config.train
    if ranks.main and data.validation is not None and train.eval_prompts + train.eval_irrelevance_prompts:
        choose_prompts(data.validation, train.eval_prompts, train.eval_irrelevance_prompts)
    if config.quant.enabled:
        plan_model(student, config.quant)
    rows = [data.train, *([data.validation] if data.validation is not None else [])]
    check_sizes(
        student.config,
        ids=data.train.tokenizer.vocab_size,
        longest=max(int(one.lengths.max(initial=0)) for one in rows),
        error=ConfigError,
        name="arch",
    )
    note = ""
    if ranks.main:
        # two more are kept under quantisation: where it began, and where the run goes back to
        kept = train.keep_last + 2 * config.quant.enabled
        note = save(student, optimizer, keep_last=kept, terms=terms)
    ranks.wait()
    return note


def check_export(config: Config, student: Any, write_student: Callable[..., None]) -> None:
    """Checks on the student's own files that llama.cpp can run it, if the run shall export it so.

    Args:
        config: the run's config.
        student: the bare model.
        write_student: `write_student(model, directory, weights=False)` writes all its files but the weights.

    Raises:
        ConfigError: it cannot, or the type of weights that is asked for does not divide a tensor; says the remedy.
        OSError: the temporary folder cannot be written.
    """
    if "gguf" not in config.export.targets:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_student(student, Path(folder), weights=False)
        check_supported(Path(folder))
    check_codes(config, student)


def check_codes(config: Config, student: nn.Module) -> None:
    """Checks that the formats of quantisation and of the GGUF divide the student's tensors.

    Args:
        config: the run's config.
        student: the bare model; no weight is read.

    Raises:
        ConfigError: one does not; names key and tensor.
    """
    if config.quant.enabled:
        plan_model(student, config.quant)
    kind = config.export.gguf_type or "q8_0"
    if "gguf" not in config.export.targets or kind == "f16" or config.quant.enabled:
        return
    try:
        plan_model(student, QuantConfig(format=kind))
    except ConfigError as error:
        raise ConfigError(
            f"export.gguf_type: {kind} cannot hold this student ({error}); set export.gguf_type=f16"
        ) from None
