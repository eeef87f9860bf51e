"""Puts the parts of a training run together and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.config import Config, load_config
from kdfast.display import Display
from kdfast.distributed.ranks import Ranks, join
from kdfast.errors import QATError
from kdfast.exit_codes import DONE, INTERRUPTED
from kdfast.files import remove_leftovers, written_whole
from kdfast.recipes.first_look.of_config import look_before_training
from kdfast.recipes.train.data import open_data
from kdfast.recipes.train.evaluation import evaluate_once
from kdfast.recipes.train.events import Callback, TrainEvent, tell
from kdfast.recipes.train.final import (
    early_stop_note,
    measure_final_speed,
    remove_older_results,
    take_final_weights,
    write_origin,
)
from kdfast.recipes.train.first_checks import check_export, check_student
from kdfast.recipes.train.gates import FinalGates, blessed_reports, gates_without_prompts
from kdfast.recipes.train.live_teacher import FrozenTeacher, load_live_teacher, with_layers
from kdfast.recipes.train.loop import Loop
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.optimizer import adamw
from kdfast.recipes.train.progress import Progress
from kdfast.recipes.train.qat.phase import FILE, QatPhase, probe_batch
from kdfast.recipes.train.qat.report import compare_at_end
from kdfast.recipes.train.qat.shipping import Shipped, few_codes_warning, ship
from kdfast.recipes.train.qat.table import print_comparison
from kdfast.recipes.train.result import TrainResult
from kdfast.recipes.train.resume import resume_notes
from kdfast.recipes.train.same_inputs import check_same_inputs, input_fingerprints
from kdfast.recipes.train.speed import SpeedProbe
from kdfast.recipes.train.step import Runner, StudentLoss
from kdfast.recipes.train.summary import print_evaluation, print_losses, print_paths
from kdfast.recipes.train.trial_save import try_saving
from kdfast.recipes.train.verdict import judge_calls, judge_gates, judge_qat
from kdfast.runs.checkpoint import Checkpoints, load_checkpoint, read_state, read_tensors
from kdfast.runs.claim import Claim
from kdfast.runs.csv_files import write_metrics_csv
from kdfast.runs.folder import RunFolder, check_run_folder
from kdfast.runs.metrics import MetricsLog, cut_metrics
from kdfast.shapes import StepSampler
from kdfast.student import (
    build_student,
    load_student,
    read_pieces,
    resolve_device,
    write_student,
)
from kdfast.teacher import model_directory


def train(config: Config, *, resume: bool = False, callbacks: Sequence[Callback] = ()) -> TrainResult:
    """Runs a config to its end, or until a stop request: what `kdfast train` does.

    It sets torch's seed and number of threads. Ctrl-C and SIGTERM stop it if it runs in the main thread.

    Args:
        config: the run, see `kdfast.load_config`.
        resume: go on from the newest checkpoint in `io.run_dir`; if there is none, start at step 0.
        callbacks: each is called with a `TrainEvent` after every step, validation and checkpoint, and at the end.

    Returns:
        how it ended.

    Raises:
        ConfigError: the run folder holds another run, or one that is going on; or the config asks for what the data
            does not have. Nothing is left in the run folder.
        DataError: bad data.
        CheckpointError: a checkpoint that is damaged or of another run.

    Example::

        config = kdfast.load_config("configs/quickstart.yaml", ["train.num_steps=10"])
        result = kdfast.train(config, callbacks=[lambda event: print(event.kind, event.step, event.values)])
        print(result.student)
    """
    ranks = join()
    try:
        if not ranks.main:
            return Run(config, ranks, resume=resume, callbacks=callbacks).run()
        check_run_folder(config, resume=resume)
        look_before_training(
            config
        )  # the command has done so, before torch was imported; from Python it is new
        with Claim(RunFolder(config.io.run_dir)) as claim:
            check_run_folder(config, resume=resume)  # again: it may have changed before the lock was ours
            made = Run(config, ranks, resume=resume, callbacks=callbacks)
            if claim.warning:
                made.warn(claim.warning)
            claim.keep()
            return made.run()
    finally:
        ranks.leave()


class Run:
    """One run. The parts that are cheap to make come first, so that a mistake in a config shows early.

    Until `run` is called nothing in the run folder is changed.
    """

    def __init__(
        self, config: Config, ranks: Ranks, *, resume: bool, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.config, self.ranks, self.callbacks = config, ranks, callbacks
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        torch.manual_seed(config.train.seed)
        self.display = Display(quiet=not ranks.main)
        self.device = resolve_device(config.train.device, key="train.device")
        self.folder = RunFolder(config.io.run_dir)
        self.baseline = blessed_reports(config)
        note = gates_without_prompts(config)
        if note:
            self.display.console.print(note, highlight=False, soft_wrap=True, markup=False)
        data = open_data(config, ranks, self.display.console)
        self.train_data, self.validation_data = data.train, data.validation
        self.checkpoints = Checkpoints(self.folder.checkpoints, self._write_student)
        if ranks.main:
            self.checkpoints.put_back()
        ranks.wait()
        self.checkpoint = self.checkpoints.latest() if resume else None
        self.inputs = input_fingerprints(config, data)
        if resume:
            self._look_back()
        self.phase: QatPhase | None = None
        self._build()
        note = check_student(
            config,
            self.ranks,
            data,
            student=self.student,
            optimizer=self.optimizer,
            terms=self.model.terms,
            save=lambda student, optimizer, **options: try_saving(
                student, optimizer, self.folder, self._write_student, **options
            ),
        )
        if note:
            self.warn(note)
        check_export(config, self.student, self._write_student)

    def warn(self, text: str) -> None:
        """Prints a warning."""
        self.display.console.print(f"[yellow]warning[/yellow]: {escape(text)}", highlight=False)

    def run(self) -> TrainResult:
        """Evaluates, trains, evaluates again."""
        config, console = self.config, self.display.console
        if self.ranks.main:
            cut_metrics(self.folder.metrics, self.progress.step if self.checkpoint is not None else -1)
            config.save(self.folder.config)
        before = self._evaluate("before", 0)
        with MetricsLog(self.folder.metrics, tensorboard=config.io.tensorboard, write=self.ranks.main) as log:
            loop = self._loop(log)
            finished = loop.run()
        self.phase = loop.phase
        if self.ranks.main:
            write_metrics_csv(self.folder.metrics)
        if not finished:
            console.print(
                f"stopped at step {self.progress.step}; all of it is saved. Go on with the same command and --resume"
            )
            return self._result(INTERRUPTED)
        note = early_stop_note(config, self.progress)
        if note:
            self._say(note)
        step = take_final_weights(self.student, config, self.progress, self.checkpoints)
        shipped = self._ship(step)
        after = self._evaluate("after", step)
        if self.ranks.main:
            remove_older_results(self.folder, step)
            remove_leftovers(self.folder.path, self.folder.student.name)
            with written_whole(self.folder.student) as beside:
                self._write_student(self.student, beside)
                write_origin(beside, config, self.progress, step, shipped)
        self._compare(loop, shipped, step)
        if not self.ranks.main:
            return self._result(DONE)
        print_losses(console, self.progress, step)
        if before is not None and after is not None:
            print_evaluation(console, before, after)
        code = self._judge_gates(after, step)
        print_paths(console, self.folder, self.progress, step)
        code = judge_calls(config, after, console) or code
        code = judge_qat(config, shipped, console) or code
        return self._result(code, student_step=step, evaluation=after, shipped=shipped)

    def _ship(self, step: int) -> Shipped | None:
        """Turns a student under quantisation into what ships; None if the run has no such phase."""
        if self.phase is None:
            if self.config.quant.enabled:
                raise QATError(
                    "quant.enabled: the run ended before quantisation began, so its student is float; raise "
                    f"train.num_steps: {self.config.train.num_steps}"
                )
            return None
        shipped = ship(self.student, self.phase, self.checkpoints, step, self.progress.step)
        warning = few_codes_warning(shipped, self.config)
        if warning:
            self.warn(warning)
        return shipped

    def _compare(self, loop: Loop, shipped: Shipped | None, step: int) -> None:
        """Compares the quantised student with the float one, quantised after training."""
        if shipped is None or self.phase is None:
            return
        document = compare_at_end(loop, self.phase, shipped, self.folder.quantization, step)
        if document is not None:
            print_comparison(self.display.console, document)

    def _result(
        self,
        code: int,
        *,
        student_step: int | None = None,
        evaluation: dict[str, Any] | None = None,
        shipped: Shipped | None = None,
    ) -> TrainResult:
        """The result; tells the callbacks that the run is over."""
        progress = self.progress
        student = None if student_step is None else self.folder.student
        if self.ranks.main:
            values = progress.last_validation
            tell(
                self.callbacks,
                TrainEvent(kind="end", step=progress.step, values=values, student=self.student, path=student),
            )
        return TrainResult(
            exit_code=code,
            step=progress.step,
            run_dir=self.folder.path,
            student=student,
            student_step=student_step,
            best_step=progress.best_step,
            validation=progress.last_validation,
            best_validation=progress.best_validation,
            evaluation=evaluation,
            qat=None if shipped is None else shipped.status,
        )

    def _look_back(self) -> None:
        """What a resumed run must know of the run so far."""
        if self.checkpoint is None:
            self._say(f"no checkpoint in {self.folder.path} yet: the run starts at step 0")
            return
        state = read_state(self.checkpoint)
        warning = check_same_inputs(state, self.inputs, self.checkpoint)
        if warning:
            self.warn(warning)
        most = self.config.train.stop_after_validations
        ended_early = 0 < most <= state.get("validations_since_best", 0)
        before = load_config(self.folder.config) if self.folder.holds_run else self.config
        step = int(state["step"])
        for note in resume_notes(self.config, before, step, ended_early=ended_early, qat=state.get("qat")):
            self._say(note)
        if step < self.config.train.num_steps and not ended_early:
            self._say(f"going on from step {step}: {self.checkpoint}")

    def _say(self, text: str) -> None:
        self.display.console.print(text, highlight=False, soft_wrap=True, markup=False)

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
        live = load_live_teacher(config, self.device)
        self.model = StudentLoss(self.student, self._objective(live), live).to(self.device)
        self.optimizer = adamw(self.model, config.optimizer)
        self.sampler = StepSampler(
            self.train_data.lengths,
            config.data.shapes,
            rows_per_step=config.train.batch_size,
            seed=config.train.seed,
            probs=config.data.shape_probs,
            upweight_every=config.data.shape_upweight_every,
            upweight_factor=config.data.shape_upweight_factor,
        )
        self.progress = Progress(terms=dict(self.model.objective.states()))
        self.phase = None
        if self.checkpoint is not None:
            state = load_checkpoint(self.checkpoint, self.student, self.optimizer, terms=self.model.terms)
            self.progress.restore(state, self.model.objective.states(state))
            self.sampler.load_state_dict(state["sampler"])
            if self.progress.qat:
                saved = self.progress.qat, read_tensors(self.checkpoint, FILE)
                probe = probe_batch(config, self.validation_data, self.train_data)
                self.phase = QatPhase.resume(config, self.student, probe, self.ranks, saved)
                self.phase.check_start(self.checkpoints)

    def _objective(self, live: FrozenTeacher | None) -> Objective:
        kd = self.config.kd
        if live is not None:
            depth = self.student.config.num_hidden_layers
            kd = with_layers(kd, self.config.arch, student=depth, teacher=live.depth)
        warmup = kd.early_tool_warmup_steps
        return Objective.of(
            self.train_data,
            kd,
            num_steps=self.config.schedule_steps,
            early_tool_warmup_steps=self.config.optimizer.warmup_steps if warmup is None else warmup,
            prefix_tokens=self.config.data.prefix_tokens,
            live_teacher=live is not None,
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
            callbacks=self.callbacks,
            phase=self.phase,
        )

    def _judge_gates(self, after: dict[str, Any] | None, step: int) -> int:
        """Measures the student's speed if the newest report is of other weights, then judges the gates."""
        if self.validation_data is None:
            return DONE
        probe = self._speed()
        if probe is not None:
            measure_final_speed(probe, self.folder, step, self.display)
        gates = FinalGates(
            config=self.config,
            data=self.validation_data,
            baseline=self.baseline,
            folder=self.folder,
            display=self.display,
        )
        return judge_gates(gates, self.student, step, after)

    def _speed(self) -> SpeedProbe | None:
        data = self.validation_data
        if data is None or not self.ranks.main or not self.config.speed.every_validations:
            return None
        return SpeedProbe(self.config, self.student, data, self.folder.speed)

    def _evaluate(self, when: str, step: int) -> dict[str, Any] | None:
        """The evaluation before or after training, of a step's weights. A resumed run reads the first one from disk."""
        train, data = self.config.train, self.validation_data
        if data is None or not train.eval_prompts + train.eval_irrelevance_prompts:
            return None
        file = self.folder.evaluation(when)
        result = None
        if self.ranks.main and (when == "after" or self.progress.step == 0 or file.exists()):
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
