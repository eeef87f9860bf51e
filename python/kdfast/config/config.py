"""The whole config: all sections, the checks that need several sections, saving and comparing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kdfast.config.api import ApiConfig
from kdfast.config.arch import ArchConfig
from kdfast.config.data import DataConfig
from kdfast.config.export import ExportConfig
from kdfast.config.gates import GatesConfig
from kdfast.config.io import IOConfig
from kdfast.config.kd import KDConfig
from kdfast.config.optimizer import OptimizerConfig
from kdfast.config.price import PriceConfig
from kdfast.config.quant import QuantConfig
from kdfast.config.section import Section, invalid
from kdfast.config.speed import SpeedConfig
from kdfast.config.teacher import TeacherConfig
from kdfast.config.train import TrainConfig
from kdfast.errors import ConfigError
from kdfast.files import write_text_whole

SECTIONS: dict[str, type[Section]] = {
    section.section: section
    for section in (
        ArchConfig,
        DataConfig,
        TeacherConfig,
        ApiConfig,
        PriceConfig,
        OptimizerConfig,
        TrainConfig,
        KDConfig,
        QuantConfig,
        SpeedConfig,
        GatesConfig,
        ExportConfig,
        IOConfig,
    )
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run. It is valid by construction.

    Attributes:
        origins: for each dotted key, where its value comes from: "default", "file:line", "override", or
            "given" (from Python). Configs with equal values are equal, even if their origins differ.

    Examples:
        >>> from kdfast.config import config_from_dict
        >>> config = config_from_dict(
        ...     {
        ...         "arch": {"init": "models/small"},
        ...         "data": {"train": "train.jsonl", "tokenizer": "models/small"},
        ...         "io": {"run_dir": "runs/first"},
        ...     },
        ...     overrides=["train.num_steps=50"],
        ... )
        >>> config.train.num_steps, config.origins["train.num_steps"], config.origins["train.seed"]
        (50, 'override', 'default')
        >>> config.to_dict()["data"]["shapes"]
        [512, 1024, 2048, 4096]
    """

    arch: ArchConfig
    data: DataConfig
    teacher: TeacherConfig
    api: ApiConfig = field(default_factory=ApiConfig)
    price: PriceConfig = field(default_factory=PriceConfig)
    optimizer: OptimizerConfig
    train: TrainConfig
    kd: KDConfig
    quant: QuantConfig = field(default_factory=QuantConfig)
    speed: SpeedConfig
    gates: GatesConfig
    export: ExportConfig = field(default_factory=ExportConfig)
    io: IOConfig
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Checks keys that depend on keys of other sections.

        Raises:
            ConfigError: starts with the dotted path of the key at fault.
        """
        arch, data = self.arch, self.data
        if arch.init == "teacher" and self.teacher.model is None:
            raise ConfigError("arch.init: 'teacher' needs teacher.model; set that, or another arch.init")
        longest = arch.max_position_embeddings
        if data.shapes[-1] > (longest or data.shapes[-1]):
            allowed = f"at least the largest of data.shapes ({data.shapes[-1]})"
            raise invalid("arch.max_position_embeddings", allowed, longest)
        if self.optimizer.warmup_steps > self.schedule_steps:
            key = "train.num_steps" if self.optimizer.schedule_steps is None else "optimizer.schedule_steps"
            allowed = f"at most {key} ({self.schedule_steps})"
            raise invalid("optimizer.warmup_steps", allowed, self.optimizer.warmup_steps)
        self.kd.check_live_teacher(self.teacher.live)
        self.quant.check_steps(self.train.num_steps)
        self.export.check_quant(self.quant)
        if self.train.stop_after_validations and self.quant.enabled and self.quant.start_fraction:
            allowed = "0 unless quant.start_fraction is 0 (the run could end before quantisation begins)"
            raise invalid("train.stop_after_validations", allowed, self.train.stop_after_validations)
        self._check_validation()

    def _check_validation(self) -> None:
        """Checks the keys that need held-out records."""
        data, train = self.data, self.train
        for name in ("eval_prompts", "eval_irrelevance_prompts"):
            if getattr(train, name) and data.validation is None:
                raise invalid(f"train.{name}", "0 unless data.validation is set", getattr(train, name))
        if train.fail_on_gate and data.validation is None:
            raise invalid(
                "train.fail_on_gate", "false unless data.validation is set (no gate would be judged)", True
            )
        if train.stop_after_validations and (data.validation is None or not train.validate_every_steps):
            allowed = "0 unless data.validation and train.validate_every_steps are set"
            raise invalid("train.stop_after_validations", allowed, train.stop_after_validations)
        if self.io.final == "best" and data.validation is None:
            raise invalid(
                "io.final", "'last' unless data.validation is set (nothing says which is best)", "best"
            )

    @property
    def schedule_steps(self) -> int:
        """Steps over which the learning rate falls and the loss weights reach their final values."""
        return self.optimizer.schedule_steps or self.train.num_steps

    def sections(self) -> Iterator[Section]:
        """The sections, in the order of the file."""
        for name in SECTIONS:
            yield getattr(self, name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """All resolved values as plain Python (for YAML or JSON), section by section."""
        return {section.section: section.to_dict() for section in self.sections()}

    def to_yaml(self) -> str:
        """All resolved values as a config file that loads to an equal config."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, width=100)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all resolved values as a config file; folders are made.

        Args:
            path: the file; it is replaced whole, or not touched.

        Raises:
            OSError: it cannot be written.
        """
        write_text_whole(Path(path), self.to_yaml())

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all resolved values; equal configs have equal fingerprints."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def conflicts(self, saved: Config) -> list[str]:
        """The differences that forbid to resume a run with this config.

        Args:
            saved: the config that the run was started with.

        Returns:
            One line for each key that differs and may not change on resume: `train.seed: 1, the run has 0`.
            Steps, validation, checkpoint and logging keys may change, and so may the path of the run folder, and
            keys without effect.
        """
        found = []
        for section, before in zip(self.sections(), saved.sections(), strict=True):
            values, idle = before.to_dict(), section.unused() & before.unused()
            found += [
                f"{section.section}.{name}: {value}, the run has {values[name]}"
                for name, value in section.to_dict().items()
                if value != values[name] and name not in idle and not section.key(name).on_resume
            ]
        return found


def required_keys(section: type[Section]) -> tuple[str, ...]:
    """The keys of a section that have no default."""
    return tuple(name for name in section.names() if section.default(name) is dataclasses.MISSING)
