"""Checks of the data as a whole: what was read, what is there twice, and whether each loss finds its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdfast._rust import read_jsonl
from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.data.repeats import duplicate_rows, other_answers, shared_prompts
from kdfast.errors import DataError
from kdfast.losses import TERMS
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import Sample, SmallProject
from kdfast.recipes.preflight.looking.answers import of_all, some, spread_rows
from kdfast.recipes.train.evaluation import choose_prompts
from kdfast.recipes.train.inputs import check_inputs, check_shape_weights
from kdfast.shapes import assign_shapes
from kdfast.teacher.prompts import read_prompts

_MOST_COMPARED = 50_000
_MOST_SHARED = 0.2
_LEAST_WITHOUT_CALL = 0.1


def records_are_read(
    config: Config, sample: Sample, train_rows: KDDataset, held_out_rows: KDDataset | None
) -> Sequence[Finding]:
    """What was read of each file, and what was left out with its reasons."""
    if sample.asked:
        text = f"{sample.of} prompts of {config.teacher.prompts}, not answered yet; {len(sample.records)} looked at"
        found = [passed(text)]
    else:
        found = [_read(train_rows, f"{len(sample.records)} records are looked at closely")]
    if held_out_rows is not None:
        found.append(_read(held_out_rows, "held out"))
    return found


def rows_are_not_repeated(config: Config, sample: Sample, train_rows: KDDataset) -> Finding:
    """No row is learned twice, and no prompt has two answers unless that is asked for."""
    if sample.asked:
        return skipped("nobody has answered yet")
    repeated, total = duplicate_rows(train_rows), len(train_rows)
    if repeated:
        return warned(
            f"{repeated} of {total} rows have the tokens of an earlier row: they are learned again",
            "remove the repeats from data.train (kdfast data inspect shows them)",
        )
    if total > _MOST_COMPARED:
        return passed(f"{total} rows are all different; too many to look for prompts with two answers")
    others = [f"{path.name}:{line}" for path, line in other_answers(train_rows)]
    if others and config.teacher.answers_per_prompt == 1:
        return warned(
            f"{total} rows are all different; {len(others)} records ask what an earlier one asks and answer otherwise "
            f"({some(others)})",
            "keep one answer to each prompt, unless several are meant (teacher.answers_per_prompt)",
        )
    return passed(f"{total} rows are all different; {len(others)} records ask what an earlier one asks")


def held_out_prompts_are_new(
    config: Config, sample: Sample, train_rows: KDDataset, held_out_rows: KDDataset | None
) -> Finding:
    """How many held-out prompts, with their tools, are trained on."""
    if held_out_rows is None:
        return skipped("data.validation is not set")
    if sample.asked and config.teacher.prompts is not None:
        held_out, asked = _held_out(config, held_out_rows), _asked(config, config.teacher.prompts)
        shared, total, among = len(held_out & asked), len(held_out), f"{len(asked)} prompts"
    elif len(train_rows) > _MOST_COMPARED:
        looked_at = _thinned(train_rows, _MOST_COMPARED)
        shared, total = shared_prompts(looked_at, held_out_rows)
        among = of_all(len(looked_at), train_rows)
    else:
        shared, total = shared_prompts(train_rows, held_out_rows)
        among = f"{len(train_rows)} rows"
    text = f"{shared} of {total} held-out prompts are among the {among} to train on"
    if not shared:
        return passed(text)
    remedy = "hold other records out (data.validation): numbers on prompts that were trained on say nothing of new ones"
    return failed(text, remedy) if shared > _MOST_SHARED * total else warned(text, remedy)


def held_out_prompts_suffice(config: Config, held_out_rows: KDDataset | None) -> Finding:
    """There are as many held-out prompts, with and without a call, as the evaluation asks for."""
    wanted = config.train.eval_prompts, config.train.eval_irrelevance_prompts
    if held_out_rows is None or not any(wanted):
        return skipped("train.eval_prompts and train.eval_irrelevance_prompts are 0")
    try:
        choose_prompts(held_out_rows, *wanted)
    except DataError as error:
        return failed(str(error), "lower the key, or hold more records out (data.validation)")
    return passed(f"{wanted[0]} prompts that need a call and {wanted[1]} that need none are held out")


def some_rows_need_no_call(train_rows: KDDataset) -> Finding:
    """At least 1 in 10 rows needs no call, and at least one needs one."""
    chosen = spread_rows(train_rows)
    due = [bool(train_rows.store.row(index)["tool_should_be_used"]) for index in chosen]
    with_tools = sum(train_rows.store.tools(index) not in (None, "", "[]") for index in chosen)
    without, text = len(due) - sum(due), of_all(len(chosen), train_rows)
    if not with_tools:
        return warned(f"{text}: none has tools", "give records their tools, or train on another file")
    if not any(due):
        return warned(
            f"{text}: none needs a call", "add records that need one: a student learns to call from these"
        )
    if without < _LEAST_WITHOUT_CALL * len(due):
        return warned(
            f"{text}: {without} ({without / len(due):.0%}) need no call, fewer than 1 in 10",
            "add records whose tools do not fit the question: students without them call on everything",
        )
    return passed(f"{text}: {without} ({without / len(due):.0%}) need no call")


def terms_find_their_rows(config: Config, train_rows: KDDataset, sample_rows: KDDataset) -> Finding:
    """Each enabled loss term has a row to act on, by the same code as training's."""
    rows = _alike(train_rows)
    if sample_rows.teacher is not None:
        rows.teacher = sample_rows.teacher  # what training reads, as far as it is known before it is paid
    check_inputs(config.kd, rows, live_teacher=config.teacher.live)
    enabled = [term.name for term in TERMS if getattr(config.kd, term.weight) > 0]
    return passed(f"{len(enabled)} enabled terms find rows: {', '.join(enabled)}")


def rows_can_be_drawn(config: Config, train_rows: KDDataset) -> Finding:
    """Every shape that has rows is drawn."""
    data = config.data
    check_shape_weights(data, train_rows.lengths)
    shapes = assign_shapes(train_rows.lengths, data.shapes)
    used = {data.shapes[index]: int((shapes == index).sum()) for index in sorted(set(shapes.tolist()))}
    counts = ", ".join(f"{count} of {shape}" for shape, count in used.items())
    weights = data.shape_probs if isinstance(data.shape_probs, tuple) else (1.0,) * len(data.shapes)
    never = [shape for shape in used if not weights[data.shapes.index(shape)]]
    if never:
        return warned(
            f"{sum(used[shape] for shape in never)} of {len(shapes)} rows are never drawn: the weight of their "
            f"shape is 0 ({', '.join(map(str, never))})",
            "set data.shape_probs above 0 there, or to 'natural'",
        )
    return passed(f"{len(shapes)} rows by shape, each drawn: {counts}")


def _read(rows: KDDataset, note: str) -> Finding:
    """What was read of a dataset's files."""
    names = ", ".join(path.name for path in rows.paths)
    text = f"{names}: {len(rows)} rows ({note})"
    left_out = rows.rejected + len(rows.too_long)
    if not left_out:
        return passed(f"{text}, no line was rejected, none is too long")
    share = left_out / max(left_out + len(rows), 1)
    return warned(
        f"{text}; {left_out} ({share:.1%}) are left out: {rows.rejected} lines rejected, {len(rows.too_long)} records "
        "too long for data.shapes",
        "mend these lines (kdfast data inspect shows all), or add a larger shape to data.shapes",
        *[line for path in rows.paths for line in _reasons(path)],
        *([f"too long: lines {some([str(line) for line in rows.too_long])}"] if rows.too_long else []),
    )


def _reasons(path: Path, most: int = 5) -> list[str]:
    """Why lines of a file were rejected: the first few."""
    file = path.with_name(f"{path.name}.rejected.reasons.jsonl")
    if not file.is_file():
        return []
    with file.open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line, _ in zip(lines, range(most), strict=False)]
    return [f"{path.name}:{entry['line']}: {entry['reason']}" for entry in entries]


def _asked(config: Config, path: Path) -> set[str]:
    """What the prompts of a file ask, with the tools that they show, as text; what is set aside is left out."""
    shown = config.data.show_tools
    return {
        _as_text(one.messages or one.prompt, one.tools if shown else ())
        for one in read_prompts(path, config.data)
    }


def _held_out(config: Config, rows: KDDataset) -> set[str]:
    """The same of held-out records, which have answers."""
    found = set()
    for path in rows.paths:
        records, _ = read_jsonl(
            path,
            lines="records",
            on_error=config.data.on_error,
            max_rejected_fraction=config.data.max_rejected_fraction,
            max_line_bytes=config.data.max_line_bytes,
            allow_reasoning=config.data.allow_reasoning,
            threads=config.data.threads,
        )
        found |= {
            _as_text(
                one.get("messages") or one.get("prompt"),
                (one.get("tools") if config.data.show_tools else None) or (),
            )
            for one in records
        }
    return found


def _as_text(asked: object, tools: Sequence[object]) -> str:
    return json.dumps([asked, list(tools)], sort_keys=True)


def _alike(rows: KDDataset) -> KDDataset:
    """Another dataset of the same stores. `copy.copy` would read the tokenizer again, as for another process."""
    other = KDDataset.__new__(KDDataset)
    other.__dict__.update(rows.__dict__)
    return other


def _thinned(rows: KDDataset, most: int) -> KDDataset:
    """The same dataset with fewer rows, evenly spread."""
    chosen = np.linspace(0, len(rows) - 1, most).astype(int)
    fewer = _alike(rows)
    fewer.rows, fewer.lengths = rows.rows[chosen], rows.lengths[chosen]
    return fewer


def sample_is_drawn(sample: Sample, small: SmallProject) -> Finding:
    """The records of the small run, and what stands in for the student."""
    number, least = len(sample.records), 10
    kind = "prompts, answered by the fake teacher" if sample.asked else "rows"
    text = f"{number} records of {sample.of} {kind}, and {len(sample.held_out)} held out, make the small run"
    if small.stand_in:
        text = f"{text}; a stand-in for the student: {small.stand_in}"
    if number < least:
        return warned(text, f"there are fewer than {least}: much cannot be seen on so few; add records")
    return passed(text)


CHECKS = (
    Check(
        name="data.records_are_read",
        proves="The records are read, and what is left out is said.",
        look=records_are_read,
        owns=("sample", "unanswered", "written_rows", "train_rows", "held_out_rows"),
    ),
    Check(
        name="data.sample_is_drawn",
        proves="A small run of records of every kind can be made.",
        look=sample_is_drawn,
        owns=("small",),
    ),
    Check(
        name="data.rows_are_not_repeated",
        proves="No row is learned twice.",
        look=rows_are_not_repeated,
    ),
    Check(
        name="data.held_out_prompts_are_new",
        proves="Validation is on prompts that training has not seen.",
        look=held_out_prompts_are_new,
    ),
    Check(
        name="data.held_out_prompts_suffice",
        proves="There are as many held-out prompts as the evaluation asks for.",
        look=held_out_prompts_suffice,
    ),
    Check(
        name="data.some_rows_need_no_call",
        proves="The data teach when to call, and when not to.",
        look=some_rows_need_no_call,
    ),
    Check(
        name="data.terms_find_their_rows",
        proves="Each enabled loss term finds rows to act on.",
        look=terms_find_their_rows,
    ),
    Check(
        name="data.rows_can_be_drawn",
        proves="Every shape that has rows is drawn in training.",
        look=rows_can_be_drawn,
    ),
)
