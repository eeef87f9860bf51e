"""Calls: the runtime's own parser and its end of an answer, against kdfast's."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdfast._rust import find_tool_calls
from kdfast.errors import DataError
from kdfast.export.parity.conversation import api_messages, api_tools
from kdfast.export.parity.difference import CALLS, REFUSED, check_waivers
from kdfast.export.parity.forced import parse_answer
from kdfast.export.parity.prompts import shortened
from kdfast.export.parity.records import ParityRecord
from kdfast.export.parity.result import ParityCheck, Status
from kdfast.export.parity.same_calls import Calls, same_calls
from kdfast.scoring import thinking_after

if TYPE_CHECKING:
    from kdfast.llama_cpp.model import LlamaCppModel
    from kdfast.llama_cpp.server import ChatAnswer, LlamaCppServer

RECORDS = 12
"""Records that are answered at most, a quarter of them without a call in the right answer. One takes 1 to 3 s."""

MARGIN = 0.2
"""How far, in nats, the token that the server wrote must be below the runtime's own choice to count as changed by the
grammar. Tokens decoded together are rounded otherwise than one by one: below, that decides."""
_OF_THE_PARSER = (
    "equal", "missed", "forced_answers", "forced_with_calls", "forced_equal", "forced_refused",
)  # fmt: skip
"""Figures of the server's parser: where it is not asked, there are none."""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How answers are made and read.

    Attributes:
        formats: the call formats that count, see `kdfast.find_tool_calls`.
        end_ids: the token ids that end an answer in training.
        max_tokens: tokens of an answer at most.
        template_kwargs: variables of the chat template, as the serving client sends them.
        server_reads_calls: whether the server's parser is asked. With tools that are baked in, none are sent, and it
            reads no calls.
    """

    formats: Sequence[str]
    end_ids: Collection[int]
    max_tokens: int = 128
    template_kwargs: Mapping[str, Any] | None = None
    server_reads_calls: bool = True


@dataclass
class _Found:
    """What is counted.

    Attributes:
        answers: the student's answers that the server gave.
        with_calls: answers in which kdfast finds calls.
        equal: answers in which both find the same.
        cut: answers that the limit of tokens cut off: their calls are not compared.
        ended: answers that were not cut off.
        stopped_right: of these, those that end with training's end token, and hold none before.
        constrained: answers that differ from what the model writes without the server's grammar.
        forced: right answers that were parsed.
        forced_with_calls: those in which kdfast finds calls.
        forced_equal: those in which both find the same.
        forced_refused: right answers that the server does not take, so that its parser is not asked.
        forced_refusal: why, of the first one.
        missed: answers and right answers with calls in which the server finds none.
        first_missed: the first of them: what it is, and its begin.
        refused: records whose messages or tools the server refuses.
        refusal: the line of the first one, and why.
        problems: what is wrong.
    """

    answers: int = 0
    with_calls: int = 0
    equal: int = 0
    cut: int = 0
    ended: int = 0
    stopped_right: int = 0
    constrained: int | None = None
    forced: int = 0
    forced_with_calls: int = 0
    forced_equal: int = 0
    forced_refused: int = 0
    forced_refusal: str = ""
    missed: int = 0
    first_missed: str = ""
    refused: int = 0
    refusal: str = ""
    problems: list[str] = field(default_factory=list)


def check_calls(
    server: LlamaCppServer,
    runtime: LlamaCppModel | None,
    records: Sequence[ParityRecord],
    answering: Answering,
    *,
    waivers: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> ParityCheck:
    """Compares calls and ends in the student's answers, and calls in the records' right answers.

    A weak student writes few calls; the right answers show what the parser does with good ones.

    Args:
        server: serves the exported file.
        runtime: the same file; it tells how many answers the server's grammar changes. None = not counted.
        records: held-out records; some of them are used.
        answering: formats, end tokens and limits.
        waivers: "calls" accepts that llama.cpp does not parse the format at all, "refused" that the server refuses
            some records' messages. Wrong calls are never accepted.
        on_progress: called after every record with (records done, records in all).

    Raises:
        ConfigError: an unknown waiver.
        DataError: the server ended.
    """
    check_waivers(waivers)
    fitting = (
        records if runtime is None else [record for record in records if _fits(record, runtime, answering)]
    )
    chosen = choose(fitting, answering)
    if not chosen:
        reason = (
            "no held-out record that fits the context has messages without special tokens in their content"
        )
        return ParityCheck(name="calls", status="not_measured", reason=reason)
    found = _Found(constrained=None if runtime is None else 0)
    stops = set(answering.end_ids) if runtime is None else set(answering.end_ids) & runtime.end_ids
    found.problems += [
        f"the runtime does not stop at an end token of training: {end}"
        for end in sorted(set(answering.end_ids) - stops)
    ]
    end_id = min(stops or answering.end_ids)
    for done, record in enumerate(chosen, 1):
        answer = server.chat(
            api_messages(record.messages),
            api_tools(record.sent_tools) or None,
            max_tokens=answering.max_tokens,
            template_kwargs=answering.template_kwargs,
        )
        if answer.error is not None and _refuses(server, record, answering):
            found.refused += 1
            found.refusal = found.refusal or f"line {record.line}: {shortened(answer.error)}"
        else:
            _read_answer(answer, record, answering, found)
            if runtime is not None and found.constrained is not None:
                found.constrained += is_constrained(runtime, record, answer.tokens or ())
            if answering.server_reads_calls:
                _read_right_answer(server.url, record, answering, end_id, found)
        if on_progress is not None:
            on_progress(done, len(chosen))
    return _judge(found, answering, waivers)


def _refuses(server: LlamaCppServer, record: ParityRecord, answering: Answering) -> bool:
    """Whether it is the messages or the tools that the server refuses, and not the answer that its parser fails at."""
    tools = api_tools(record.sent_tools) or None
    try:
        server.apply_template(api_messages(record.messages), tools, answering.template_kwargs)
    except DataError:
        server.tokenize("")  # raises if the server is gone: that is no refusal
        return True
    return False


def _fits(record: ParityRecord, runtime: LlamaCppModel, answering: Answering) -> bool:
    longest = max(record.start + answering.max_tokens, len(record.ids) + 1)
    return longest <= runtime.context


def choose(records: Sequence[ParityRecord], answering: Answering) -> list[ParityRecord]:
    """Records whose right answers have calls, of each number of calls in turn, and some without."""
    groups: dict[int, list[ParityRecord]] = {}
    for record in records:
        if not record.plain_prompt and not record.special_in_content:
            groups.setdefault(len(_calls(record.answer, record, answering)), []).append(record)
    without = groups.pop(0, [])
    turns = max(map(len, groups.values()), default=0)
    calls = [group[turn] for turn in range(turns) for group in groups.values() if turn < len(group)]
    few = min(len(without), max(RECORDS // 4, RECORDS - len(calls)))
    return calls[: RECORDS - few] + without[:few]


def _calls(text: str, record: ParityRecord, answering: Answering) -> Calls:
    """The calls that kdfast finds in an answer to a record."""
    found = find_tool_calls(
        text,
        list(answering.formats),
        tools=json.dumps(record.tools) if record.tools else None,
        thinking=thinking_after(record.text),
    )
    return tuple((call.name, json.dumps(call.arguments, ensure_ascii=False)) for call in found)


def _read_answer(answer: ChatAnswer, record: ParityRecord, answering: Answering, found: _Found) -> None:
    if answer.error is not None:
        found.problems.append(f"the server gives no answer to line {record.line}: {shortened(answer.error)}")
        return
    if answer.raw_text is None or answer.tokens is None:
        found.problems.append(
            f"the server does not say what the model wrote for line {record.line}, so that nothing is compared; take "
            "another version of xllamacpp"
        )
        return
    found.answers += 1
    _read_end(answer, record, answering, found)
    if answer.finish_reason == "length":
        found.cut += 1
    else:
        ours = _calls(answer.raw_text, record, answering)
        found.with_calls += bool(ours)
        if not answering.server_reads_calls:
            return
        what = f"the answer to line {record.line}"
        found.equal += _compare(ours, answer.tool_calls, what, answer.raw_text, found)


def _read_end(answer: ChatAnswer, record: ParityRecord, answering: Answering, found: _Found) -> None:
    """Checks that the answer ends with training's end token, and that the server did not run on beyond one."""
    tokens = answer.tokens or ()
    early = [at for at, token in enumerate(tokens[:-1]) if token in answering.end_ids]
    stopped = answer.finish_reason != "length"
    found.ended += stopped
    place = f"the answer to line {record.line}"
    if early:
        found.problems.append(
            f"the runtime does not stop at training's end token {tokens[early[0]]}: {place} goes on after token "
            f"{early[0]}; the file must name it as an end token"
        )
    elif stopped and (not tokens or tokens[-1] not in answering.end_ids):
        last = f"after token {tokens[-1]}" if tokens else "at once"
        ends = ", ".join(map(str, sorted(answering.end_ids)))
        found.problems.append(f"the runtime stops where training does not ({ends}): {place} ends {last}")
    else:
        found.stopped_right += stopped


def is_constrained(runtime: LlamaCppModel, record: ParityRecord, tokens: Sequence[int]) -> bool:
    """Whether the runtime by itself would clearly choose another token somewhere in the server's answer.

    Args:
        runtime: the served file.
        record: what was answered.
        tokens: the ids of the answer.
    """
    if not tokens:
        return False
    runtime.clear()
    rows = [runtime.decode(record.prompt_ids)]  # [1,V]
    if tokens[1:]:
        rows.append(runtime.decode(tokens[:-1], every=True))  # [n-1,V]
    pairs = zip((row for part in rows for row in part), tokens, strict=True)
    return any(row.max() - row[token] > MARGIN for row, token in pairs)


def _read_right_answer(
    url: str, record: ParityRecord, answering: Answering, end_id: int, found: _Found
) -> None:
    parsed = parse_answer(
        url,
        api_messages(record.messages),
        api_tools(record.sent_tools),
        record.answer,
        end_id=end_id,
        template_kwargs=answering.template_kwargs,
    )
    if parsed.refused:
        found.forced_refused += 1
        found.forced_refusal = found.forced_refusal or parsed.error or "the server gives no reason"
        return
    ours = _calls(record.answer, record, answering)
    found.forced += 1
    found.forced_with_calls += bool(ours)
    what = f"the right answer of line {record.line}"
    if parsed.error is not None and not ours:
        found.problems.append(f"the server's parser fails at {what}: {shortened(parsed.error)}")
        return
    found.forced_equal += _compare(ours, parsed.calls, what, record.answer, found)


def _compare(ours: Calls, theirs: Calls, what: str, text: str, found: _Found) -> bool:
    """Whether both found the same calls. Where the server finds none, it is counted apart."""
    if same_calls(ours, theirs):
        return True
    if not theirs:
        found.missed += 1
        found.first_missed = found.first_missed or f"{what}: {text[:80]!r}"
        return False
    found.problems.append(f"other calls in {what}: kdfast finds {_shown(ours)}, llama.cpp {_shown(theirs)}")
    return False


def _shown(calls: Calls) -> str:
    return ", ".join(f"{name}({arguments})" for name, arguments in calls)[:200] or "none"


def _judge(found: _Found, answering: Answering, waivers: Collection[str]) -> ParityCheck:
    figures: dict[str, Any] = {
        name: getattr(found, name)
        for name in ("answers", "with_calls", "equal", "cut", "ended", "stopped_right")
    }
    figures |= {"forced_answers": found.forced, "forced_with_calls": found.forced_with_calls}
    figures |= {"forced_equal": found.forced_equal, "forced_refused": found.forced_refused}
    figures |= {"missed": found.missed, "refused": found.refused}
    if not answering.server_reads_calls:
        figures = {name: value for name, value in figures.items() if name not in _OF_THE_PARSER}
        figures["tools_sent"] = False
    if found.constrained is not None:
        figures["constrained"] = found.constrained
    accepted = {REFUSED: _refused(found), CALLS: _unparsed(found)}
    problems = [*found.problems, *_missed(found)]
    problems += [
        f"{text}; accept that with the waiver {name}"
        for name, text in accepted.items()
        if text and name not in waivers
    ]
    status: Status = "waived" if any(accepted.values()) else "passed"
    read = answering.server_reads_calls
    measured = (found.with_calls or found.forced_with_calls) if read else found.ended
    return ParityCheck(
        name="calls",
        status="failed" if problems else (status if measured else "not_measured"),
        figures=figures,
        problems=tuple(problems),
        reason="; ".join(_reasons(found, answering)),
    )


def _refused(found: _Found) -> str:
    """That the server refuses records; "" = it takes all."""
    if not found.refused:
        return ""
    count = "1 record" if found.refused == 1 else f"{found.refused} records"
    return f"the server refuses the messages or the tools of {count}; the first is {found.refusal}"


def _missed(found: _Found) -> list[str]:
    """That the server finds some calls and not others."""
    compared = found.with_calls + found.forced_with_calls
    if not 0 < found.missed < compared:
        return []
    return [
        f"llama.cpp finds no call in {found.missed} of {compared} answers in which kdfast finds some; the first is "
        f"{found.first_missed}"
    ]


def _unparsed(found: _Found) -> str:
    """That the server finds no call anywhere; "" = it finds some, or there is none."""
    if not found.missed or found.missed < found.with_calls + found.forced_with_calls:
        return ""
    return (
        "llama.cpp does not parse this format of calls: it finds none in any answer. A client must take the answer's "
        f"text and find the calls itself, with kdfast.find_tool_calls; the first is {found.first_missed}"
    )


def _reasons(found: _Found, answering: Answering) -> list[str]:
    """What could not be measured, and why."""
    reasons = []
    if found.refused and not found.answers:
        reasons.append(f"the answers are not measured: {_refused(found)}")
    elif (
        answering.server_reads_calls
        and not found.problems
        and not (found.with_calls or found.forced_with_calls)
    ):
        reasons.append("the calls are not measured: no answer has one")
    if found.forced_refused and not found.forced:
        reasons.append(f"right answers are not measured: {shortened(found.forced_refusal)}")
    if found.answers and found.cut == found.answers:
        many = f"all {found.cut} were" if found.cut > 1 else "the only one was"
        reasons.append(f"where answers end is not measured: {many} cut at {answering.max_tokens} tokens")
    return reasons
