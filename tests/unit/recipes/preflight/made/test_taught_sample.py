"""The fake teacher answers the sample: what is sent, what is kept of the user's config, and what comes out."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from asked_prompts import job_config
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_tokenizer

from kdfast.config import Config, PriceConfig
from kdfast.errors import DataError
from kdfast.recipes.preflight.facts import Sample, TaughtSample
from kdfast.recipes.preflight.looking.taught_answers import TaughtAnswers, answers_of
from kdfast.recipes.preflight.made.taught_sample import FAULTS, as_prompt, teach_quietly, teach_sample
from kdfast.recipes.requests import TeachRequest
from kdfast.teacher.api.fake_replies import FakeRequest
from kdfast.teacher.api.fake_server import Chooser, FakeServer
from kdfast.teacher.api.journal import Journal


def config(folder: Path, *, api: dict[str, Any] | None = None, **teacher: Any) -> Config:
    made = job_config({"max_new_tokens": 20, "budget": 0.5, **teacher}, {"timeout_seconds": 9, **(api or {})})
    tokenizer = write_tokenizer(folder / "tokenizer")
    return replace(made, data=replace(made.data, tokenizer=tokenizer, shapes=(256, 1024), threads=1))


def sample(*records: dict[str, Any], asked: bool = False) -> Sample:
    return Sample(records=records, lines=(), held_out=(), of=len(records), asked=asked)


def messages(prompt: str, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, *more]


def requests(taught: TaughtSample) -> list[dict[str, Any]]:
    """The bodies that were sent, in the order of the prompts."""
    files = taught.config.teacher.files
    assert files is not None
    with Journal(files.journal, read_only=True) as journal:
        found = [journal.request(answer.hash) for answer in journal.all_answers()]
    return [dict(one.body) for one in found if one is not None]


@pytest.mark.slow
def test_records_with_and_without_a_call_come_out(tmp_path: Path) -> None:
    taught = teach_sample(config(tmp_path), sample(*map(tiny_run.record, range(12))), tmp_path)
    assert taught.code == 0
    assert len(taught.records) == 12
    calls = [record["teacher_message"].get("tool_calls") for record in taught.records]
    assert [not call for call in calls] == [number % 4 == 3 for number in range(12)]
    assert set(taught.served) <= {"ok", *FAULTS}
    assert taught.served["ok"] == 12
    assert len(taught.served) > 1, "no fault was drawn"
    assert "12 written to" in taught.output
    found = answers_of(taught)
    assert found == TaughtAnswers(
        prompts=12, requests=12, unanswered=0, accepted=12, left_out=found.left_out, wrong=()
    )
    assert not found.left_out


@pytest.mark.slow
def test_files_price_and_server_are_the_jobs_own_and_the_rest_is_the_users(tmp_path: Path) -> None:
    extra = {"extra_body": {"top_p": 0.5}, "omit": ["seed"], "query": {"v": "1 a"}, "key_from_env": "NO_SUCH"}
    user = config(tmp_path, api=extra, redact=True, temperature=0.5, answers_per_prompt=3)
    taught = teach_sample(
        user, sample({"messages": messages("Write to ann@work.org, please.")}), tmp_path / "work"
    )
    (body,) = requests(taught)
    assert body["messages"] == messages("Write to [EMAIL_1], please.")
    assert (body["top_p"], body["max_tokens"], body["model"], "seed" in body) == (0.5, 20, "m", False)
    teacher, api = taught.config.teacher, taught.config.api
    assert (teacher.kind, teacher.budget, teacher.answers_per_prompt) == ("api", None, 1)
    assert (api.key_from_env, api.headers_from_env, api.hosted) == (None, None, False)
    assert taught.config.data.shapes == user.data.shapes
    written = {teacher.prompts, teacher.out, teacher.journal, *taught.config.data.train_files}
    assert all(path is not None and path.is_relative_to(tmp_path / "work/taught") for path in written)
    assert answers_of(taught).wrong == ()


@pytest.mark.slow
def test_an_answer_is_not_sent_and_a_truth_stays(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "SECRET of the teacher"}
    origin = {"request": "ab" * 32, "response": "cd" * 32}
    records = [
        {"messages": messages("One?"), "teacher_message": answer, "metadata": {"id": 1, "teacher": origin}},
        {
            "messages": messages("Two?"),
            "teacher_text": "SECRET",
            "finish_reason": "stop",
            "metadata": '{"id": 2}',
        },
        {"messages": messages("Three?", {"role": "assistant", "content": "truth"}), "tools": [tiny_run.TOOL]},
        {"prompt": "Four?", "truth_text": "truth", "teacher_prefix_ids": [1], "id": 4},
    ]
    taught = teach_sample(config(tmp_path), sample(*records), tmp_path)
    assert "SECRET" not in json.dumps(requests(taught)) + json.dumps(taught.records)
    assert [body["messages"] for body in requests(taught)] == [
        messages(text) for text in ("One?", "Two?", "Three?", "Four?")
    ]
    assert requests(taught)[2]["tool_choice"] == "none"
    assert [record["metadata"].get("id") for record in taught.records] == [1, 2, None, 4]
    assert taught.records[2]["truth_message"]["content"] == "truth"
    assert taught.records[0]["metadata"]["teacher"]["request"] != origin["request"]


@pytest.mark.slow
def test_records_that_are_no_prompts_are_asked_without_their_truth(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    system = {"role": "system", "content": "Your tools: f."}
    records = [
        {"messages": [system, *messages("One?")], "truth_message": said, "tool_should_be_used": True},
        {"messages": [system, *messages("Two?"), said]},
    ]
    taught = teach_sample(config(tmp_path), sample(*records), tmp_path)
    assert len(taught.records) == 2
    with pytest.raises(DataError, match="there are no tools"):
        teach_sample(config(tmp_path), sample(records[0], asked=True), tmp_path)


@pytest.mark.slow
def test_rendered_prompts_that_teach_nothing_are_asked_as_a_conversation(tmp_path: Path) -> None:
    user = config(tmp_path, api={"endpoint": "completions"})
    taught = teach_sample(user, sample(tiny_run.record(0), tiny_run.record(1)), tmp_path)
    assert (len(taught.records), taught.config.api.endpoint) == (2, "chat/completions")
    taught = teach_sample(user, sample({"messages": messages("Now?")}), tmp_path)
    assert (len(taught.records), taught.config.api.endpoint) == (1, "completions")
    assert "Now?" in requests(taught)[0]["prompt"]
    assert answers_of(taught).wrong == ()


@pytest.mark.slow
def test_what_cannot_be_learned_is_told_and_no_error(tmp_path: Path) -> None:
    asked = {"messages": messages("Now?"), "tools": [broken_tool()]}
    taught = teach_sample(config(tmp_path), sample(asked), tmp_path)
    assert (taught.code, taught.records) == (5, ())
    assert "no answer can be learned (schema_broken" in taught.output.replace("\n", " ")
    found = answers_of(taught)
    assert (found.accepted, dict(found.left_out), found.wrong) == (0, {"schema_broken": 1}, ())


def broken_tool() -> dict[str, Any]:
    """A tool whose argument the fake server does not get right."""
    properties = {"code": {"type": "string", "pattern": "^[0-9]{4}$"}}
    parameters = {"type": "object", "properties": properties, "required": ["code"]}
    return {"type": "function", "function": {"name": "open", "parameters": parameters}}


@pytest.mark.slow
def test_what_differs_from_the_server_is_told(tmp_path: Path) -> None:
    taught = teach_sample(config(tmp_path), sample(*map(tiny_run.record, range(3))), tmp_path)
    first, second, third = taught.records
    told = json.loads(json.dumps(second))
    told["teacher_message"]["tool_calls"][0]["function"]["arguments"] = {"city": "Nowhere"}
    lost = json.loads(json.dumps(third))
    lost["metadata"]["teacher"]["request"] = "00" * 32
    assert answers_of(replace(taught, records=(first, told, lost))).wrong == (
        "record 2 says something else than the server did",
        "record 3 is made from no answer in the journal",
    )


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ANY_RECORD = ANY_JSON | st.dictionaries(
    st.sampled_from(["messages", "prompt", "tools", "metadata", "truth_message", "teacher_text"]), ANY_JSON
)


@given(record=ANY_RECORD, asked=st.booleans())
def test_any_json_value_becomes_a_prompt_or_stays_for_the_reader_to_refuse(record: Any, asked: bool) -> None:
    found = as_prompt(record, asked=asked)
    if isinstance(record, dict):
        assert set(found) <= set(record) - {"teacher_text"}
    else:
        assert found is record


@pytest.mark.slow
def test_what_is_no_prompt_is_left_out(tmp_path: Path) -> None:
    good = {"messages": messages("Now?")}
    odd: list[Any] = [
        {"messages": [], "prompt": "x"},
        {"messages": [1, 2]},
        {"messages": "x"},
        None,
        [3],
        "\ud800",
    ]
    odd += [{"messages": messages("Now?"), "metadata": value} for value in ("[1]", "{", 5, "\ud800")]
    taught = teach_sample(config(tmp_path), sample(*odd, good), tmp_path)
    assert [record["messages"] for record in taught.records] == [good["messages"]]


def test_a_stop_is_a_stop(tmp_path: Path) -> None:
    def interrupt(_: FakeRequest) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "ok"

    folder = tmp_path / "job"
    folder.mkdir()
    lines = (json.dumps({"messages": messages(f"{number}?")}) + "\n" for number in range(20))
    (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    files = {"prompts": str(folder / "prompts.jsonl"), "out": str(folder / "out.jsonl")}
    with FakeServer(_once(interrupt), latency_s=0.05) as server:
        made = config(tmp_path, api={"base_url": server.url, "concurrency": 1}, budget=None, **files)
        with pytest.raises(KeyboardInterrupt):
            teach_quietly(replace(made, price=PriceConfig(free=True)), TeachRequest())
    assert 0 < server.seen.total() < 20


def _once(choose: Chooser) -> Chooser:
    """Only for the first request: a second signal would end the process."""
    return lambda request: "ok" if request.index else choose(request)
