"""What a teacher is asked where tools are baked in: a local one reads the student's prompt, a server gets tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from local_jobs import write_job
from tiny_run import TOOL, record

from kdfast._rust import Tokenizer
from kdfast.config import ApiConfig, Config, PriceConfig
from kdfast.config.teacher import TeachFiles
from kdfast.data import KDDataset
from kdfast.recipes.teach.plan import plan

NUMBERS = range(4)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("job")
    made = write_job(
        folder, kind="local", prompts=str(folder / "prompts.jsonl"), out=str(folder / "out.jsonl")
    )
    lines = [{key: record(number)[key] for key in ("messages", "tools")} for number in NUMBERS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return replace(made, data=replace(made.data, show_tools=False))


def files(config: Config) -> TeachFiles:
    found = config.teacher.files
    assert found is not None
    return found


def test_a_local_teacher_reads_what_the_student_will(config: Config, tmp_path: Path) -> None:
    made = plan(config, files(config))
    answered = tmp_path / "answered.jsonl"
    answered.write_text("".join(json.dumps(record(number)) + "\n" for number in NUMBERS))
    rows = KDDataset.from_config(replace(config.data, cache=tmp_path / "cache"), answered)
    expected = {rows.store.line(row): rows.store.prompt_ids(row).tolist() for row in range(len(rows.store))}
    assert {one.prompt.line: one.request.body["prompt"] for one in made.asked} == expected
    tokenizer = Tokenizer.from_file(config.data.tokenizer)
    for one in made.asked:
        assert "get_weather" not in tokenizer.decode(one.request.body["prompt"])
        assert list(one.prompt.tools) == [TOOL]  # its answer is checked with them


def test_a_server_is_sent_the_tools(config: Config) -> None:
    """It never learned them."""
    api = ApiConfig(base_url="http://127.0.0.1:8080/v1", model="m")
    asking = replace(
        config, api=api, price=PriceConfig(free=True), teacher=replace(config.teacher, kind="api")
    )
    made = plan(asking, files(asking))
    assert [one.prompt.line for one in sorted(made.asked, key=lambda one: one.prompt.line)] == [1, 2, 3, 4]
    for one in made.asked:
        body = one.request.body
        (tool,) = body["tools"]
        assert tool["function"]["name"] == "get_weather"
        assert tool["function"]["parameters"] == TOOL["function"]["parameters"]
        assert body["tool_choice"] == "auto"
        assert body["messages"] == record(one.prompt.index)["messages"]


def test_answers_with_and_without_tools_in_the_prompt_are_kept_apart(config: Config) -> None:
    shown = replace(config, data=replace(config.data, show_tools=True))
    hidden = {one.request.hash for one in plan(config, files(config)).asked}
    assert hidden.isdisjoint(one.request.hash for one in plan(shown, files(shown)).asked)


def test_the_tools_that_a_server_is_sent_are_counted(config: Config) -> None:
    """Else the estimate of a job with many tools would be a fraction of its cost."""
    api = ApiConfig(base_url="http://127.0.0.1:8080/v1", model="m")
    asking = replace(
        config, api=api, price=PriceConfig(free=True), teacher=replace(config.teacher, kind="api")
    )
    tokenizer = Tokenizer.from_file(config.data.tokenizer)
    local = {one.prompt.line: one.input_tokens for one in plan(config, files(config)).asked}
    for one in plan(asking, files(asking)).asked:
        tools = len(tokenizer.encode(json.dumps(one.request.body["tools"], ensure_ascii=False)))
        assert tools > 50
        assert one.input_tokens == local[one.prompt.line] + tools
