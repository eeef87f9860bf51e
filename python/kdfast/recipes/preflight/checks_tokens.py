"""Checks of tokenizer, chat template and turn ends: text becomes the tokens that student, teacher and export know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kdfast.data import KDDataset
from kdfast.data.token_rows import Reader
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import Sample
from kdfast.recipes.preflight.looking.answers import place, raw_records, sampled_answers, some
from kdfast.recipes.preflight.looking.token_agreement import template_is_saved, vocabularies_agree

Rows = list[dict[str, Any]]
_RENDER = "look at the rendered rows (kdfast data inspect), and take a template that ends its turns"
_ANSWERS = ("teacher_text", "teacher_message", "truth_text", "truth_message")
_SCHEMA = re.compile(r'"(?:properties"\s*:|type"\s*:\s*"object")')
_FEWEST_WORDS = 3
"""A description of fewer words may be in a question by chance."""


def texts_come_back(reader: Reader, sample: Sample) -> Finding:
    """Every text of the sampled records is the same after encoding and decoding."""
    total, lost = 0, []
    for number, record in enumerate(sample.records):
        for key, text in _texts(record):
            total += 1
            back = reader.tokenizer.decode(reader.tokenizer.encode(text))
            if back != text:
                lost.append((number, key, text, back))
    text = f"{total} texts of {len(sample.records)} records, encoded and decoded"
    if not lost:
        return passed(f"{text}: all come back")
    shown = [
        f"record {number + 1}, {key}: {text[:80]!r} comes back as {back[:80]!r}"
        for number, key, text, back in lost[:5]
    ]
    remedy = "take a tokenizer whose vocabulary has all bytes (data.tokenizer), or mend the records"
    if any(key in _ANSWERS for _, key, _, _ in lost):
        return failed(f"{text}: {len(lost)} are changed, answers among them", remedy, *shown)
    return warned(f"{text}: {len(lost)} texts of prompts are changed", remedy, *shown)


def template_renders(reader: Reader, sample_rows: KDDataset, sampled: Rows) -> Finding:
    """The last question of each record is in its rendered prompt."""
    records, rendered = raw_records(sample_rows), 0
    shown: tuple[str, ...] = ()
    for answer in sampled_answers(sample_rows, sampled):
        question = _question(records[answer.where])
        if question is None:
            continue
        rendered += 1
        shown = shown or tuple(answer.prompt.splitlines())
        if question not in answer.prompt and not answer.row["prompt_lossy"]:
            return failed(
                f"{answer.where}: the template leaves out the last message ({question[:80]!r})",
                "set data.template to 'hermes', or mend the .jinja file",
                *answer.prompt.splitlines(),
            )
    if not rendered:
        return skipped("all sampled records have their prompts as text")
    note = f"; {reader.template.note}" if reader.template.note else ""
    return passed(
        f"{rendered} conversations are rendered with their last messages; the first is shown{note}", *shown
    )


def template_uses_the_tools(sample_rows: KDDataset, sampled: Rows) -> Finding:
    """The name of each tool is in the rendered prompt; where tools are baked in, no tool's definition is."""
    if sample_rows.template.hides_tools:
        return _tools_are_hidden(sample_rows, sampled)
    records, with_tools = raw_records(sample_rows), 0
    for answer in sampled_answers(sample_rows, sampled):
        names = [str(tool.get("name")) for tool in answer.tools]
        with_tools += bool(names)
        hidden = [name for name in names if name not in answer.prompt]
        if hidden:
            is_text = "prompt" in records[answer.where]
            what = "its prompt, given as text," if is_text else "the prompt that the chat template makes"
            return failed(
                f"{answer.where}: {what} does not show the tools {some(hidden)}: the model would never see them",
                "write the tools into the prompt, or give messages"
                if is_text
                else "set data.template to 'hermes'",
            )
    if not with_tools:
        return skipped("no sampled record has tools")
    return passed(f"{with_tools} of {len(sampled)} rows have tools, and their prompts show each of them")


def _tools_are_hidden(sample_rows: KDDataset, sampled: Rows) -> Finding:
    """No prompt shows a tool's definition. Its name alone is none: an earlier call has it, and so may the question."""
    with_tools, told = 0, "they are baked in (data.show_tools: false)"
    for answer in sampled_answers(sample_rows, sampled):
        with_tools += bool(answer.tools)
        shown = [str(tool.get("name")) for tool in answer.tools if _defines(answer.prompt, tool)]
        if shown:
            return failed(
                f"{answer.where}: the prompt shows the tools {some(shown)}, and {told}",
                "take the tools out of the record's messages, or set data.show_tools to true",
            )
    if not with_tools:
        return skipped("no sampled record has tools")
    return passed(f"{with_tools} of {len(sampled)} rows have tools, and no prompt shows one: {told}")


def _defines(text: str, tool: Mapping[str, Any]) -> bool:
    """Whether a text holds a tool's definition: its name, beside its description or a schema of parameters."""
    name, description = str(tool.get("name")), str(tool.get("description") or "")
    if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
        return False
    described = len(description.split()) >= _FEWEST_WORDS and description in text
    return described or (f'"{name}"' in text and _SCHEMA.search(text) is not None)


def control_tokens_stay_text(
    reader: Reader, sample: Sample, train_rows: KDDataset, sample_rows: KDDataset, sampled: Rows
) -> Finding:
    """No answer ends inside, and control tokens that people wrote are no tokens."""
    ends = sample_rows.turn_end_ids
    for answer in sampled_answers(sample_rows, sampled):
        first, ids = answer.row["response_start"], answer.row["ids"].tolist()
        inside = ids[first : len(ids) - len(ends)]
        at = _find(inside, ends)
        if at is not None:
            return failed(
                f"{answer.where}: token {at} of the answer ends the turn, and the answer goes on after it",
                "take the turn's end out of the answer's text",
            )
    written = _controls_written(reader, sample, sample_rows)
    way = reader.data.content_tokens
    if written and way == "allow":
        return warned(
            f"{len(written)} of {len(sample.records)} records have control tokens in what people wrote "
            f"({some(written)}), and data.content_tokens is 'allow': they are learned as tokens",
            "set data.content_tokens to 'escape'",
        )
    count = train_rows.counts["escaped"]
    return passed(
        f"no answer of {len(sampled)} ends inside; control tokens are in the content of {count} rows ({way})"
    )


def named_tokens_exist(reader: Reader, sample_rows: KDDataset, sampled: Rows) -> Finding:
    """The tokens that the tokenizer's settings name are in its vocabulary, and no padding is learned."""
    tokens = {name: text for name, text in reader.template.tokens.items() if text}
    for name, text in tokens.items():
        if _id_of(reader, text) is None:
            return failed(
                f"the tokenizer's settings name {name} {text!r}, which is no token of its vocabulary",
                "mend tokenizer_config.json beside data.tokenizer",
            )
    ends, pad = sample_rows.turn_end_ids, tokens.get("pad_token")
    pad_id = None if pad is None else _id_of(reader, pad)
    for index, row in zip(sample_rows.rows.tolist(), sampled, strict=True):
        learned = {int(token) for start, end in row["supervised"] for token in row["ids"][start:end]}
        if pad_id in learned and pad_id not in ends:
            return failed(
                f"{place(sample_rows, index)}: the padding token {pad!r} is inside what is learned",
                "take it out of the answer's text",
            )
    if pad is None:
        return passed(
            f"{len(tokens)} named tokens exist; none is for padding: the end of the turn pads the saved student"
        )
    both = (
        ", and also ends a turn: kdfast pads by the mask, so turn ends are learned" if pad_id in ends else ""
    )
    return passed(f"{len(tokens)} named tokens exist; {pad!r} pads{both}, and no padding is learned")


def turn_end_is_learned(sample_rows: KDDataset, sampled: Rows) -> Finding:
    """Every answer that was not cut ends with the end of its turn, and that is supervised."""
    ends, cut = sample_rows.turn_end_ids, 0
    for index, row in zip(sample_rows.rows.tolist(), sampled, strict=True):
        where, ids = place(sample_rows, index), row["ids"].tolist()
        if ids[-len(ends) :] != ends:
            if row["finish_reason"] != "length":
                return failed(f"{where}: the answer does not end its turn", _RENDER)
            cut += 1
            continue
        span = [len(ids) - len(ends), len(ids)]
        if span not in row["spans"]["turn_end"].tolist():
            return failed(f"{where}: the end of the turn is there, and not marked", _RENDER)
        if not any(start <= span[0] and span[1] <= end for start, end in row["supervised"].tolist()):
            return failed(
                f"{where}: the end of the turn is masked, so that the student never learns to stop", _RENDER
            )
    text = f"{len(sampled) - cut} of {len(sampled)} rows end with {sample_rows.tokenizer.decode(ends)!r}, and learn it"
    if cut == len(sampled):
        return warned(f"{text}: all answers were cut", "raise teacher.max_new_tokens, and ask again")
    return passed(text)


def _texts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts of a record, each with the key that it is under."""
    for key in ("prompt", "messages", "tools", "functions", *_ANSWERS):
        for text in _strings(record.get(key)):
            yield key, text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _question(record: Mapping[str, Any]) -> str | None:
    """The text of the last message before the answer; None = there are no messages, or it is not one text."""
    messages = list(record.get("messages") or ())
    if messages and messages[-1].get("role") == "assistant":
        messages.pop()
    content = messages[-1].get("content") if messages else None
    return content.strip() if isinstance(content, str) and content.strip() else None


def _controls_written(reader: Reader, sample: Sample, sample_rows: KDDataset) -> list[str]:
    """The control tokens that are in messages and tools of the sample."""
    tokens = {sample_rows.tokenizer.decode([token]) for token in sample_rows.turn_end_ids}
    tokens |= {text for text in reader.template.tokens.values() if text}
    written = [
        text
        for record in sample.records
        for key, text in _texts({key: record.get(key) for key in ("messages", "tools", "functions")})
    ]
    return sorted(token for token in tokens if any(token in text for text in written))


def _find(ids: list[int], wanted: list[int]) -> int | None:
    """Where one list of ids is in another; None = nowhere."""
    size = len(wanted)
    return next((at for at in range(len(ids) - size + 1) if ids[at : at + size] == wanted), None)


def _id_of(reader: Reader, text: str) -> int | None:
    """The id of a token's text; None = it is not one token."""
    special = reader.tokenizer.special_id(text)
    ids = reader.tokenizer.encode(text) if special is None else [special]
    return ids[0] if len(ids) == 1 else None


CHECKS = (
    Check(
        name="tokens.texts_come_back",
        proves="No character is lost or changed between text and tokens.",
        look=texts_come_back,
    ),
    Check(
        name="tokens.template_renders",
        proves="The chat template renders the records, last message included.",
        look=template_renders,
        owns=("reader",),
    ),
    Check(
        name="tokens.template_uses_the_tools",
        proves="The model sees every tool that it may call, or none where they are baked in.",
        look=template_uses_the_tools,
    ),
    Check(
        name="tokens.control_tokens_stay_text",
        proves="Control tokens that people wrote end no turn.",
        look=control_tokens_stay_text,
    ),
    Check(
        name="tokens.named_tokens_exist",
        proves="The tokens that the settings name exist, and padding is not learned.",
        look=named_tokens_exist,
    ),
    Check(
        name="tokens.turn_end_is_learned",
        proves="The student learns to stop.",
        look=turn_end_is_learned,
    ),
    Check(
        name="tokens.vocabularies_agree",
        proves="An id is the same token to tokenizer, student and teacher.",
        look=vocabularies_agree,
    ),
    Check(
        name="tokens.template_is_saved",
        proves="The saved student's template renders what training renders.",
        look=template_is_saved,
    ),
)
