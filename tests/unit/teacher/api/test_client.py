"""What the client sends over real sockets, and what it makes of everything that can come back."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping
from random import Random

import pytest
from teach_jobs import KEY, RawServer

from kdfast.config import ApiConfig
from kdfast.errors import ConfigError
from kdfast.teacher.api.client import Client, Sent
from kdfast.teacher.api.fake_replies import BEHAVIOURS, http_response
from kdfast.teacher.api.fake_server import FakeServer, by_index
from kdfast.teacher.api.journal import Request
from kdfast.teacher.api.retry import Outcome, RetryPolicy, Tries, judge_outcome
from kdfast.teacher.api.secrets_from_env import Secrets

SECRETS = Secrets(key=KEY, headers={"X-Team": "caf\u00e9-0123456"})
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
BODY = {"model": "m", "messages": [{"role": "user", "content": "caf\u00e9"}], "a": {"z": 1, "b": 2}}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def send(
    url: str,
    *,
    times: int = 1,
    timeout_s: float = 60.0,
    most_body_bytes: int = 2**20,
    query: Mapping[str, str | int] | None = None,
) -> list[Sent]:
    async def scene() -> list[Sent]:
        api = ApiConfig(
            base_url=url,
            model="m",
            timeout_seconds=timeout_s,
            query=None if query is None else dict(query),
        )
        async with Client(api, SECRETS, most_body_bytes=most_body_bytes) as client:
            return [await client.send(Request(f"{url}/chat/completions", BODY)) for _ in range(times)]

    return asyncio.run(scene())


def outcome(url: str, *, timeout_s: float = 60.0, most_body_bytes: int = 2**20) -> Outcome:
    return send(url, timeout_s=timeout_s, most_body_bytes=most_body_bytes)[0].outcome


def test_what_is_sent() -> None:
    with RawServer([http_response(200, b"{}")]) as server:
        sent = send(server.url, query={"api-version": "2026-01-01", "n": 1})[0]
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert first == "POST /v1/chat/completions?api-version=2026-01-01&n=1 HTTP/1.1"
    assert body.decode() == (
        '{"model":"m","messages":[{"role":"user","content":"caf\u00e9"}],"a":{"z":1,"b":2}}'
    ), "the keys keep their order"
    assert headers["authorization"] == f"bearer {KEY}"
    assert headers["x-team"] == "caf\u00e9-0123456"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "gzip, deflate"
    assert (sent.outcome.status, sent.outcome.body) == (200, b"{}")
    assert sent.latency_ms >= 0


FAILURES = {
    "reset": "reset",
    "reset_before_body": "reset",
    "close": "reset",
    "truncated_body": "truncated",
    "cut_chunks": "truncated",
    "hang": "read_timeout",
}


@pytest.mark.parametrize(
    "behaviour",
    [pytest.param(one, marks=pytest.mark.slow) if one == "reset_before_body" else one for one in BEHAVIOURS],
)
def test_every_behaviour_is_an_outcome_and_seen_once(behaviour: str) -> None:
    with FakeServer(by_index([behaviour]), wait_s=0.01, drip_s=0.0001) as server:
        got = outcome(server.url, timeout_s=0.5 if behaviour == "hang" else 60.0)
    assert got.failure == FAILURES.get(behaviour)
    assert (got.status is None) == (behaviour in ("hang", "reset", "close"))
    assert server.seen.total() == 1  # no retry, no redirect


def test_no_cookie_is_kept() -> None:
    setting = http_response(200, b"{}", {"Set-Cookie": "session=1; Path=/"})
    with RawServer([setting, setting]) as server:
        send(server.url, times=2)
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


def test_nobody_listens() -> None:
    with FakeServer() as server:
        pass
    got = outcome(server.url)
    assert (got.failure, got.status) == ("connect", None)
    assert got.detail


def test_what_fails_before_the_request_is_sent_was_not_received() -> None:
    """A server that speaks no TLS, and one that says nothing while TLS is agreed on."""
    with RawServer([b"no TLS here\r\n"]) as other, RawServer([None]) as silent:
        assert outcome(other.url.replace("http:", "https:")).failure == "connect"
        assert outcome(silent.url.replace("http:", "https:"), timeout_s=0.5).failure == "connect"
    assert b"POST" not in b"".join(other.requests + silent.requests)


def test_a_slow_drip_ends() -> None:
    with FakeServer(lambda _: "slow_drip", drip_s=0.3) as server:
        got = outcome(server.url, timeout_s=0.5)
    assert got.failure == "read_timeout"
    assert "within 0.5 s" in got.detail


def test_an_errors_status_is_kept_when_its_body_is_cut() -> None:
    whole = http_response(400, b'{"error": {"code": "content_filter"}}')
    with RawServer([whole[:-5]]) as server:
        got = outcome(server.url)
    assert (got.status, got.failure, got.body) == (400, "truncated", b'{"error": {"code": "content_filt')
    decision = judge_outcome(got, Tries(), RetryPolicy(), now=0.0, rng=Random(0))
    assert (decision.action, decision.unknown) == ("give_up", False)


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_body_without_end_is_not_read_on(is_packed: bool) -> None:
    body = b"x" * 5000
    headers = {"Content-Encoding": "gzip"} if is_packed else {}
    answer = http_response(200, gzip.compress(body) if is_packed else body, headers)
    with RawServer([answer, answer]) as server:
        assert outcome(server.url, most_body_bytes=5000).body == body
        got = outcome(server.url, most_body_bytes=4999)
    assert (got.status, got.failure) == (200, "truncated")
    assert "longer than 4999 bytes" in got.detail


def test_what_cannot_be_unpacked_is_cut() -> None:
    with RawServer([http_response(200, b"no gzip", {"Content-Encoding": "gzip"})]) as server:
        assert outcome(server.url).failure == "truncated"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with RawServer([http_response(502, b"the proxy cannot")]) as proxy, FakeServer() as server:
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        got = outcome(server.url.replace("127.0.0.1", host))
    assert proxy.requests == []
    assert (got.status, got.failure) in [(200, None), (None, "connect")]  # the server has no IPv6 address


def test_others_are_asked_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = http_response(407, b"", {"Proxy-Authenticate": "Basic"})
    with RawServer([http_response(200, b"{}"), refused]) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert outcome("http://example.com/v1").status == 200
        got = outcome("https://example.com/v1")
    assert proxy.requests[0].startswith(b"POST http://example.com/v1/chat/completions ")
    # The way to a server behind TLS is asked for first: the request itself, and the key, were not sent.
    assert proxy.requests[1].startswith(b"CONNECT example.com:443 ")
    assert KEY.encode() not in proxy.requests[1]
    assert (got.status, got.failure) == (None, "connect")


def test_the_key_is_in_nothing_that_comes_back() -> None:
    with FakeServer(lambda _: "close") as server:
        sent = send(server.url)[0]
    assert KEY not in repr(sent)
    with RawServer([f"{KEY} is no status line\r\n\r\n".encode()]) as raw:
        got = outcome(raw.url)
    assert got.failure == "reset"
    assert KEY not in repr(got)


def test_requests_at_once_each_have_a_connection() -> None:
    async def scene(url: str) -> list[Sent]:
        api = ApiConfig(base_url=url, model="m", concurrency=3)
        async with Client(api, Secrets()) as client:
            requests = [Request(f"{url}/chat/completions", {"n": number}) for number in range(9)]
            return await asyncio.gather(*(client.send(one) for one in requests))

    with FakeServer(latency_s=0.01) as server:
        sent = asyncio.run(scene(server.url))
    assert [one.outcome.status for one in sent] == [200] * 9
    assert server.most_at_once <= 3
    assert len({json.loads(one.outcome.body)["id"] for one in sent}) == 9


def test_a_host_that_cannot_be() -> None:
    host = "-\u00e4-"
    with pytest.raises(ConfigError, match=rf"^api\.base_url: .*: http://{host}/v1$"):
        Client(ApiConfig(base_url=f"http://{host}/v1", model="m"), Secrets())


def test_a_proxy_variable_does_not_matter_for_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with RawServer([http_response(200, b"{}")]) as server:
        assert outcome(server.url).status == 200


def test_a_proxy_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "nonsense://x")
    with pytest.raises(ConfigError, match=r"^api\.base_url: a proxy variable .* cannot be used"):
        Client(ApiConfig(base_url="https://example.com/v1", model="m"), SECRETS)
