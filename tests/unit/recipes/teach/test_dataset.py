"""`teacher.out`, made from a journal: which answers are in it, and what the journal says of the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import journals
import pytest
from tiny import write_tokenizer
from tiny_run import TOOL

from kdfast.config import DataConfig
from kdfast.data.token_rows import Reader
from kdfast.recipes.teach.dataset import Written, write_dataset
from kdfast.teacher.api.journal import Answer, Journal, Request, Verdict
from kdfast.teacher.api.usage import Usage
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt, Truth
from kdfast.teacher.reading import DUPLICATE, NOT_LEARNABLE, Reading

ACCEPTED = Verdict("accepted")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("tokenizer")
    data = DataConfig(train=folder / "none", tokenizer=write_tokenizer(folder), shapes=(256,), threads=1)
    return Reader.of(data)


@pytest.fixture
def journal() -> Iterator[Journal]:
    with journals.quick_folder() as folder, Journal(folder / "answers.db") as made:
        yield made


def asked(index: int, text: str, *, question: int | None = None, sample: int = 0, **keys: Any) -> Asked:
    """A request whose answer is `text`; requests of one question and sample are the same request."""
    number = index if question is None else question
    body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
    prompt = Prompt(
        source=Path("prompts.jsonl"), line=index + 1, index=index, prompt=f"question {number}", **keys
    )
    request = Request(journals.ENDPOINT, body, sample, order=2 * index + sample)
    return Asked(prompt=prompt, request=request, input_tokens=2)


def store(journal: Journal, one: Asked, text: str) -> None:
    if journal.answered(one.request.hash) is None:
        answer = journals.answered(journal, one.request, text)
        journal.set_cost(answer, 7)
        journal.set_verdict(answer, ACCEPTED)


def read(_: Asked, answer: Answer) -> Reading:
    """What is in the body is accepted, or filtered if it begins with `no`; numbers after `#` are log-probabilities."""
    text, _, number = answer.body.decode().partition("#")
    usage = Usage(input_tokens=2, output_tokens=1)
    if text.startswith("no"):
        return Reading(verdict=Verdict("filtered", "cut"), detail="the limit", usage=usage, cost_micro=99)
    keys: dict[str, Any] = {"teacher_text": text}
    if number:
        keys["teacher_topk"] = {"ids": [[1]] * int(number), "logprobs": [[-0.5]] * int(number)}
    return Reading(verdict=ACCEPTED, answer=keys, usage=usage, cost_micro=99)


@pytest.fixture
def write(
    journal: Journal, reader: Reader, tmp_path: Path
) -> Callable[..., tuple[Written, list[dict[str, Any]]]]:
    def written(
        *pairs: tuple[Asked, str], shapes: tuple[int, ...] = (256,)
    ) -> tuple[Written, list[dict[str, Any]]]:
        for one, text in pairs:
            store(journal, one, text)
        used = replace(reader, data=replace(reader.data, shapes=shapes))
        out = tmp_path / "out.jsonl"
        made = write_dataset([one for one, _ in pairs], journal, read, used, out)
        return made, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return written


def verdict(journal: Journal, one: Asked) -> Verdict | None:
    answer = journal.answered(one.request.hash)
    assert answer is not None
    assert answer.cost_micro == 7, "what was paid is never priced anew"
    return answer.verdict


def test_the_order_of_the_file_and_where_an_answer_is_from(journal: Journal, write: Any) -> None:
    late, early = asked(5, "Late."), asked(1, "Early.", metadata={"id": 3}, truth=Truth(text="Right."))
    made, records = write((late, "Late."), (early, "Early."))
    assert [record["teacher_text"] for record in records] == ["Early.", "Late."]
    assert (records[0]["truth_text"], records[0]["metadata"]["id"]) == ("Right.", 3)
    found = journal.answered(early.request.hash)
    assert found is not None
    origin = records[0]["metadata"]["teacher"]
    assert (origin["request"], origin["response"]) == (found.hash, found.digest)
    assert len(origin["template"]) == 64
    assert (made.records, made.unanswered, made.left_out) == (2, 0, {})


def test_what_is_left_out_is_counted_and_noted(journal: Journal, write: Any) -> None:
    bad, long, good = asked(0, ""), asked(1, ""), asked(2, "")
    made, records = write(
        (bad, "no"),
        (long, "long " * 400),
        (good, "Yes."),
    )
    assert [record["prompt"] for record in records] == ["question 2"]
    assert dict(made.left_out) == {Verdict("filtered", "cut"): 1, NOT_LEARNABLE: 1}
    assert made.examples[Verdict("filtered", "cut")] == "prompts.jsonl:1: the limit"
    assert made.examples[NOT_LEARNABLE].startswith("prompts.jsonl:2: does not fit")
    assert [verdict(journal, one) for one in (bad, long, good)] == [
        Verdict("filtered", "cut"),
        NOT_LEARNABLE,
        ACCEPTED,
    ]
    # with a larger shape it can be learned after all, and the journal says so
    made, records = write((long, ""), shapes=(4096,))
    assert (made.records, verdict(journal, long)) == (1, ACCEPTED)


def test_the_same_answer_twice_is_one_record(journal: Journal, reader: Reader, write: Any) -> None:
    first, second, third = asked(0, ""), asked(0, "", sample=1), asked(0, "", sample=2)
    tokens = len(reader.tokenizer.encode("Yes."))
    made, records = write((first, f"Yes.#{tokens}"), (second, "Yes."), (third, "No."))
    assert [record["teacher_text"] for record in records] == ["Yes.", "No."]
    assert dict(made.left_out) == {DUPLICATE: 1}
    assert [verdict(journal, one) for one in (first, second, third)] == [ACCEPTED, DUPLICATE, ACCEPTED]
    assert made.with_logprobs == 1


def test_two_prompts_that_share_a_request_do_not_make_its_verdict_flip(journal: Journal, write: Any) -> None:
    one, other = asked(0, "", question=0), asked(1, "", question=0)
    for _ in range(2):
        made, _ = write((one, "Yes."), (other, "Yes."))
        assert (made.records, dict(made.left_out)) == (1, {DUPLICATE: 1})
        assert verdict(journal, one) == ACCEPTED


def test_without_a_record_the_file_stays_as_it_is(journal: Journal, write: Any, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text('{"old": 1}\n')
    made, records = write((asked(0, ""), "no"))
    assert made.records == 0
    assert records == [{"old": 1}]


def test_what_is_not_answered_is_counted(journal: Journal, reader: Reader, tmp_path: Path) -> None:
    made = write_dataset([asked(0, ""), asked(1, "")], journal, read, reader, tmp_path / "out.jsonl")
    assert (made.records, made.unanswered) == (0, 2)


def test_tools_are_read_as_training_reads_them(journal: Journal, write: Any) -> None:
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": 3}}</tool_call>'
    one = asked(0, "", tools=[TOOL])
    made, _ = write((one, call))
    assert dict(made.left_out) == {NOT_LEARNABLE: 1}
    assert "breaks its tool's schema" in made.examples[NOT_LEARNABLE]
