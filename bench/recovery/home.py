"""Everything that all arms share: rows in three splits that have no prompt in common, and the float student."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from recovery.outliers import spread_columns
from recovery.stored import stored
from recovery.student import Phase, Row, Size, encode, make_student, train, train_tokenizer
from recovery.world import make_records


@dataclass(frozen=True)
class Home:
    """Rows and student.

    Attributes:
        size: what they were made of.
        spread: of the student's columns, see `spread_columns`.
        tokenizer: of the words of all rows.
        train: rows to train on.
        tune: held-out rows on which rates are chosen; nothing else is reported of them.
        held_out: held-out rows on which everything is judged.
        student: the float student, trained, with its columns spread.
        plain: the same before that.
        trained: how: seconds and last losses.
    """

    size: Size
    spread: float
    tokenizer: Tokenizer
    train: list[Row]
    tune: list[Row]
    held_out: list[Row]
    student: Any
    plain: Any
    trained: dict[str, float]


def make_home(size: Size, spread: float, work: Path) -> Home:
    """Makes rows and tokenizer anew; the float student is kept in the folder."""
    records = make_records(0, size.train_rows + size.tune_rows + size.held_out_rows)
    tokenizer = train_tokenizer(records)
    rows = [encode(tokenizer, record) for record in records]
    learned = rows[: size.train_rows]
    tune, held_out = (
        rows[size.train_rows : size.train_rows + size.tune_rows],
        rows[size.train_rows + size.tune_rows :],
    )
    phase = Phase(
        steps=size.float_steps,
        rate=size.float_rate,
        batch=size.float_batch,
        seed=1000,
        warmup=50,
        last_fraction=0.05,
    )

    def make() -> dict[str, Any]:
        started = time.perf_counter()
        student = make_student(size, tokenizer.get_vocab_size())
        losses = train(student, learned, phase, log_every=100)
        tail = losses[-50:]
        trained = {"seconds": time.perf_counter() - started, "last_loss": sum(tail) / len(tail)}
        return {"weights": student.state_dict(), "trained": trained}

    kept = stored(work, "float_student", (size, phase), make)
    plain = make_student(size, tokenizer.get_vocab_size())
    plain.load_state_dict(kept["weights"])
    student = copy.deepcopy(plain)
    spread_columns(student, spread)
    return Home(
        size, spread, tokenizer, learned, tune, held_out, student.eval(), plain.eval(), kept["trained"]
    )
