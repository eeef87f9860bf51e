"""Puts the parts of a training run together and runs it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.config import Config
from kdfast.display import Display
from kdfast.distributed.ranks import Ranks, join
from kdfast.errors import ConfigError
from kdfast.exit_codes import DONE, INTERRUPTED
from kdfast.losses import LossSettings
from kdfast.pretrained import check_sizes
from kdfast.recipes.train.data import open_data
from kdfast.recipes.train.evaluation import evaluate_once
from kdfast.recipes.train.gates import FinalGates, blessed_reports, gates_without_prompts
from kdfast.recipes.train.loop import Loop, Progress
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.same_inputs import check_same_inputs, input_fingerprints
from kdfast.recipes.train.speed import SpeedProbe
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.recipes.train.summary import print_evaluation, print_losses, print_paths
from kdfast.recipes.train.trial_save import try_saving
from kdfast.recipes.train.verdict import judge_gates, judge_valid_calls
from kdfast.runs.checkpoint import Checkpoints, load_checkpoint, read_state
from kdfast.runs.folder import RunFolder, open_run_folder
from kdfast.runs.metrics import MetricsLog, cut_metrics
from kdfast.shapes import StepSampler
from kdfast.student import (
    build_student,
    load_student,
    read_pieces,
    resolve_device,
    save_student,
    write_student,
)
from kdfast.teacher import model_directory
from kdfast.teacher.local.scores import call_opening_ids


def run(config: Config, *, resume: bool = False) -> int:
    """Runs a config to its end, or until a stop request.

    Args:
        config: the run.
        resume: go on from the newest checkpoint in `io.run_dir`; if there is none, start at step 0.

    Returns:
        The exit code: 0 done; 3 too few valid calls (`train.min_valid_calls_fraction`) or a failed gate
        (`train.fail_on_gate`); 130 stopped and resumable.

    Raises:
        ConfigError: the run folder holds another run, or the config asks for what the data does not have.
        DataError: bad data.
        CheckpointError: a checkpoint that is damaged or of another run.
    """
    ranks = join()
    try:
        return Run(config, ranks, resume=resume).run()
    finally:
        ranks.leave()


class Run:
    """One run. The parts that are cheap to make come first, so that a mistake in a config shows early."""

    def __init__(self, config: Config, ranks: Ranks, *, resume: bool) -> None:
        self.config, self.ranks = config, ranks
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        torch.manual_seed(config.train.seed)
        self.display = Display(quiet=not ranks.main)
        self.device = resolve_device(config.train.device)
        self.folder = RunFolder(config.io.run_dir)
        self.baseline = blessed_reports(config)
        if ranks.main:
            open_run_folder(config, resume=resume)
        note = gates_without_prompts(config)
        if note:
            self.display.console.print(note, highlight=False, soft_wrap=True, markup=False)
        data = open_data(config, ranks, self.display.console)
        self.train_data, self.validation_data = data.train, data.validation
        self.checkpoints = Checkpoints(self.folder.checkpoints, self._write_student)
        self.checkpoint = self.checkpoints.latest() if resume else None
        self.inputs = input_fingerprints(config, data)
        self._compare_inputs()
        self._build()
        self._check_student()

    def run(self) -> int:
        """Evaluates, trains, evaluates again; returns the exit code."""
        config, console = self.config, self.display.console
        before = self._evaluate("before")
        with MetricsLog(self.folder.metrics, tensorboard=config.io.tensorboard, write=self.ranks.main) as log:
            finished = self._loop(log).run()
        if not finished:
            console.print(
                f"stopped at step {self.progress.step}; all of it is saved. Go on with the same command and --resume"
            )
            return INTERRUPTED
        after = self._evaluate("after")
        if not self.ranks.main:
            return DONE
        save_student(self.student, self.folder.student, **self._saving())
        print_losses(console, self.progress)
        if before is not None and after is not None:
            print_evaluation(console, before, after)
        code = self._judge_gates(after)
        print_paths(console, self.folder, self.progress)
        return judge_valid_calls(config, after, console) or code

    def _compare_inputs(self) -> None:
        if self.checkpoint is not None:
            warning = check_same_inputs(read_state(self.checkpoint), self.inputs, self.checkpoint)
            if warning:
                self.display.console.print(f"[yellow]warning[/yellow]: {escape(warning)}", highlight=False)

    def _build(self) -> None:
        """The student, its optimiser and the sampler; from the newest checkpoint where there is one."""
        config = self.config
        arch, teacher = config.arch, config.teacher.model
        if self.checkpoint is not None:
            student: Any = load_student(self.checkpoint, freeze_embeddings=arch.freeze_embeddings)
        else:
            student = build_student(
                arch,
                teacher_dir=model_directory(teacher) if arch.init == "teacher" and teacher else None,
                vocab_size=len(read_pieces(config.data.tokenizer)),
                max_position_embeddings=config.data.shapes[-1],
                seed=config.train.seed,
            )
        self.student = student.to(self.device)
        self.model = StudentLoss(self.student, self._objective()).to(self.device)
        self.optimizer = _adamw(self.model, config)
        self.sampler = StepSampler(
            self.train_data.lengths,
            config.data.shapes,
            rows_per_step=config.train.batch_size,
            seed=config.train.seed,
            probs=config.data.shape_probs,
            upweight_every=config.data.shape_upweight_every,
            upweight_factor=config.data.shape_upweight_factor,
        )
        step, self.progress = 0, Progress(terms=dict(self.model.objective.states()))
        if self.checkpoint is not None:
            state = load_checkpoint(self.checkpoint, self.student, self.optimizer, terms=self.model.terms)
            saved = {field.name: state[field.name] for field in fields(Progress) if field.name != "terms"}
            self.progress = Progress(**saved, terms=self.model.objective.states(state))
            self.sampler.load_state_dict(state["sampler"])
            step = self.progress.step
            self.display.console.print(f"going on from step {step}: {self.checkpoint}", soft_wrap=True)
        if self.ranks.main:
            cut_metrics(self.folder.metrics, step if self.checkpoint is not None else -1)
        self.ranks.wait()

    def _check_student(self) -> None:
        """What would fail later: sizes that do not fit, and a student that cannot be saved."""
        data = [self.train_data, *([self.validation_data] if self.validation_data is not None else [])]
        check_sizes(
            self.student.config,
            ids=self.train_data.tokenizer.vocab_size,
            longest=max(int(rows.lengths.max(initial=0)) for rows in data),
            error=ConfigError,
            name="arch",
        )
        if self.ranks.main:
            terms, keep_last = self.model.terms, self.config.train.keep_last
            note = try_saving(
                self.student,
                self.optimizer,
                self.folder,
                self._write_student,
                keep_last=keep_last,
                terms=terms,
            )
            if note:
                self.display.console.print(f"[yellow]warning[/yellow]: {escape(note)}", highlight=False)
        self.ranks.wait()

    def _objective(self) -> Objective:
        data, teacher = self.train_data, self.train_data.teacher
        warmup = self.config.kd.early_tool_warmup_steps
        settings = LossSettings(
            kd=self.config.kd,
            eos_ids=tuple(data.turn_end_ids[-1:]),
            opening_ids=call_opening_ids(data.pieces(), data.call_openings),
            prefix_tokens=self.config.data.prefix_tokens,
            logprob_temperature=teacher.logprob_temperature if teacher is not None else 1.0,
        )
        return Objective(
            settings=settings,
            num_steps=self.config.train.num_steps,
            early_tool_warmup_steps=self.config.optimizer.warmup_steps if warmup is None else warmup,
        )

    def _loop(self, log: MetricsLog) -> Loop:
        model: nn.Module = self.model
        if self.ranks.world > 1:
            model = DistributedDataParallel(model)
        runner = Runner(
            model, self.model.objective, self.device, self.config.train.dtype == "bf16", self.ranks
        )
        return Loop(
            config=self.config,
            runner=runner,
            student=self.student,
            optimizer=self.optimizer,
            sampler=self.sampler,
            train_data=self.train_data,
            validation_data=self.validation_data,
            checkpoints=self.checkpoints,
            progress=self.progress,
            inputs=self.inputs,
            log=log,
            display=self.display,
            speed=self._speed(),
        )

    def _judge_gates(self, after: dict[str, Any] | None) -> int:
        if self.validation_data is None:
            return DONE
        gates = FinalGates(
            config=self.config,
            data=self.validation_data,
            baseline=self.baseline,
            folder=self.folder,
            display=self.display,
        )
        return judge_gates(gates, self.student, self.progress.step, after)

    def _speed(self) -> SpeedProbe | None:
        data = self.validation_data
        if data is None or not self.ranks.main or not self.config.speed.every_validations:
            return None
        return SpeedProbe(self.config, self.student, data, self.folder.speed)

    def _evaluate(self, when: str) -> dict[str, Any] | None:
        """The evaluation before or after training. A resumed run reads the first one from disk."""
        train, data = self.config.train, self.validation_data
        if data is None or not train.eval_prompts + train.eval_irrelevance_prompts:
            return None
        file = self.folder.evaluation(when)
        result = None
        if self.ranks.main and (when == "after" or self.progress.step == 0 or file.exists()):
            step = self.progress.step if when == "after" else 0
            result = evaluate_once(file, self.student, data, self.config, self.display, step)
        self.ranks.wait()
        return result

    def _saving(self) -> dict[str, Any]:
        data = self.train_data
        return {
            "tokenizer": self.config.data.tokenizer,
            "chat_template": data.template.source,
            "tool_use_template": data.template.tool_use,
            "turn_end": data.tokenizer.decode(data.turn_end_ids[-1:]),
        }

    def _write_student(self, student: Any, directory: Path, *, weights: bool = True) -> None:
        write_student(student, directory, **self._saving(), weights=weights)


def _adamw(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    settings = config.optimizer
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps)
