"""Checks of the calls in the data: as they are said, as they are found, and what is derived from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kdfast import _rust
from kdfast.data import KDDataset
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import Sample
from kdfast.recipes.preflight.looking.answers import (
    REBUILD,
    Answer,
    of_all,
    raw_records,
    said_message,
    sampled_answers,
    short,
    some,
    spread_answers,
)
from kdfast.recipes.preflight.looking.derived_fields import (
    labels_agree_with_truths,
    required_fields_present_is_right,
    teacher_mask_is_right,
    teacher_prefix_is_right,
    tool_should_be_used_is_right,
)
from kdfast.recipes.preflight.looking.spelling import misspelt_names

Rows = list[dict[str, Any]]
Record = Mapping[str, Any]
_LEAST_IN_PROMPT = 0.5


def calls_said_are_found(sample_rows: KDDataset, sampled: Rows, sample: Sample) -> Finding:
    """Each row has the calls of its message, as many spans as calls, and in each span the call's name."""
    records = raw_records(sample_rows)
    said_calls = found_calls = 0
    for answer in sampled_answers(sample_rows, sampled, sample):
        said = _said(records[answer.read_from], answer.row["source"])
        fault = _call_fault(answer, said, sample_rows.tokenizer)
        if fault:
            return failed(
                f"{answer.where}: {fault}",
                "set data.tool_call_format and data.template so that calls are found as they are written; then "
                + REBUILD,
            )
        said_calls += len(said or ())
        found_calls += len(answer.calls)
    if not found_calls:
        return skipped(f"none of the {len(sampled)} sampled answers has a call")
    return passed(
        f"{len(sampled)} rows have {found_calls} calls, each under its span; the messages say {said_calls} of them, "
        "the others are text"
    )


def calls_fit_their_schemas(train_rows: KDDataset, sample: Sample) -> Finding:
    """How many answers with calls fit the schemas of their tools, by what the row says and by a second look."""
    answers = list(spread_answers(train_rows, sample))
    calling, looked_at = [one for one in answers if one.calls], of_all(len(answers), train_rows)
    if not calling:
        return skipped(f"no answer has a call: {looked_at}")
    broken = []
    for answer in calling:
        valid = _is_valid(answer)
        if valid != answer.row["call_valid"]:
            said = "valid" if answer.row["call_valid"] else "invalid"
            return failed(f"{answer.where}: its calls are said to be {said}, and they are not", REBUILD)
        broken += [] if valid else [answer.where]
    fitting = len(calling) - len(broken)
    text = f"{looked_at}: {fitting} of {len(calling)} answers with calls fit the schemas of their tools"
    if not broken:
        return passed(text)
    remedy = "mend the records or the tools' schemas, or set data.invalid_calls to reject"
    if len(broken) == len(calling):
        return failed(text, remedy, some(broken))
    return warned(f"{text}; not so: {some(broken)}", remedy)


def arguments_come_from_the_prompt(train_rows: KDDataset, sample: Sample) -> Finding:
    """Which share of the texts in arguments is written in the prompt, without regard to case and white space."""
    there = total = 0
    missing: list[str] = []
    for answer in spread_answers(train_rows, sample):
        texts = [text for call in answer.calls for text in _texts(call.arguments)]
        prompt = _folded(answer.prompt) if texts else ""
        for text in texts:
            total += 1
            if _folded(text) in prompt:
                there += 1
            elif len(missing) < 5:
                missing.append(f"{answer.where}: {text[:80]!r} is not in the prompt")
    if not total:
        return skipped("no call has a text among its arguments")
    text = f"{there} of {total} texts in arguments ({there / total:.0%}) are written in their prompts"
    if there < _LEAST_IN_PROMPT * total:
        return warned(
            text,
            "put what the arguments need into the prompts: a student that learns values from nowhere invents them",
            *missing,
        )
    return passed(text, *missing)


def names_are_not_misspelt(train_rows: KDDataset, sample: Sample) -> Finding:
    """No two names of tools, or of one tool's parameters, one letter apart; no argument so near a parameter."""
    found: dict[str, str] = {}
    looked_at = 0
    seen: dict[str, list[str]] = {}
    for answer in spread_answers(train_rows, sample):
        looked_at += 1
        tools = answer.row["tools"] or "[]"
        if tools not in seen:
            seen[tools] = misspelt_names(answer.tools, [])
        calls = [(call.name, list(call.arguments)) for call in answer.calls]
        for words in [*seen[tools], *misspelt_names(answer.tools, calls)[len(seen[tools]) :]]:
            found.setdefault(words, answer.where)
    if not seen or set(seen) == {"[]"}:
        return skipped("no row has tools")
    text = f"{of_all(looked_at, train_rows)} with {len(seen)} sets of tools"
    if not found:
        return passed(f"{text}: no two names are one letter apart")
    shown = [f"{where}: {words}" for words, where in list(found.items())[:10]]
    return warned(
        f"{text}: {len(found)} pairs of names are one letter apart ({next(iter(found))})",
        "if one of them is misspelt, mend it in the records; if both are meant, rename one: students mix them up",
        *shown,
    )


def _is_valid(answer: Answer) -> bool:
    return not answer.tools or all(_rust.ToolSchema(answer.row["tools"]).is_valid_batch(answer.calls))


def _said(record: Record, source: int) -> list[tuple[str, Any]] | None:
    """The calls of a row's message, (name, arguments); None = it has no list of calls."""
    message = said_message(record, source) or {}
    calls = message.get("tool_calls") or (
        [message["function_call"]] if message.get("function_call") else None
    )
    return None if not calls else [_name_and_arguments(call.get("function", call)) for call in calls]


def _name_and_arguments(call: Mapping[str, Any]) -> tuple[str, Any]:
    arguments = call.get("arguments", {})
    return call.get("name", ""), json.loads(arguments) if isinstance(arguments, str) else arguments


def _call_fault(answer: Answer, said: list[tuple[str, Any]] | None, tokenizer: _rust.Tokenizer) -> str:
    """What is wrong between the calls that a message says, those in its text, and the spans of the row."""
    found = [(call.name, call.arguments) for call in answer.calls]
    if said is not None and said != found:
        return f"the message has the calls {short(said)}, and in its text are found {short(found)}"
    if len(answer.spans) != len(found):
        return f"{len(found)} calls are in the answer, and the row marks {len(answer.spans)}"
    ids = answer.row["ids"].tolist()
    for (start, end), (name, _) in zip(answer.spans, found, strict=True):
        marked = tokenizer.decode(ids[start:end])
        if name not in marked:
            return f"the row marks {marked[:80]!r} as the call of {name}"
    return ""


def _texts(value: Any) -> Iterator[str]:
    """The texts in a JSON value that are not blank."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


CHECKS = (
    Check(
        name="data.tool_should_be_used",
        proves="Whether a call is due is loaded where the record says it, and derived rightly where not.",
        look=tool_should_be_used_is_right,
    ),
    Check(
        name="data.labels_agree_with_truths",
        proves="A ground truth calls a tool where tool_should_be_used is true, and only there.",
        look=labels_agree_with_truths,
    ),
    Check(
        name="data.required_fields_present",
        proves="Whether required arguments are there is loaded or derived rightly.",
        look=required_fields_present_is_right,
    ),
    Check(
        name="data.teacher_prefix_ids",
        proves="The first tokens of the teacher's call are loaded or derived rightly.",
        look=teacher_prefix_is_right,
    ),
    Check(
        name="data.teacher_attention_mask",
        proves="The teacher's mask and length are loaded or derived rightly.",
        look=teacher_mask_is_right,
    ),
    Check(
        name="data.calls_said_are_found",
        proves="The calls of a message are the calls that are found in its text.",
        look=calls_said_are_found,
    ),
    Check(
        name="data.calls_fit_their_schemas",
        proves="The calls that are learned fit the schemas of their tools.",
        look=calls_fit_their_schemas,
    ),
    Check(
        name="data.arguments_come_from_the_prompt",
        proves="The prompts hold the values that the calls need.",
        look=arguments_come_from_the_prompt,
    ),
    Check(
        name="data.names_are_not_misspelt",
        proves="No two names of tools or parameters are one letter apart.",
        look=names_are_not_misspelt,
    ),
)
