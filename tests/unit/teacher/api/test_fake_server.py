"""The fake server's behaviours, as a client over real sockets sees and judges them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import httpx2
import pytest

from kdfast import ToolSchema
from kdfast.teacher.api.fake_replies import BEHAVIOURS
from kdfast.teacher.api.fake_server import FakeServer, by_index, by_seed, by_text, by_times_seen
from kdfast.teacher.api.reply import read_reply
from kdfast.teacher.api.retry import Decision, Outcome, RetryPolicy, TransportFailure, Tries, judge_outcome

KEY = "kd-secret-0123456789"
POLICY = RetryPolicy()
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"]},
                "place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
                "note": {"type": "string"},
            },
            "required": ["city", "days", "unit", "place"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(
        timeout=30.0,
        headers={"Authorization": f"Bearer {KEY}"},
        transport=httpx2.HTTPTransport(retries=0),
        trust_env=False,
    ) as made:
        yield made


def request(text: str, tools: Any = None) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": text}], "tools": tools}


def send(
    client: httpx2.Client, url: str, content: Any, path: str = "/chat/completions", timeout_s: float = 30.0
) -> Outcome:
    """One request as an outcome: what the client's own code will do."""
    status, headers = None, dict[str, str]()
    failure: TransportFailure
    try:
        with client.stream("POST", url + path, json=content, timeout=timeout_s) as response:
            status, headers = response.status_code, dict(response.headers)
            return Outcome(status=status, headers=headers, body=response.read())
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        failure, words = "connect", str(error)
    except httpx2.TimeoutException as error:
        failure, words = "read_timeout", str(error)
    except (httpx2.RemoteProtocolError, httpx2.DecodingError) as error:
        failure, words = "truncated" if status else "reset", str(error)
    except httpx2.TransportError as error:
        failure, words = "reset", str(error)
    return Outcome(status=status, headers=headers, failure=failure, detail=words)


def judge(outcome: Outcome) -> Decision:
    return judge_outcome(outcome, Tries(), POLICY, now=0.0, rng=Random(0), secrets=[KEY])


EXPECTED = {
    "ok": ("accept", "ok"),
    "gzip": ("accept", "ok"),
    "reset_after_body": ("accept", "ok"),
    "slow_drip": ("accept", "ok"),
    "rate_limit": ("retry", "rate_limited"),
    "rate_limit_seconds": ("retry", "rate_limited"),
    "rate_limit_date": ("retry", "rate_limited"),
    "rate_limit_ms": ("retry", "rate_limited"),
    "rate_limit_reset": ("retry", "rate_limited"),
    "quota": ("stop", "insufficient_quota"),
    "bad_request": ("give_up", "refused_request"),
    "unauthorised": ("stop", "not_authorised"),
    "forbidden": ("stop", "not_authorised"),
    "unknown_model": ("stop", "unknown_model"),
    "content_filter": ("give_up", "content_filter"),
    "context_length": ("give_up", "context_length"),
    "refused_schema": ("give_up", "refused_schema"),
    "timeout": ("retry", "timeout"),
    "conflict": ("retry", "conflict"),
    "error_500": ("retry", "server_error"),
    "error_502": ("retry", "server_error"),
    "error_503": ("retry", "overloaded"),
    "error_504": ("retry", "server_error"),
    "error_529": ("retry", "overloaded"),
    "html_502": ("retry", "server_error"),
    "hang": ("retry", "read_timeout"),
    "reset": ("retry", "reset"),
    "reset_before_body": ("retry", "reset"),
    "close": ("retry", "reset"),
    "truncated_body": ("retry", "truncated"),
    "cut_chunks": ("retry", "truncated"),
    "truncated_json": ("give_up", "invalid_json"),
    "short_length": ("give_up", "invalid_json"),
    "bad_json": ("give_up", "invalid_json"),
    "error_in_200": ("give_up", "error_in_answer"),
    "no_choices": ("give_up", "no_choices"),
    "empty_choices": ("give_up", "empty_choices"),
    "redirect": ("give_up", "redirect"),
}
UNKNOWN = {"hang", "reset", "reset_before_body", "close", "truncated_body", "cut_chunks"}
WAITS = {"rate_limit_seconds", "rate_limit_date", "rate_limit_ms", "rate_limit_reset"}


def test_every_behaviour_has_its_decision() -> None:
    assert set(BEHAVIOURS) == set(EXPECTED)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_what_a_client_does(client: httpx2.Client, behaviour: str) -> None:
    with FakeServer(by_index([behaviour]), wait_s=2, drip_s=0.0001) as server:
        timeout_s = 0.5 if behaviour == "hang" else 30.0
        decision = judge(send(client, server.url, request("Hi"), timeout_s=timeout_s))
    assert (decision.action, decision.reason) == EXPECTED[behaviour]
    assert decision.unknown == (behaviour in UNKNOWN)
    assert decision.gate_s == (2.0 if behaviour in WAITS else None)
    assert bool(decision.words) == (decision.action != "accept")
    assert KEY not in repr(decision)
    assert server.behaviours == {behaviour: 1}
    assert server.seen.total() == 1  # neither a redirect nor a retry of the transport


def test_a_call_that_its_schema_allows(client: httpx2.Client) -> None:
    with FakeServer() as server:
        outcome = send(client, server.url, request("Rome", [TOOL]))
    reply = read_reply(json.loads(outcome.body))
    message = reply.answers[0].message
    assert message is not None
    function = message["tool_calls"][0]["function"]
    assert function == {
        "name": "weather",
        "arguments": {"city": "Rome", "days": 1, "unit": "C", "place": {"x": 1.5}},
    }
    ToolSchema(json.dumps([TOOL])).validate(json.dumps(function))
    assert json.loads(outcome.body)["usage"]["prompt_tokens"] > 0
    assert (reply.origin.model, reply.origin.system_fingerprint) == ("fake", "fp_fake")


def test_completions(client: httpx2.Client) -> None:
    with FakeServer() as server:
        outcome = send(client, server.url, {"model": "fake", "prompt": "once"}, "/completions")
    assert read_reply(json.loads(outcome.body)).answers[0].text == "echo: once"


def test_the_same_content_gets_the_same_answer_and_is_counted(client: httpx2.Client) -> None:
    with FakeServer() as server:
        bodies = [send(client, server.url, request(text)).body for text in ("a", "b", "a")]
        reordered = dict(reversed(request("a").items()))
        bodies.append(send(client, server.url, reordered).body)
    assert bodies[0] == bodies[2] == bodies[3] != bodies[1]
    assert sorted(server.seen.values()) == [1, 3]
    assert server.texts == {"a": 3, "b": 1}


def test_choosers(client: httpx2.Client) -> None:
    def statuses(server: FakeServer, texts: str) -> list[int | None]:
        with server:
            return [send(client, server.url, request(text)).status for text in texts]

    assert statuses(FakeServer(by_index(["error_500", "ok", "error_503"])), "aaaa") == [500, 200, 503, 200]
    assert statuses(FakeServer(by_times_seen(["error_500"])), "abab") == [500, 500, 200, 200]
    assert statuses(FakeServer(by_text({"b": "content_filter"})), "abcb") == [200, 400, 200, 400]


def test_faults_by_seed_do_not_depend_on_the_order(client: httpx2.Client) -> None:
    def played(seed: int, texts: list[str]) -> dict[str, int | None]:
        with FakeServer(by_seed(seed, 0.3, ["error_500", "error_503"])) as server:
            return {text: send(client, server.url, request(text)).status for text in texts}

    texts = [str(number) for number in range(60)]
    first = played(1, texts)
    assert first == played(1, texts[::-1])
    assert first != played(2, texts)
    assert 5 <= sum(status != 200 for status in first.values()) <= 31
    assert {500, 503} <= set(first.values())


def test_requests_at_once(client: httpx2.Client) -> None:
    with FakeServer(latency_s=0.4) as server, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: send(client, server.url, request(text)), "abcd"))
    assert 2 <= server.most_at_once <= 4
    assert server.seen.total() == 4


@pytest.mark.parametrize("behaviour", ["hang", "slow_drip"])
def test_it_stops_although_a_client_waits(behaviour: str) -> None:
    with FakeServer(lambda _: behaviour, drip_s=30) as server:
        waiting = socket.create_connection(("127.0.0.1", server.port))
        waiting.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        while not server.behaviours:
            pass
    waiting.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_client_that_leaves_early_is_not_counted() -> None:
    with FakeServer() as server:
        for sent in (b"", b"POST /v1/x", b"POST /v1/x HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}"):
            with socket.create_connection(("127.0.0.1", server.port)) as leaving:
                leaving.sendall(sent)
    assert server.seen.total() == 0


@pytest.mark.parametrize(("body", "behaviour"), [(b"no json", "ok"), (b"{}", "no such behaviour")])
def test_what_the_fake_cannot_do_it_says(client: httpx2.Client, body: bytes, behaviour: str) -> None:
    with FakeServer(lambda _: behaviour) as server:
        response = client.post(server.url + "/chat/completions", content=body)
    assert response.status_code == 400
    assert "the fake server cannot" in response.text
