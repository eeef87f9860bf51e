"""A prompt and a config give one request, and always the same one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from kdfast._rust import ChatTemplate, Tokenizer
from kdfast.config import config_from_dict
from kdfast.errors import ConfigError, DataError
from kdfast.teacher.api.body import (
    RequestSettings,
    request_of,
    worst_input_tokens,
    worst_output_tokens,
)
from kdfast.teacher.api.journal import Request
from kdfast.teacher.prompts import Prompt

Json = dict[str, Any]
TOOL = {"name": "math.sum", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
USER = {"role": "user", "content": "q"}


def prompt(**fields: Any) -> Prompt:
    return Prompt(source=Path("p.jsonl"), line=7, index=3, **({"messages": [USER]} | fields))


def settings(**fields: Any) -> RequestSettings:
    return RequestSettings(base_url="http://localhost/v1", model="m", **fields)


def body(given: Prompt | None = None, sample: int = 0, text: str | None = None, **fields: Any) -> Json:
    return dict(request_of(given or prompt(), sample, settings(**fields), text=text)[0].body)


PLAIN = {"model": "m", "messages": [USER], "max_tokens": 512, "temperature": 0.0}


def test_without_tools() -> None:
    assert body() == PLAIN
    assert body(prompt(tool_choice="required", parallel_tool_calls=True)) == PLAIN
    assert body(prompt(messages=None, prompt="q")) == PLAIN


def test_with_tools_the_names_agree_everywhere() -> None:
    call = {"function": {"name": "math.sum", "arguments": {"a": 1}}}
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "name": "math.sum", "content": "1"},
    ]
    asked = prompt(
        messages=messages, tools=[TOOL], tool_choice={"name": "math.sum"}, parallel_tool_calls=False
    )
    request, names = request_of(asked, 0, settings())
    made = request.body
    name = made["tools"][0]["function"]["name"]
    assert name != "math.sum"
    assert names.own(name) == "math.sum"
    assert made["tool_choice"] == {"type": "function", "function": {"name": name}}
    assert made["parallel_tool_calls"] is False
    assert made["messages"][1]["tool_calls"][0]["function"] == {"name": name, "arguments": '{"a":1}'}
    assert made["messages"][2]["name"] == name
    assert "math.sum" not in json.dumps(made)


def test_the_template_is_in_the_hash_of_what_it_rendered_alone() -> None:
    def hashed(endpoint: str, template: str | None) -> str:
        made = settings(endpoint=endpoint, template=template)
        return request_of(prompt(), 0, made, text="rendered")[0].hash

    assert len({hashed("completions", one) for one in (None, "5eed", "70c3")}) == 3
    assert len({hashed("chat/completions", one) for one in (None, "5eed", "70c3")}) == 1


def test_tool_choice() -> None:
    assert body(prompt(tools=[TOOL]))["tool_choice"] == "auto"
    assert body(prompt(tools=[TOOL], tool_choice="none"))["tool_choice"] == "none"
    assert "parallel_tool_calls" not in body(prompt(tools=[TOOL]))
    named = {"type": "function", "function": {"name": "math.sum"}}
    made = body(prompt(tools=[TOOL]), extra_body={"tool_choice": named})
    assert made["tool_choice"]["function"]["name"] == made["tools"][0]["function"]["name"]


def test_sampling() -> None:
    assert "seed" not in body(seed=5)
    made = body(sample=2, seed=5, temperature=0.7, max_new_tokens=9, max_tokens_key="max_completion_tokens")
    assert made == {
        "model": "m",
        "messages": [USER],
        "max_completion_tokens": 9,
        "temperature": 0.7,
        "seed": 7,
    }
    assert body(top_logprobs=4) == {**PLAIN, "logprobs": True, "top_logprobs": 4}


def test_what_the_config_adds_and_takes_away() -> None:
    added = {"temperature": 1, "top_p": 0.9, "provider": {"order": ["x"]}}
    assert body(extra_body=added, omit=("max_tokens", "top_p")) == {
        "model": "m",
        "messages": [USER],
        "temperature": 1,
        "provider": {"order": ["x"]},
    }


def test_completions() -> None:
    made = body(text="<|im_start|>q", endpoint="completions", top_logprobs=5)
    assert made == {
        "model": "m",
        "prompt": "<|im_start|>q",
        "max_tokens": 512,
        "temperature": 0.0,
        "logprobs": 5,
    }
    with pytest.raises(ValueError, match="give the rendered prompt"):
        body(endpoint="completions")


def test_the_request_around_the_body() -> None:
    made = settings(query={"api-version": "1"}, headers=("a", "b"), answers_per_prompt=4)
    request, _ = request_of(prompt(), 2, made)
    assert request.endpoint == "http://localhost/v1/chat/completions"
    assert (request.sample, request.order) == (2, 14)
    assert request.context == {"query": {"api-version": "1"}, "headers": ["a", "b"]}
    assert request_of(prompt(), 0, settings())[0].context == {}


@pytest.mark.parametrize(
    "wrong", [{"messages": [{"role": "user", "content": "half \ud800"}]}, {"tools": [{"name": ""}]}]
)
def test_a_prompt_that_cannot_be_sent(wrong: Json) -> None:
    with pytest.raises(DataError, match=r"p\.jsonl:7: the prompt cannot be sent"):
        body(prompt(**wrong))


def config(**api: Any) -> Any:
    sections = {
        "arch": {"init": "m"},
        "data": {"train": "t.jsonl", "tokenizer": "m"},
        "io": {"run_dir": "r"},
        "api": {"base_url": "http://localhost/v1/", "model": "m", **api},
        "teacher": {"temperature": 0.5, "seed": 3, "answers_per_prompt": 2, "max_new_tokens": 7},
    }
    return config_from_dict(sections)


def test_settings_of_a_config() -> None:
    names = {"X-Two": "TWO", "api-key": "ONE"}
    made = RequestSettings.of(config(headers_from_env=names, query={"v": 1}, omit=["seed"], top_logprobs=2))
    assert made == RequestSettings(
        base_url="http://localhost/v1/",
        model="m",
        query={"v": 1},
        headers=("api-key", "x-two"),
        omit=("seed",),
        top_logprobs=2,
        max_new_tokens=7,
        temperature=0.5,
        seed=3,
        answers_per_prompt=2,
    )


@pytest.mark.parametrize("key", ["base_url", "model"])
def test_what_a_config_must_say(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^api\.{key}: required"):
        RequestSettings.of(config(**{key: None}))


def test_a_stream_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^api\.extra_body\.stream"):
        RequestSettings.of(config(extra_body={"stream": True}))


@pytest.mark.parametrize(
    ("added", "most"),
    [
        ({}, 512),
        ({"n": 3}, 1536),
        ({"max_completion_tokens": 600}, 600),
        ({"max_tokens": 9, "best_of": 2}, 18),
    ],
)
def test_the_most_tokens_of_an_answer(added: Json, most: int) -> None:
    made = settings(extra_body=added)
    assert worst_output_tokens(request_of(prompt(), 0, made)[0], made) == most


def test_an_answer_without_a_limit() -> None:
    made = settings(omit=("max_tokens",))
    with pytest.raises(ConfigError, match=r"^api\.omit: leave max_tokens"):
        worst_output_tokens(request_of(prompt(), 0, made)[0], made)


SCRIPT = """
from pathlib import Path
from kdfast.teacher.api.body import RequestSettings, request_of
from kdfast.teacher.prompts import Prompt
call = {"function": {"name": "b.c", "arguments": {"z": 1.0, "a": "é"}}}
messages = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call, call]}]
prompt = Prompt(source=Path("p"), line=1, index=0, messages=messages, tools=[{"name": "b.c"}, {"name": "a.c"}])
settings = RequestSettings(base_url="http://localhost", model="m", temperature=0.1)
request, _ = request_of(prompt, 1, settings)
import sys
print(request.hash, "torch" in sys.modules, "transformers" in sys.modules)
"""


def test_every_process_makes_the_same_bytes_and_loads_no_torch() -> None:
    """A journal of today must know the requests of tomorrow: another hash asks, and pays, for everything again."""
    made = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert made == "08361a57accba066f8959aa0cef864df916123bb026db9bc607ffea48c58cd0d False False\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Its vocabulary is hardly more than the single bytes: few texts have more tokens."""
    return Tokenizer.from_file(tiny.write_tokenizer(tmp_path_factory.mktemp("t"), 260) / "tokenizer.json")


texts = st.text('aé \n"\\<\U0001f600', max_size=20)


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, max_size=2))
def test_no_prompt_has_more_tokens_than_the_worst_case(
    tokenizer: Tokenizer, said: list[str], about: list[str]
) -> None:
    messages = [{"role": "user", "content": text} for text in said]
    tools = [{"name": f"f{n}", "description": text} for n, text in enumerate(about)]
    request, _ = request_of(prompt(messages=messages, tools=tools), 0, settings())
    rendered = ChatTemplate(tiny.CHATML).render(json.dumps(messages, ensure_ascii=False))
    if tools:
        rendered += json.dumps(request.body["tools"], ensure_ascii=False)
    assert len(tokenizer.encode(rendered)) <= worst_input_tokens(request)
    raw, _ = request_of(prompt(), 0, settings(endpoint="completions"), text=rendered)
    assert len(tokenizer.encode(rendered)) <= worst_input_tokens(raw)
    assert worst_input_tokens(Request("http://localhost", {})) == 64
