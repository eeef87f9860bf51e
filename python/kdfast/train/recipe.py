"""From a config to a finished run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.checkpoint import Checkpoints
from kdfast.config import Config
from kdfast.data import KDDataset, load_template
from kdfast.display import Display
from kdfast.errors import ConfigError, DataError
from kdfast.shapes import StepSampler
from kdfast.student import build_student, check_vocabulary, read_pieces, resolve_device, save_student, write_student
from kdfast.train import ranks as ranks_module
from kdfast.train.final_evaluation import evaluate_once
from kdfast.train.loop import Loop, Progress
from kdfast.train.metrics import MetricsLog, cut_metrics
from kdfast.train.objective import Objective
from kdfast.train.ranks import Ranks
from kdfast.train.run_folder import RunFolder, open_run_folder
from kdfast.train.step import Runner, SupervisedForward
from kdfast.train.summary import print_evaluation, print_losses, print_paths

INTERRUPTED = 130
GATE_FAILED = 3


def run(config: Config, *, resume: bool) -> int:
    """See `kdfast.train.run`."""
    ranks = ranks_module.join()
    try:
        return _Run(config, ranks, resume=resume).run()
    finally:
        ranks.leave()


class _Run:
    """The parts of one run, made in the order in which each can fail cheapest."""

    def __init__(self, config: Config, ranks: Ranks, *, resume: bool) -> None:
        self.config, self.ranks = config, ranks
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        torch.manual_seed(config.train.seed)
        self.display = Display(quiet=not ranks.main)
        self.console = self.display.console
        if ranks.main:
            open_run_folder(config, resume=resume)
        self.folder = RunFolder(config.io.run_dir)
        self._load_data()
        self.template = load_template(config.data.template, config.data.tokenizer)
        self.checkpoints = Checkpoints(self.folder.path / "checkpoints")
        self.resumed = self.checkpoints.latest() if resume else None
        self.device = resolve_device(config.train.device)
        self.student = self._student().to(self.device)

    def _load_data(self) -> None:
        """Opens both datasets; the first rank builds the stores that are missing, the others wait."""
        if not self.ranks.main:
            self.ranks.wait()
        data, store = self.config.data, self._teacher_store()
        self.train_data = KDDataset.from_config(data, data.train, store)
        self.validation_data = KDDataset.from_config(data, data.validation, store) if data.validation else None
        if self.ranks.main:
            self.ranks.wait()
        rows = self.config.train.batch_size
        if not len(self.train_data):
            raise DataError("no record is left to train on", str(data.train))
        if rows < self.ranks.world:
            raise ConfigError(
                f"train.micro_batch_size: a step needs a row for each of {self.ranks.world} ranks; raise it or "
                f"train.gradient_accumulation_steps, the step has: {rows}"
            )
        if self.config.kd.kl_weight > 0 and self.train_data.teacher is None:
            raise ConfigError(
                "kd.kl_weight: needs the teacher's log-probabilities, and there are none; run `kdfast teach CONFIG` "
                f"(it writes teacher.store), or set kd.kl_weight to 0: {self.config.kd.kl_weight}"
            )

    def _teacher_store(self) -> Path | None:
        """The teacher store, where the KL is on and a store was written."""
        store = self.config.teacher.store
        return store if store is not None and self.config.kd.kl_weight > 0 and store.exists() else None

    def _student(self) -> nn.Module:
        """The student of the newest checkpoint, or the one that the config describes."""
        config = self.config
        pieces = read_pieces(config.data.tokenizer)
        if self.resumed is not None:
            return self.checkpoints.load_student(self.resumed)
        student = build_student(
            config.arch,
            teacher_dir=config.teacher.model,
            vocab_size=len(pieces),
            max_position_embeddings=config.data.shapes[-1],
            seed=config.train.seed,
        )
        return student
