"""The files and the config of the small run: the user's config, with the sample for its data and few steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdfast.config import ApiConfig, ArchConfig, Config, PriceConfig, TeacherConfig
from kdfast.data import KDDataset
from kdfast.errors import ConfigError, DataError
from kdfast.evaluate import eval_prompts
from kdfast.pretrained import load_model_config, resolve_device
from kdfast.recipes.preflight.facts import PreflightRequest, Sample, SmallProject, TaughtSample
from kdfast.recipes.preflight.made.fake_store import write_fake_store
from kdfast.recipes.train.live_teacher import with_layers
from kdfast.student.estimate import student_config
from kdfast.student.stand_in import LAYERS, write_stand_in

STEPS = 8
EVERY = 4
"""Steps between two validations, and between two checkpoints."""
LARGEST = 20_000_000
"""A student with more parameters is stood in for in the small run: it must end within the minute."""
STAND_IN_RATE = 3e-3
"""The learning rate of a stand-in: its weights are random, so that a rate for fine-tuning would show nothing."""


@dataclass(frozen=True)
class _Files:
    """The files of the small run.

    Attributes:
        folder: where they are.
    """

    folder: Path

    @property
    def train(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def validation(self) -> Path:
        return self.folder / "validation.jsonl"

    @property
    def student(self) -> Path:
        return self.folder / "stand-in"

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher"

    @property
    def store(self) -> Path:
        return self.folder / "teacher-store"

    @property
    def run(self) -> Path:
        return self.folder / "run"


def make_small_project(
    config: Config, request: PreflightRequest, work: Path, sample: Sample, figures: dict[str, int]
) -> SmallProject:
    """Writes the files of the small run; if nobody has answered yet, `taught_project` does.

    Args:
        config: the user's config.
        request: whether the student itself is asked for.
        work: a scratch folder.
        sample: the records.
        figures: the estimate of the real run.

    Raises:
        ConfigError: the config's model is missing or damaged.
        DataError: bad records.
        OSError: a file cannot be read or written.
    """
    return _project(config, request, work / "small", sample.texts, sample.held_out_texts, figures)


def taught_project(
    config: Config,
    request: PreflightRequest,
    work: Path,
    sample: Sample,
    taught: TaughtSample,
    figures: dict[str, int],
) -> SmallProject:
    """The same with the records that the fake teacher answered; see `make_small_project`.

    Raises:
        DataError: no answer of the fake teacher could be learned.
    """
    from kdfast.data.token_rows import to_line

    if not taught.records:
        raise DataError(
            "no answer of the fake teacher could be learned from, so the small run has nothing to train on; see "
            "teacher.fake_answers_become_records",
            str(config.teacher.prompts),
        )
    texts = (*map(to_line, taught.records), *sample.beside_texts)
    return _project(config, request, work / "small", texts, sample.held_out_texts, figures)


def _project(
    config: Config,
    request: PreflightRequest,
    folder: Path,
    train: tuple[str, ...],
    held_out: tuple[str, ...],
    figures: dict[str, int],
) -> SmallProject:
    files = _Files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(files.train, train)
    if held_out:
        _write(files.validation, held_out)
    parameters = figures["parameters"]
    is_small = request.full or parameters <= LARGEST
    stand_in = ""
    arch = _real_arch(config)
    if not is_small:
        form = student_config(config)
        size = write_stand_in(form, files.student, seed=config.train.seed)
        layers = form.num_hidden_layers
        stand_in = (
            f"{min(LAYERS, layers)} layers, {size / 1e6:.1f} M parameters, for {layers} layers, "
            f"{parameters / 1e6:,.1f} M parameters"
        )
        arch = ArchConfig(init=str(files.student), freeze_embeddings=config.arch.freeze_embeddings)
    small = replace(
        config,
        arch=arch,
        api=ApiConfig(),
        price=PriceConfig(),
        optimizer=_optimizer(config, stand_in=bool(stand_in)),
        quant=_quant(config),
        speed=_speed(config),
        gates=replace(config.gates, baseline=None),
        io=replace(config.io, run_dir=files.run, tensorboard=False),
        kd=_kd(config),
        **_data_and_teacher(config, files, held_out=bool(held_out)),
    )
    made_up = _write_store(config, small, files)
    return SmallProject(
        folder=folder,
        config=small,
        stand_in=stand_in,
        teacher_is_made_up=made_up,
        in_fp32=small.train.dtype != config.train.dtype,
    )


def _write(path: Path, texts: tuple[str, ...]) -> None:
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8", newline="\n")


def _real_arch(config: Config) -> ArchConfig:
    """The user's section, for a config without a teacher."""
    from kdfast.teacher import model_directory

    if config.arch.init == "teacher" and config.teacher.model is not None:
        return replace(config.arch, init=str(model_directory(config.teacher.model)))
    return config.arch


def _optimizer(config: Config, *, stand_in: bool) -> Any:
    optimizer = config.optimizer
    rate = max(optimizer.learning_rate, STAND_IN_RATE) if stand_in else optimizer.learning_rate
    warmup = min(optimizer.warmup_steps, 2)
    return replace(optimizer, learning_rate=rate, warmup_steps=warmup, schedule_steps=None)


def _speed(config: Config) -> Any:
    speed = config.speed
    # in the first and the last validation only
    every = STEPS if speed.every_validations else 0
    return replace(
        speed, every_validations=every, prompts=min(speed.prompts, 2), max_new_tokens=None, warmup=0
    )


def _quant(config: Config) -> Any:
    quant = config.quant
    if not quant.enabled:
        return quant
    return replace(
        quant,
        start_fraction=0.5 if quant.start_fraction else 0.0,
        warmup_steps=min(quant.warmup_steps, 1),
        min_steps=1,
        probe_rows=min(quant.probe_rows, 2),
        fail_on_unstable=True,
        compare_float=False,
    )


def _kd(config: Config) -> Any:
    warmup = config.kd.early_tool_warmup_steps
    kd = replace(config.kd, early_tool_warmup_steps=None if warmup is None else min(warmup, 2))
    if kd.hidden_state_weight:  # a stand-in for the live teacher lacks most of the layers that the user named
        kd = replace(kd, hidden_state_student_layers=None, hidden_state_teacher_layers=None)
    return kd


def _data_and_teacher(config: Config, files: _Files, *, held_out: bool) -> dict[str, Any]:
    """The sections `data`, `teacher` and `train`, which must agree on whether anything is held out."""
    data = replace(
        config.data,
        train=files.train,
        validation=files.validation if held_out else None,
        cache=files.folder / "stores",
        workers=0,
    )
    teacher = TeacherConfig(seed=config.teacher.seed, k=config.teacher.k)
    if config.teacher.live and config.teacher.model is not None:
        from kdfast.teacher import model_directory

        directory = model_directory(config.teacher.model)
        model = load_model_config(directory, error=ConfigError, name="teacher.model")
        if config.kd.hidden_state_weight:  # the layers that the user named are there
            own = student_config(config).num_hidden_layers
            with_layers(config.kd, config.arch, student=own, teacher=model.num_hidden_layers)
        write_stand_in(model, files.teacher, seed=config.train.seed + 1)
        tokenizer = directory / "tokenizer.json"
        (files.teacher / "tokenizer.json").write_bytes(tokenizer.read_bytes())
        teacher = replace(teacher, model=files.teacher, live=True, dtype="fp32")
    if reads_store(config):
        teacher = replace(teacher, store=files.store)
    return {"data": data, "teacher": teacher, "train": _train(config, data, held_out=held_out)}


def _train(config: Config, data: Any, *, held_out: bool) -> Any:
    train = config.train
    with_call = without = 0
    if held_out:
        due = [prompt.should_call for prompt in eval_prompts(KDDataset.from_config(data, data.validation))]
        with_call, without = sum(due), len(due) - sum(due)
    on_cpu = resolve_device(train.device, key="train.device").type == "cpu"
    return replace(
        train,
        dtype="fp32" if on_cpu else train.dtype,
        num_steps=STEPS,
        micro_batch_size=min(train.micro_batch_size, 2),
        gradient_accumulation_steps=min(train.gradient_accumulation_steps, 2),
        validate_every_steps=EVERY,
        validation_rows=0,
        checkpoint_every_steps=EVERY,
        keep_last=2,
        log_every_steps=1,
        stop_after_validations=0,
        eval_prompts=min(train.eval_prompts, with_call, 2),
        eval_irrelevance_prompts=min(train.eval_irrelevance_prompts, without, 1),
        eval_max_new_tokens=min(train.eval_max_new_tokens, 8),
        min_valid_calls_fraction=0.0,
        min_exact_calls_fraction=0.0,
        max_false_calls_fraction=1.0,
        fail_on_gate=False,
    )


def reads_store(config: Config) -> bool:
    """Whether training reads log-probabilities that `kdfast teach` writes: to a store, or beside a server's answers."""
    written = config.teacher.store is not None or (
        config.teacher.kind == "api" and config.api.top_logprobs > 0
    )
    return written and config.kd.reads_store(live_teacher=config.teacher.live)


def _write_store(config: Config, small: Config, files: _Files) -> bool:
    """Writes the made-up teacher store, if the losses read one."""
    if not reads_store(config):
        return False
    data = small.data
    rows = [KDDataset.from_config(data, data.train_files)]
    if data.validation is not None:
        rows.append(KDDataset.from_config(data, data.validation))
    samples = max(config.teacher.samples, 1) if config.kd.sampled_kl_weight else 0
    write_fake_store(
        files.store, rows, k=config.teacher.k, samples=samples, temperature=config.kd.temperature
    )
    return True
