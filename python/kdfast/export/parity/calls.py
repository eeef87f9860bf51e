"""Calls: the runtime's own parser and its end of an answer, against kdfast's."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdfast._rust import find_tool_calls
from kdfast.export.parity.conversation import api_messages, api_tools
from kdfast.export.parity.difference import CALLS, check_waivers
from kdfast.export.parity.forced import parse_answer
from kdfast.export.parity.records import ParityRecord
from kdfast.export.parity.result import ParityCheck, Status
from kdfast.scoring import thinking_after

if TYPE_CHECKING:
    from kdfast.llama_cpp.model import LlamaCppModel
    from kdfast.llama_cpp.server import ChatAnswer, LlamaCppServer

RECORDS = 12
"""Records that are answered at most, a quarter of them without a call in the right answer. One takes 1 to 3 s."""

Calls = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How answers are made and read.

    Attributes:
        formats: the call formats that count, see `kdfast.find_tool_calls`.
        end_ids: the token ids that end an answer in training.
        max_tokens: tokens of an answer at most.
        template_kwargs: variables of the chat template, as the serving client sends them.
    """

    formats: Sequence[str]
    end_ids: Collection[int]
    max_tokens: int = 128
    template_kwargs: Mapping[str, Any] | None = None


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
        missed: answers and right answers with calls in which the server finds none.
        refused: why the server does not parse given answers; "" = it does.
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
    missed: int = 0
    refused: str = ""
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
        waivers: "calls" accepts that llama.cpp does not parse the format at all. Wrong calls are never accepted.
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
            api_tools(record.tools) or None,
            max_tokens=answering.max_tokens,
            template_kwargs=answering.template_kwargs,
        )
        _read_answer(answer, record, answering, found)
        if runtime is not None and found.constrained is not None:
            found.constrained += _is_constrained(runtime, record, answer.tokens or ())
        _read_right_answer(server.url, record, answering, end_id, found)
        if on_progress is not None:
            on_progress(done, len(chosen))
    return _judge(found, waivers)


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
        found.problems.append(f"the server gives no answer to line {record.line}: {answer.error[:200]}")
        return
    found.answers += 1
    if answer.tokens is not None:
        _read_end(answer, record, answering, found)
    if answer.finish_reason == "length":
        found.cut += 1
    elif answer.raw_text is not None:
        ours = _calls(answer.raw_text, record, answering)
        found.with_calls += bool(ours)
        found.equal += _compare(ours, answer.tool_calls, f"the answer to line {record.line}", found)


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


def _is_constrained(runtime: LlamaCppModel, record: ParityRecord, tokens: Sequence[int]) -> bool:
    """Whether the runtime would choose another token somewhere in the server's answer, without the server."""
    if not tokens:
        return False
    runtime.clear()
    rows = [runtime.decode(record.prompt_ids)]  # [1,V]
    if tokens[1:]:
        rows.append(runtime.decode(tokens[:-1], every=True))  # [n-1,V]
    return [int(token) for part in rows for token in part.argmax(axis=1)] != list(tokens)


def _read_right_answer(
    url: str, record: ParityRecord, answering: Answering, end_id: int, found: _Found
) -> None:
    if found.refused:
        return
    parsed = parse_answer(
        url,
        api_messages(record.messages),
        api_tools(record.tools),
        record.answer,
        end_id=end_id,
        template_kwargs=answering.template_kwargs,
    )
    if parsed.refused:
        found.refused = parsed.error or "the server gives no reason"
        return
    ours = _calls(record.answer, record, answering)
    found.forced += 1
    found.forced_with_calls += bool(ours)
    what = f"the right answer of line {record.line}"
    if parsed.error is not None and not ours:
        found.problems.append(f"the server's parser fails at {what}: {parsed.error[:200]}")
        return
    found.forced_equal += _compare(ours, parsed.calls, what, found)


def _compare(ours: Calls, theirs: Calls, what: str, found: _Found) -> bool:
    """Whether both found the same calls. Where the server finds none, it is counted apart."""
    if same_calls(ours, theirs):
        return True
    if not theirs:
        found.missed += 1
        return False
    found.problems.append(f"other calls in {what}: kdfast finds {_shown(ours)}, llama.cpp {_shown(theirs)}")
    return False


def same_calls(ours: Calls, theirs: Calls) -> bool:
    """Whether calls have the same names and the same arguments, as JSON values.

    Examples:
        >>> same_calls((("f", '{"a": 1.0, "b": [true]}'),), (("f", '{"b":[true],"a":1}'),))
        True
        >>> same_calls((("f", '{"a": true}'),), (("f", '{"a": 1}'),))
        False
    """
    return [_value(*call) for call in ours] == [_value(*call) for call in theirs]


def _value(name: str, arguments: str) -> tuple[str, str]:
    """A call in one form for all ways to write it. Arguments that are no JSON stay text."""
    try:
        value = json.loads(arguments, parse_float=lambda text: _whole(float(text)))
    except ValueError:
        return name, arguments
    return name, json.dumps(value, sort_keys=True)


def _whole(number: float) -> float | int:
    return int(number) if number.is_integer() else number


def _shown(calls: Calls) -> str:
    return ", ".join(f"{name}({arguments})" for name, arguments in calls)[:200] or "none"


def _judge(found: _Found, waivers: Collection[str]) -> ParityCheck:
    figures: dict[str, Any] = {
        name: getattr(found, name)
        for name in ("answers", "with_calls", "equal", "cut", "ended", "stopped_right")
    }
    figures |= {"forced_answers": found.forced, "forced_with_calls": found.forced_with_calls}
    figures |= {"forced_equal": found.forced_equal, "missed": found.missed}
    if found.constrained is not None:
        figures["constrained"] = found.constrained
    problems = list(found.problems)
    status: Status = "passed"
    compared = found.with_calls + found.forced_with_calls
    if found.missed and found.missed < compared:
        problems.append(
            f"llama.cpp finds no call in {found.missed} of {compared} answers in which kdfast finds some"
        )
    elif found.missed:
        unparsed = (
            "llama.cpp does not parse this format of calls: it finds none in any right answer. A client must take the "
            "answer's text and find the calls itself, with kdfast.find_tool_calls"
        )
        status = "waived" if CALLS in waivers else "failed"
        if status == "failed":
            problems.append(f"{unparsed}; accept that with the waiver {CALLS}")
    return _check(figures, problems, status, found.refused)


def _check(figures: dict[str, Any], problems: list[str], status: Status, refused: str) -> ParityCheck:
    reason = f"right answers are not measured: {refused[:200]}" if refused else ""
    if not problems and not figures["with_calls"] and not figures["forced_with_calls"]:
        none = "the calls are not measured: no answer has one"
        return ParityCheck(name="calls", status="not_measured", figures=figures, reason=reason or none)
    return ParityCheck(
        name="calls",
        status="failed" if problems else status,
        figures=figures,
        problems=tuple(problems),
        reason=reason,
    )
