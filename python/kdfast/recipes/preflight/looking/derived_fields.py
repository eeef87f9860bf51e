"""Fields of a row that a record may carry and that are derived where it does not: each worked out again, slowly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from kdfast import _rust
from kdfast.batch import SOURCES
from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.recipes.preflight.check import Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import Sample
from kdfast.recipes.preflight.looking.answers import (
    REBUILD,
    Answer,
    is_of_teacher_fields,
    of_all,
    own_place,
    place,
    raw_records,
    sampled_answers,
    short,
    some,
    spread_rows,
)
from kdfast.scoring.parameters import parameters_of

Rows = list[dict[str, Any]]
Record = Mapping[str, Any]
_LABEL = "tool_should_be_used"


def tool_should_be_used_is_right(sample_rows: KDDataset, sampled: Rows, sample: Sample) -> Finding:
    """The record's own value; without one, whether the answer has a call."""

    def wanted(answer: Answer, record: Record) -> bool:
        return bool(record.get("tool_should_be_used", bool(answer.calls)))

    return _compare(sample_rows, sampled, sample, "tool_should_be_used", wanted)


def required_fields_present_is_right(sample_rows: KDDataset, sampled: Rows, sample: Sample) -> Finding:
    """The record's own value; without one, whether every call has all that its tool requires."""

    def wanted(answer: Answer, record: Record) -> bool:
        if "required_fields_present" in record:
            return bool(record["required_fields_present"])
        if not record.get("tool_should_be_used", bool(answer.calls)):
            return True
        return bool(answer.calls) and all(_is_complete(call, answer) for call in answer.calls)

    return _compare(sample_rows, sampled, sample, "required_fields_present", wanted)


def teacher_prefix_is_right(config: Config, sample_rows: KDDataset, sampled: Rows, sample: Sample) -> Finding:
    """The record's own ids; without any, the first tokens of the answer's first call."""

    def wanted(answer: Answer, record: Record) -> list[int]:
        if "teacher_prefix_ids" in record and is_of_teacher_fields(record, answer.row["source"]):
            return list(record["teacher_prefix_ids"])
        return _first_call_ids(answer, sample_rows.tokenizer)[: config.data.prefix_tokens]

    return _compare(sample_rows, sampled, sample, "teacher_prefix_ids", wanted)


def teacher_mask_is_right(sample_rows: KDDataset, sampled: Rows, sample: Sample) -> Finding:
    """The record's own mask, with zeros before the answer where it has only the answer's; without one, none."""

    def wanted(answer: Answer, record: Record) -> list[int] | None:
        given = record.get("teacher_attention_mask")
        if given is None or not is_of_teacher_fields(record, answer.row["source"]):
            return None
        before = len(answer.row["ids"]) - len(given)
        return [0] * before + [int(bit) for bit in given]

    found = _compare(sample_rows, sampled, sample, "teacher_attention_mask", wanted)
    if found.status == "fail":
        return found
    for answer in sampled_answers(sample_rows, sampled, sample):
        mask = _plain(answer.row["teacher_attention_mask"])
        length = answer.row["response_length"] if mask is None else sum(mask)
        if answer.row["teacher_length"] != length:
            return failed(
                f"{answer.where}: teacher_length is {answer.row['teacher_length']}, and its tokens are {length}",
                REBUILD,
            )
    return found


def labels_agree_with_truths(train_rows: KDDataset, sample: Sample) -> Finding:
    """Each ground truth calls a tool where `tool_should_be_used` is true, and only there.

    A teacher's own answer may do otherwise: that is no fault.
    """
    calling: set[int] = set()
    truths: list[int] = []
    wrong: list[int] = []
    chosen = spread_rows(train_rows)
    for index in chosen:
        row = train_rows.store.row(index)
        if row["source"] != SOURCES["truth"]:
            continue
        truths.append(index)
        calls = bool((row["spans"]["tool_call"][:, 0] >= row["response_start"]).any())
        if calls:
            calling.add(index)
        if calls != row["tool_should_be_used"]:
            wrong.append(index)
    if not truths:
        return skipped("no row is a ground truth")
    seen = f"{of_all(len(chosen), train_rows)}, {len(truths)} of them ground truths"
    if not wrong:
        return passed(f"{seen}: each calls a tool where tool_should_be_used is true, and only there")
    labelled = _labelled(train_rows, truths)
    of = len(calling | labelled | set(wrong))
    own = [own_place(train_rows, one, sample) if sample.asked else place(train_rows, one) for one in wrong]
    shown = [
        f"{where}: the ground truth calls {'a' if one in calling else 'no'} tool, and tool_should_be_used is "
        f"{'false' if one in calling else 'true'}"
        for where, one in zip(own[:10], wrong, strict=False)
    ]
    text = f"{seen}: {len(wrong)} of {of} with a call or a label contradict their tool_should_be_used ({some(own)})"
    remedy = "mend tool_should_be_used or the answer in these records; without the key it is derived from the answer"
    return failed(text, remedy, *shown) if 2 * len(wrong) > of else warned(text, remedy, *shown)


def _labelled(rows: KDDataset, truths: list[int]) -> set[int]:
    """Those of the rows whose record says itself whether a call is due."""
    wanted = {rows.place(index): index for index in truths}
    found = set()
    for path in rows.paths:
        with path.open("rb") as file:  # not as text: a lone carriage return would count as the end of a line
            for number, line in enumerate(file, 1):
                index = wanted.get((path, number))
                if index is not None and json.loads(line.decode("utf-8-sig")).get(_LABEL) is not None:
                    found.add(index)
    return found


def _compare(
    sample_rows: KDDataset, sampled: Rows, sample: Sample, field: str, wanted: Callable[[Answer, Record], Any]
) -> Finding:
    """Compares a field of the rows with what it should be."""
    records = raw_records(sample_rows)
    carried = 0
    for answer in sampled_answers(sample_rows, sampled, sample):
        record = records[answer.read_from]
        carried += field in record
        right, found = wanted(answer, record), _plain(answer.row[field])
        if found != right:
            how = "the record carries" if field in record else "derived from its answer it is"
            return failed(f"{answer.where}: {field} is {short(found)}, and {how} {short(right)}", REBUILD)
    return passed(
        f"{len(sampled)} rows: loaded from {carried}, derived for {len(sampled) - carried}, all right"
    )


def _is_complete(call: _rust.ToolCall, answer: Answer) -> bool:
    if not answer.tools:
        return True
    tool = next((tool for tool in answer.tools if tool.get("name") == call.name), None)
    if tool is None:
        return False
    parameters = parameters_of(tool) or {}
    return set(parameters.get("required") or ()) <= set(call.arguments)


def _first_call_ids(answer: Answer, tokenizer: _rust.Tokenizer) -> list[int]:
    """The tokens with a byte of the first call."""
    if not answer.calls:
        return []
    begin, end = (len(answer.text[:at].encode()) for at in answer.calls[0].span)
    found, at = [], 0
    for token in answer.row["ids"][answer.row["response_start"] :].tolist():
        size = len(tokenizer.token_bytes(token))
        if at < end and at + size > begin:
            found.append(token)
        at += size
    return found


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
