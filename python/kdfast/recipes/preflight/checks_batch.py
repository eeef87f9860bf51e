"""Checks of a batch: it is padded right, shifted once, and teaches the answers, whole, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdfast.batch import IGNORE_INDEX
from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.data.collate import PER_ROW
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped
from kdfast.recipes.preflight.looking.batch_calls import TOOL_MASKS, calls_of, shown_row
from kdfast.recipes.preflight.looking.batch_rows import Batch, of_tokens, rows_of, said, where

_OFF_AFTER_END = ("response_mask", *TOOL_MASKS, "teacher_attention_mask", "teacher_topk_mask")
_REPORT = "this is a fault of kdfast, or of code that changes its batches: report it with the config"
_MASS = 1e-3  # what the sum of a distribution may be off by: the numbers are fp32


def shapes(batches: Sequence[Batch], sample_rows: KDDataset, config: Config) -> Finding:
    """Every batch has one of the config's shapes, and all its fields agree."""
    allowed, seen = config.data.shapes, Counter[int]()
    for number, batch in enumerate(batches):
        rows, length = batch["input_ids"].shape
        wanted = {name: (rows,) if name in PER_ROW else (rows, length) for name in batch}
        for name, size in wanted.items():
            if tuple(batch[name].shape[: len(size)]) != size:
                return failed(
                    f"batch {number}: {name} is {list(batch[name].shape)}, input_ids is {[rows, length]}",
                    _REPORT,
                )
        longest = int(sample_rows.lengths[batch["row"].numpy()].max())
        smallest = min((shape for shape in allowed if shape >= longest), default=None)
        if length != smallest:
            return failed(
                f"batch {number} is padded to {length} tokens, its longest row has {longest}, and data.shapes are "
                f"{list(allowed)}",
                f"each batch must have the smallest of data.shapes that holds it; {_REPORT}",
            )
        seen[length] += rows
    if not seen:
        return skipped("there is no batch")
    counted = ", ".join(f"{rows} of {length}" for length, rows in sorted(seen.items()))
    return passed(f"{seen.total()} rows in {len(batches)} batches, rows of each length in tokens: {counted}")


def padding(batches: Sequence[Batch], sample_rows: KDDataset) -> Finding:
    """Rows are padded on the right, and no padding is a target or is read."""
    rows = rows_of(batches, sample_rows)
    pads = {int(token) for row in rows for token in row.ids[row.end :]}
    if len(pads) > 1:
        return failed(f"input_ids holds several ids after the rows' ends: {sorted(pads)[:5]}", _REPORT)
    for row in rows:
        mask, whole = row.fields["attention_mask"], len(row.stored["ids"])
        place = f"row {row.number} of the sample"
        if not (mask[: row.end] == 1).all():
            return failed(f"{place}: attention_mask has a gap, or the padding is on the left", _REPORT)
        if row.end > whole:
            return failed(
                f"{place} has {whole} tokens, and attention_mask is 1 on {row.end}: padding is read", _REPORT
            )
        labelled = int((row.fields["labels"][row.end :] != IGNORE_INDEX).sum())
        if labelled:
            return failed(f"{place}: {labelled} position(s) of padding are inside the loss", _REPORT)
        for name in _OFF_AFTER_END:
            if name in row.fields and row.fields[name][row.end :].any():
                return failed(f"{place}: {name} is set on padding", _REPORT)
    size = sum(len(row.ids) for row in rows)
    share = 1 - sum(row.end for row in rows) / max(size, 1)
    return passed(f"{share:.0%} of {size:,} positions are padding, on the right, and none of it is a target")


def labels_are_next_tokens(batches: Sequence[Batch], sample_rows: KDDataset) -> Finding:
    """A label is the token after its position: it is shifted once, neither never nor twice."""
    rows = rows_of(batches, sample_rows)
    count, wrong, own, second = 0, 0, 0, 0
    for row in rows:
        labels, ids = row.fields["labels"], np.append(row.ids, [IGNORE_INDEX] * 2)  # [T], [T+2]
        ids[row.end :] = IGNORE_INDEX  # the last token has no next one
        at = np.flatnonzero(labels[: row.end] != IGNORE_INDEX)
        count += len(at)
        at = at[labels[at] != ids[at + 1]]
        wrong += len(at)
        own += int((labels[at] == ids[at]).sum())
        second += int((labels[at] == ids[at + 2]).sum())
    if not count:
        return failed("no position has a label: nothing would be learned", _REPORT)
    if wrong:
        most, kind = max(
            (own, "the token at its own position: it is not shifted"),
            (second, "the token two further on: it is shifted twice"),
        )
        shifted = f"; {most} of these are {kind}" if most > wrong / 2 else ""
        return failed(
            f"{wrong} of {count} labels are not the next token{shifted}", f"shift labels once; {_REPORT}"
        )
    apart = [
        row
        for row in rows
        if ((row.fields["labels"] != IGNORE_INDEX) != row.fields["response_mask"])[: row.end].any()
    ]
    if apart:
        return failed(
            f"labels and response_mask mark different positions in {len(apart)} of {len(rows)} rows, the first is row "
            f"{apart[0].number} of the sample",
            _REPORT,
        )
    return passed(f"{count:,} labels in {len(rows)} rows: each is the token after its position")


def prompt_is_not_learned(batches: Sequence[Batch], sample_rows: KDDataset, config: Config) -> Finding:
    """No token of a prompt is a target."""
    rows = rows_of(batches, sample_rows)
    wrong = where(rows, lambda row: row.learned & ~row.answers, sample_rows)
    if wrong:
        return failed(f"the prompt is learned: {wrong}", f"give prompts the label {IGNORE_INDEX}; {_REPORT}")
    tokens = sum(int((~row.answers).sum()) for row in rows)
    turns = "the last answer" if config.data.supervise == "last" else "all answers"
    return passed(
        f"{tokens:,} tokens of prompts in {len(rows)} rows, none is a target; {turns} of each row is learned"
    )


def answer_is_learned(batches: Sequence[Batch], sample_rows: KDDataset) -> Finding:
    """Every token of an answer is a target."""
    rows = rows_of(batches, sample_rows)
    wrong = where(rows, lambda row: row.answers & ~row.turn_ends & ~row.learned, sample_rows)
    if wrong:
        return failed(f"a part of an answer has no label: {wrong}", _REPORT)
    tokens = sum(int((row.answers & ~row.turn_ends).sum()) for row in rows)
    return passed(f"{tokens:,} tokens of answers in {len(rows)} rows, each is a target")


def turn_end_is_learned(batches: Sequence[Batch], sample_rows: KDDataset) -> Finding:
    """The tokens that end an answer are targets: a student that never learns them never stops."""
    rows = rows_of(batches, sample_rows)
    wrong = where(rows, lambda row: row.turn_ends & ~row.learned, sample_rows)
    if wrong:
        return failed(f"the end of a turn has no label, so that the student will not stop: {wrong}", _REPORT)
    ended = sum(bool(row.turn_ends.any()) for row in rows)
    if not ended:
        return skipped("no answer of the sample has an end: each was cut at its length limit")
    text = sample_rows.tokenizer.decode(sample_rows.turn_end_ids)
    return passed(f"{ended} of {len(rows)} rows end with {text!r}, and it is a target")


def answer_is_whole(
    batches: Sequence[Batch], sampled: Sequence[dict[str, Any]], sample_rows: KDDataset
) -> Finding:
    """A row of the batch has all tokens of its record's answer, up to the end of the turn."""
    rows = rows_of(batches, sample_rows)
    limited = dropped = 0
    for row in rows:
        record, stored, place = sampled[row.number], row.stored, f"row {row.number} of the sample"
        there, whole = row.ids[: row.end], stored["ids"]
        if stored["response_length"] != record["response_length"] or row.end < len(whole):
            return failed(
                f"{place}: its answer has {record['response_length']} tokens, the batch has "
                f"{max(row.end - stored['response_start'], 0)} of them",
                "nothing of an answer may be cut: add a larger shape to data.shapes, or leave the record out",
            )
        if not np.array_equal(there[: len(whole)], whole):
            return failed(f"{place}: the tokens of the batch are not those of the token store", _REPORT)
        end = record["response_start"] + record["response_length"]
        ends = [int(span[1]) for span in record["spans"]["turn_end"]]
        if end not in ends and record["finish_reason"] != "length":
            return failed(
                f"{place}: its answer has no end of turn, and its finish_reason is {record['finish_reason']!r}",
                "set data.template to a template whose answers end, or data.tokenizer to one that knows the end",
            )
        limited += end not in ends
        dropped += len(record["ids"]) > len(whole)
    notes = [f"{limited} ended at the length limit"] * bool(limited)
    notes += [f"{dropped} lost turns of the middle to fit data.shapes"] * bool(dropped)
    return passed("; ".join([f"{len(rows)} answers, none is cut", *notes]))


def lengths_agree(batches: Sequence[Batch], sample_rows: KDDataset) -> Finding:
    """`response_start`, `response_length`, `teacher_length` and `teacher_attention_mask` say where the answer is."""
    rows = rows_of(batches, sample_rows)
    for row in rows:
        stored, place, end = (
            row.stored,
            f"row {row.number} of the sample",
            min(row.end, len(row.stored["ids"])),
        )
        start, length = int(row.fields["response_start"]), int(row.fields["response_length"])
        if start != stored["response_start"] or start + length != end:
            return failed(
                f"{place}: response_start is {start} and response_length {length}; the answer is from "
                f"{stored['response_start']} to {end}",
                _REPORT,
            )
        mask, given = row.fields["teacher_attention_mask"][:end], stored["teacher_attention_mask"]
        wanted = (np.arange(end) >= start) if given is None else (given[:end] != 0)
        teacher = int(row.fields["teacher_length"])
        if (
            not np.array_equal(mask != 0, wanted)
            or teacher < mask.sum()
            or (given is None and teacher != length)
        ):
            return failed(
                f"{place}: teacher_length is {teacher}, teacher_attention_mask marks {int(mask.sum())} tokens, and the "
                f"answer has {length}",
                f"see the record's teacher_attention_mask; without one, {_REPORT}",
            )
    shortest, longest = (pick(int(row.fields["response_length"]) for row in rows) for pick in (min, max))
    return passed(f"answers of {shortest} to {longest} tokens in {len(rows)} rows, where the fields say")


def tool_masks_decode(batches: Sequence[Batch], sample_rows: KDDataset) -> Finding:
    """The masks of calls decode to the calls, their names and their arguments."""
    rows, shown, calls = rows_of(batches, sample_rows), list[str](), 0
    for row in rows:
        found, wanted = calls_of(row, sample_rows)
        there = {name: of_tokens(row.fields[name], row.end) for name in TOOL_MASKS}
        calls += len(found)
        if found and not shown:
            shown = shown_row(row, there, sample_rows)
        for name in TOOL_MASKS:
            if not np.array_equal(there[name], wanted[name]):
                seen, meant = (said(row.ids[: row.end][mask[name]], sample_rows) for mask in (there, wanted))
                return failed(
                    f"row {row.number} of the sample: {name} marks {seen}, and the answer's calls have {meant} there",
                    f"see data.tool_call_format; if it is right, {_REPORT}",
                    *shown_row(row, there, sample_rows),
                )
    if not calls:
        return skipped("no row of the sample has a call")
    return passed(f"{calls} calls in {len(rows)} rows: the masks decode to call, name and arguments", *shown)


def teacher_is_a_distribution(batches: Sequence[Batch], sample_rows: KDDataset) -> Finding:
    """What the teacher gives at a position are probabilities of different ids that sum to one."""
    known = targets = 0
    off, vocab = 0.0, sample_rows.tokenizer.vocab_size
    for number, batch in enumerate(batches):
        targets += int((batch["labels"] != IGNORE_INDEX).sum())
        if "teacher_topk_mask" not in batch:
            continue
        mask = batch["teacher_topk_mask"]
        ids, logp, tail = (batch[f"teacher_{name}"] for name in ("topk_ids", "topk_logp", "tail_logp"))
        if not (logp[~mask] == -torch.inf).all():
            return failed(
                f"batch {number}: teacher_topk_logp is above -inf where teacher_topk_mask is off", _REPORT
            )
        ids, logp, tail = ids[mask], logp[mask], tail[mask]  # [N,K], [N,K], [N]
        known += len(ids)
        classes = torch.cat([logp, tail[:, None]], dim=1).double()  # [N,K+1]
        mass = (classes.exp().sum(dim=1) - 1).abs()  # [N]
        if bool(classes.isnan().any()) or bool((mass > _MASS).any()):
            worst = classes.exp().sum(dim=1)[mass.nan_to_num(torch.inf).argmax()]
            return failed(
                f"batch {number}: the teacher's probabilities of a position sum to {worst:.4f}, not to 1",
                "score the rows again (`kdfast teach`), or mend teacher_topk of the records: natural logarithms",
            )
        off = max(off, float(mass.max()) if len(mass) else 0.0)
        problem = _id_problem(ids, logp > -torch.inf, vocab)
        if problem:
            return failed(
                f"batch {number}: {problem}",
                "score the rows again with `kdfast teach`, by the same tokenizer",
            )
    if not known:
        return skipped("no log-probabilities of a teacher are read")
    return passed(
        f"{known:,} of {targets:,} targets have a teacher's distribution, its sum is off by {off:.0e} at most"
    )


def _id_problem(ids: Tensor, used: Tensor, vocab: int) -> str:
    """What is wrong with a teacher's ids [N,K] where they are used [N,K]; "" = nothing."""
    outside = ids[used & ((ids < 0) | (ids >= vocab))]
    if len(outside):
        return f"the teacher's id {int(outside[0])} is outside the vocabulary of {vocab}"
    # an unused id becomes a number of its own below 0, so that it equals no other
    apart = torch.where(used, ids.long(), -1 - torch.arange(ids.shape[1]))
    ordered = apart.sort(dim=1).values
    twice = ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]]
    return f"the teacher gives id {int(twice[0])} twice at a position" if len(twice) else ""


CHECKS = (
    Check(
        name="batch.shapes",
        proves="Each batch is padded to the smallest of data.shapes that holds it, and its fields agree.",
        look=shapes,
        owns=("sample_rows", "batches"),
    ),
    Check(
        name="batch.padding", proves="Padding is on the right, is not read and is no target.", look=padding
    ),
    Check(
        name="batch.labels_are_next_tokens",
        proves="Each label is the token after its position: targets are shifted once.",
        look=labels_are_next_tokens,
    ),
    Check(
        name="batch.prompt_is_not_learned",
        proves="No token of a prompt is a target.",
        look=prompt_is_not_learned,
    ),
    Check(
        name="batch.answer_is_learned", proves="Every token of an answer is a target.", look=answer_is_learned
    ),
    Check(
        name="batch.turn_end_is_learned",
        proves="The end of a turn is a target, so that the student learns to stop.",
        look=turn_end_is_learned,
    ),
    Check(
        name="batch.answer_is_whole",
        proves="No answer is cut, and each ends its turn.",
        look=answer_is_whole,
        owns=("sampled",),
    ),
    Check(
        name="batch.lengths_agree",
        proves="The fields that say where answers are agree with the tokens.",
        look=lengths_agree,
    ),
    Check(
        name="batch.tool_masks_decode",
        proves="The masks of calls decode to calls, names and arguments.",
        look=tool_masks_decode,
    ),
    Check(
        name="batch.teacher_is_a_distribution",
        proves="The teacher's numbers of each position are probabilities of different ids that sum to 1.",
        look=teacher_is_a_distribution,
    ),
)
