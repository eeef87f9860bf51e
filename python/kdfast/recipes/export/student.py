"""The student that leaves: where it comes from, its weights in torch, its table, and the records to compare on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdfast.config import Config, load_config
from kdfast.data import KDDataset
from kdfast.data.call_format import call_format
from kdfast.data.template import Template, load_template
from kdfast.errors import ConfigError
from kdfast.evaluate.left_out import LeftOut
from kdfast.export.parity.records import ParityRecord, read_records
from kdfast.pretrained import load_causal_lm
from kdfast.quantized import TABLE_FILE, QuantizedTable, check_saved
from kdfast.recipes.export.request import ExportRequest
from kdfast.recipes.first_look.of_model import model_folder
from kdfast.recipes.first_look.of_tools import read_tools
from kdfast.recipes.loaded_model import read_records as read_dataset
from kdfast.recipes.requests import Settings
from kdfast.runs.folder import RunFolder

_LINES = 5
"""Lines of records that are left out which are named."""


@dataclass(frozen=True)
class Student:
    """A student that leaves.

    Attributes:
        request: what was asked.
    """

    request: ExportRequest

    @cached_property
    def directory(self) -> Path:
        """Its Hugging Face directory."""
        return model_folder(self.request.model)

    @cached_property
    def config(self) -> Config | None:
        """The config of its run; None = it is no run's."""
        folder = RunFolder(self.request.model)
        return load_config(folder.config) if folder.holds_run else None

    @cached_property
    def table(self) -> QuantizedTable | None:
        """Its codes and scales; None = it was not trained under quantisation.

        Raises:
            DataError: the table or the weights are damaged.
            QATError: they are not one model.
        """
        return check_saved(self.directory) if (self.directory / TABLE_FILE).is_file() else None

    @cached_property
    def model(self) -> nn.Module:
        """Its weights in torch, fp32 on the CPU.

        Raises:
            ConfigError: they cannot be loaded.
        """
        if self.request.threads:
            torch.set_num_threads(self.request.threads)
        return load_causal_lm(
            self.directory, dtype=torch.float32, error=ConfigError, name="model", families=None
        )

    @cached_property
    def dataset(self) -> KDDataset | None:
        """The held-out records, tokenised as in training; None = nothing is compared.

        Raises:
            DataError: bad records.
        """
        if self.request.prompts is None:
            return None
        return self._opened[0]

    @cached_property
    def _opened(self) -> tuple[KDDataset, list[LeftOut]]:
        assert self.request.prompts is not None  # noqa: S101 - for the type checker
        settings = Settings(prompts=self.request.prompts, template_kwargs=self.request.template_kwargs)
        return read_dataset(self.request.model, self.directory, settings, leave_out_bad_tools=True)

    @property
    def left_out(self) -> dict[str, str]:
        """Which held-out records are not compared, and why; {} = all are."""
        if self.dataset is None:
            return {}
        found = {}
        bad, total = self._opened[1], len(self.dataset.one_row_a_record())
        if bad:
            lines = ", ".join(str(one.line) for one in bad[:_LINES])
            found["records"] = f"{len(bad)} with tools that are no valid JSON Schema (line {lines})"
        if total > len(self.records):
            found["further records"] = f"{total - len(self.records)} after the first {len(self.records)}"
        return found

    @cached_property
    def records(self) -> list[ParityRecord]:
        """What is compared; empty = nothing."""
        return [] if self.dataset is None else read_records(self.dataset)

    @cached_property
    def template(self) -> Template:
        """Its own chat template."""
        return load_template("tokenizer", self.directory, self.request.template_kwargs)

    @property
    def call_format(self) -> str | None:
        """The format in which its template writes calls; None = in none that kdfast reads."""
        return call_format(self.template.compile())

    @property
    def tools(self) -> Sequence[Mapping[str, Any]] | None:
        """The set of tools of the grammar: what the user named, else that of all records; None = they differ."""
        if self.request.tools is not None:
            return read_tools(self.request.tools)
        sets = [record.tools for record in self.records if record.tools]
        return sets[0] if sets and all(one == sets[0] for one in sets) else None
