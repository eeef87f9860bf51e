"""Scoring: writes a local teacher's log-probabilities for every answer to the teacher store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from kdfast import _rust
from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.errors import ConfigError, TeacherError
from kdfast.exit_codes import DONE, INTERRUPTED
from kdfast.pretrained import check_sizes, load_model_config
from kdfast.stop import StopRequest
from kdfast.student import check_vocabulary, read_pieces
from kdfast.teacher import (
    LocalTeacher,
    Scores,
    ScoringRow,
    model_directory,
    model_fingerprint,
    model_vocab_size,
)
from kdfast.teacher.local.plan import Plan, plan_teaching


def score(config: Config, display: Display | None = None, stop: StopRequest | None = None) -> int:
    """Scores the answers of all training and validation rows that the store does not hold yet.

    Every scored batch is on disk before the next one starts. After a stop or a kill, the next call continues after the
    last batch, and no row is scored twice.

    Args:
        config: names the teacher, the data and the store.
        display: shows progress; None = one of its own.
        stop: asks to stop; None = Ctrl-C and SIGTERM do.

    Returns:
        0 when every row is scored, 130 when the run was stopped before that.

    Raises:
        ConfigError: no teacher is configured, or its vocabulary does not fit the data's.
        TeacherError: the teacher cannot be loaded.
        DataError: bad data, or a store that does not fit.
    """
    settings = config.teacher
    if settings.model is None or settings.store is None:
        raise ConfigError(
            "teacher.model: needed by `kdfast teach`; set it to a Hugging Face directory or a .gguf file"
        )
    display = display or Display()
    held_out = config.data.validation
    sides: list[tuple[Path, ...]] = [
        config.data.train_files,
        *([(held_out,)] if held_out is not None else []),
    ]
    datasets = [KDDataset.from_config(config.data, files) for files in sides]
    directory = model_directory(settings.model)
    usable = check_vocabulary(
        config.data.tokenizer,
        directory,
        student_size=len(read_pieces(config.data.tokenizer)),
        teacher_size=model_vocab_size(directory),
    )
    plan = plan_teaching(settings, model_fingerprint(directory), datasets[0], usable)
    check_sizes(
        load_model_config(directory, error=TeacherError, name="teacher.model"),
        ids=len(read_pieces(directory)),
        longest=len(plan.prefix_ids) + max(int(rows.lengths.max(initial=0)) for rows in datasets),
        error=ConfigError,
        name="teacher.model",
    )
    if datasets[0].template.note:
        display.console.print(
            f"[yellow]chat template[/yellow]: {escape(datasets[0].template.note)}", highlight=False
        )
    teacher = LocalTeacher(directory, device=settings.device, dtype=settings.dtype)
    with _rust.TeacherWriter.open(
        settings.store, plan.fingerprint, k=settings.k, vocab_size=usable, samples=settings.samples
    ) as writer:
        rows = list(_missing(datasets, plan, writer))
        total = sum(len(dataset) for dataset in datasets)
        text = f"{total} rows, {len(rows)} of them to be scored into {writer.path}"
        display.console.print(text, highlight=False, soft_wrap=True)
        with nullcontext(stop) if stop is not None else StopRequest() as asked:
            finished = _score(teacher, rows, plan, writer, config, display, asked)
        _report(display, writer, plan, finished)
    return DONE if finished else INTERRUPTED


@dataclass(frozen=True)
class _Row:
    """A row that the store lacks.

    Attributes:
        key: its key in the store, 16 bytes.
        scoring: what the teacher reads.
        offsets: which of the tokens from `scoring.response_start` on are supervised.
    """

    key: NDArray[np.uint8]
    scoring: ScoringRow
    offsets: NDArray[np.int64]


def _missing(datasets: Sequence[KDDataset], plan: Plan, writer: _rust.TeacherWriter) -> Iterator[_Row]:
    seen: set[bytes] = set()
    for number, dataset in enumerate(datasets):
        keys = dataset.store.row_keys(plan.fingerprint)
        for row in range(len(dataset)):
            index = int(dataset.rows[row])
            key = keys[index]
            shown = number == 0 and row in plan.shown
            if shown or key.tobytes() in seen or writer.contains(key[None])[0]:
                continue
            seen.add(key.tobytes())
            supervised = dataset.store.row(index)["supervised"]
            tokens = np.concatenate([np.arange(start, end) for start, end in supervised])
            start = int(tokens[0])
            yield _Row(key, ScoringRow(dataset.ids(row), start, key.tobytes()), tokens - start)


def _score(
    teacher: LocalTeacher,
    rows: list[_Row],
    plan: Plan,
    writer: _rust.TeacherWriter,
    config: Config,
    display: Display,
    stop: StopRequest,
) -> bool:
    """Scores batch by batch; False when a stop request left rows unscored."""
    started, tokens = time.perf_counter(), 0
    with display.working("teach", len(rows)) as on_progress:
        done = 0
        batches = teacher.score(
            [row.scoring for row in rows],
            plan.wanted,
            prefix_ids=plan.prefix_ids,
            batch_tokens=config.teacher.batch_tokens,
        )
        for batch in batches:
            _append(writer, [(rows[index], scores) for index, scores in batch])
            done += len(batch)
            tokens += sum(len(rows[index].scoring.ids) for index, _ in batch)
            on_progress(done, f"{tokens / (time.perf_counter() - started):.0f} tokens/s")
            if stop.requested:
                return done == len(rows)
    return True


def _append(writer: _rust.TeacherWriter, batch: Sequence[tuple[_Row, Scores]]) -> None:
    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(scores, name)[row.offsets] for row, scores in batch])

    sampled = writer.samples > 0
    writer.append(
        np.stack([row.key for row, _ in batch]),
        column("topk_ids"),
        column("topk_logp"),
        column("tail_logp"),
        np.array([len(row.offsets) for row, _ in batch], dtype=np.int64),
        column("call_opening_logp"),
        sample_ids=column("sample_ids") if sampled else None,
        sample_counts=column("sample_counts").astype(np.uint16) if sampled else None,
    )


def _report(display: Display, writer: _rust.TeacherWriter, plan: Plan, finished: bool) -> None:
    shown = f", {len(plan.shown)} demonstrations left out" if plan.shown else ""
    display.console.print(
        f"{len(writer)} rows in the store{shown}; {writer.bytes_per_token} bytes a token; {writer.path}",
        highlight=False,
        soft_wrap=True,
    )
    if not finished:
        display.console.print("stopped; the same command goes on where it left off")
