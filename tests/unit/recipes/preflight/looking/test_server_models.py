"""Asking a server for its models: what comes back, whatever it is, and that no key is in it."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from teach_jobs import KEY, RawServer

from kdfast.config import ApiConfig
from kdfast.config.loader import config_from_dict
from kdfast.errors import TeacherError
from kdfast.recipes.preflight.checks_teacher import of_status
from kdfast.recipes.preflight.looking.server_models import Listed, list_models
from kdfast.teacher.api.fake_replies import FakeRequest, http_response
from kdfast.teacher.api.fake_server import FakeServer
from kdfast.teacher.api.secrets_from_env import Secrets

MODELS = json.dumps({"object": "list", "data": [{"id": "a"}, {"id": 3}, None, {"id": "b/c"}]}).encode()


def test_the_names_of_a_list() -> None:
    with RawServer([http_response(200, MODELS)]) as server:
        api = ApiConfig(base_url=f"{server.url}/", query={"v": "1"})
        listed = list_models(api, Secrets(key=KEY, headers={"api-key": "kd-other"}))
    assert (listed.status, listed.models, listed.words) == (200, ("a", "b/c"), "")
    head = server.requests[0].decode("latin-1")
    assert head.startswith("GET /v1/models?v=1 HTTP/1.1")
    assert f"authorization: bearer {KEY}" in head.lower()
    assert "api-key: kd-other" in head.lower()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": {"id": "a"}}', b'{"data": null}', b"<html>"])
def test_what_is_no_list_is_told_from_an_empty_list(body: bytes) -> None:
    with RawServer([http_response(200, body)]) as server:
        assert list_models(ApiConfig(base_url=server.url), Secrets()).models is None


@pytest.mark.parametrize(
    ("body", "names"), [(b"[]", ()), (b'{"data": []}', ()), (b'[{"id": "a"}, {"name": "b"}]', ("a",))]
)
def test_a_bare_list_and_an_empty_one(body: bytes, names: tuple[str, ...]) -> None:
    with RawServer([http_response(200, body)]) as server:
        assert list_models(ApiConfig(base_url=server.url), Secrets()).models == names


@pytest.mark.parametrize(
    ("status", "models", "found", "text"),
    [
        (404, None, "warn", "has no list of models (HTTP status 404: Not Found)"),
        (405, None, "warn", "has no list of models (HTTP status 405: Not Found)"),
        (200, None, "warn", "answers, but not with a list of models (HTTP status 200)"),
        (200, (), "warn", "'m' is not among its 0 models"),
        (200, ("m",), "pass", "'m' is among its 1 models"),
    ],
)
def test_only_a_list_with_the_model_passes(
    status: int, models: tuple[str, ...] | None, found: str, text: str
) -> None:
    values: dict[str, Any] = {
        "arch": {"init": "m"},
        "data": {"train": "t.jsonl", "tokenizer": "m", "shapes": [64]},
        "io": {"run_dir": "r"},
        "teacher": {"kind": "api", "prompts": "p.jsonl", "out": "t.jsonl"},
        "api": {"base_url": "http://localhost:1", "model": "m"},
    }
    words = "Not Found" if status > 400 else ""
    seen = of_status(config_from_dict(values), Listed(status=status, models=models, words=words))
    assert (seen.status, text in seen.text) == (found, True), seen.text
    if models is None:
        assert "is api.base_url right (most end in /v1)?" in seen.remedy


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        ("unknown_model", 404, "The model `fake` does not exist"),
        ("error_503", 503, "The engine is overloaded"),
        ("redirect", 307, "/elsewhere"),
    ],
)
def test_the_servers_words(behaviour: str, status: int, words: str) -> None:
    with FakeServer(lambda _: behaviour) as server:
        listed = list_models(ApiConfig(base_url=server.url), Secrets())
    assert (listed.status, listed.models, listed.words) == (status, None, words)


def test_a_key_that_the_server_repeats_is_hidden() -> None:
    seen: list[FakeRequest] = []

    def choose(request: FakeRequest) -> str:
        seen.append(request)
        return "unauthorised"

    with FakeServer(choose) as server:
        listed = list_models(ApiConfig(base_url=server.url), Secrets(key=KEY))
    assert [(one.method, one.path) for one in seen] == [("GET", "/v1/models")]
    assert listed.status == 401
    assert listed.words.startswith("Incorrect API key provided")
    assert KEY not in listed.words


@pytest.mark.parametrize("behaviour", ["close", "reset", "truncated_body", "cut_chunks"])
def test_no_whole_response_is_an_error(behaviour: str) -> None:
    with FakeServer(lambda _: behaviour) as server, pytest.raises(TeacherError) as raised:
        list_models(ApiConfig(base_url=server.url), Secrets())
    assert str(raised.value)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TeacherError, match=r"."):
        list_models(ApiConfig(base_url=f"http://127.0.0.1:{port}/v1"), Secrets())
