"""One request to a teacher's server and what came back: sent once, within a time, without a retry of its own."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from kdfast.config import ApiConfig
from kdfast.errors import ConfigError
from kdfast.teacher.api.error_words import one_line
from kdfast.teacher.api.journal import Request
from kdfast.teacher.api.retry import Outcome, TransportFailure
from kdfast.teacher.api.secrets_from_env import Secrets
from kdfast.teacher.api.sent_messages import compact_json

MOST_BODY_BYTES = 256 * 2**20
"""A longer body, decompressed, is not read to its end."""

_CONNECT_S = 30.0
_KEEP_ALIVE_S = 5.0
"""Shorter than servers keep a connection: a request on one that is just being closed has an unknown outcome."""

_ENCODINGS = "gzip, deflate"
"""What Python itself can undo; httpx2 would also name br and zstd where their packages are."""


@dataclass(frozen=True)
class Sent:
    """What came back for a request.

    Attributes:
        outcome: the response, or why there is none.
        latency_ms: from the start of sending to the last byte.
    """

    outcome: Outcome
    latency_ms: int


@dataclass
class _Exchange:
    """How far one exchange has come."""

    sending: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpx2's transport; a proxy is first sent a request of its own, CONNECT."""
        if event.endswith(".send_request_headers.started"):
            self.sending = self.sending or info["request"].method != b"CONNECT"

    def outcome(self, failure: TransportFailure | None = None, detail: str = "") -> Outcome:
        """What came, as far as it came. What was not begun to be sent was certainly not received."""
        return Outcome(
            status=self.status,
            headers=self.headers,
            body=b"".join(self.parts),
            failure=failure if failure is None or self.sending else "connect",
            detail=detail,
        )


class Client:
    """Sends requests to a server; for one event loop, inside `async with`.

    It keeps no cookies, follows no redirects, retries nothing, and sends nothing for this machine through a proxy.

    Args:
        api: address, parameters, time-out, and the number of requests at once.
        secrets: key and headers; they are in nothing that comes back.
        most_body_bytes: a longer body counts as cut.

    Raises:
        ConfigError: the address has a host name that there cannot be.

    Example:
        >>> from kdfast.teacher.api.fake_server import FakeServer
        >>> async def ask(address: str) -> int | None:
        ...     async with Client(ApiConfig(base_url=address, model="m"), Secrets()) as client:
        ...         body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        ...         sent = await client.send(Request(f"{address}/chat/completions", body))
        ...     return sent.outcome.status
        >>> with FakeServer() as server:
        ...     asyncio.run(ask(server.url))
        200
    """

    def __init__(self, api: ApiConfig, secrets: Secrets, *, most_body_bytes: int = MOST_BODY_BYTES) -> None:
        try:
            httpx2.URL(api.base_url or "")
        except httpx2.InvalidURL as error:
            raise ConfigError(
                f"api.base_url: no address can be so ({error}); correct it: {api.base_url}"
            ) from None
        self._query = {name: str(value) for name, value in (api.query or {}).items()} or None
        self._timeout_s = api.timeout_seconds
        self._secrets = secrets.values
        self._most_body_bytes = most_body_bytes
        try:
            self._http = self._client(api, secrets)
        except (ImportError, ValueError) as error:  # of a proxy that the environment names
            words = one_line(str(error), self._secrets)
            raise ConfigError(
                f"api.base_url: a proxy variable (such as ALL_PROXY, HTTPS_PROXY) cannot be used, unset or correct it"
                f" ({words}): {api.base_url}"
            ) from None

    def _client(self, api: ApiConfig, secrets: Secrets) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            # A server of one's own is reached without a proxy; its certificate may be of one's own, too, and
            # Python's default context reads SSL_CERT_FILE.
            trust_env=api.hosted,
            verify=True if api.hosted else ssl.create_default_context(),
            headers=_headers(secrets),
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            mounts=_mounts(api.base_url),
            timeout=httpx2.Timeout(self._timeout_s, connect=min(self._timeout_s, _CONNECT_S)),
            limits=httpx2.Limits(
                max_connections=api.concurrency,
                max_keepalive_connections=api.concurrency,
                keepalive_expiry=_KEEP_ALIVE_S,
            ),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def send(self, request: Request) -> Sent:
        """Sends a request once. Whatever the network and the server do is an outcome, not an error.

        Args:
            request: its endpoint is the address; its body is sent as canonical JSON.
        """
        exchange, begun = _Exchange(), time.monotonic()
        try:
            # Each byte may come in time and the whole never: only a deadline for all of it ends a slow drip.
            async with asyncio.timeout(self._timeout_s):
                outcome = await self._exchange(request, exchange)
        except (TimeoutError, httpx2.TimeoutException) as error:
            words = f"no whole response within {self._timeout_s:g} s"
            outcome = exchange.outcome("read_timeout", f"{words}: {self._words(error)}".rstrip(": "))
        except (httpx2.RemoteProtocolError, httpx2.DecodingError) as error:
            failure: TransportFailure = "reset" if exchange.status is None else "truncated"
            outcome = exchange.outcome(failure, self._words(error))
        except httpx2.TransportError as error:
            outcome = exchange.outcome("reset", self._words(error))
        return Sent(outcome, round((time.monotonic() - begun) * 1000))

    async def _exchange(self, request: Request, exchange: _Exchange) -> Outcome:
        stream = self._http.stream(
            "POST",
            request.endpoint,
            # In its own order: models read the properties of a schema in the order in which they are sent.
            content=compact_json(dict(request.body)).encode(),
            params=self._query,
            extensions={"trace": exchange.trace},
        )
        async with stream as response:
            exchange.status, exchange.headers = response.status_code, dict(response.headers)
            read = 0
            async for part in response.aiter_bytes():
                read += len(part)
                if read > self._most_body_bytes:
                    words = f"the response is longer than {self._most_body_bytes} bytes; it was not read on"
                    return exchange.outcome("truncated", words)
                exchange.parts.append(part)
        return exchange.outcome()

    def _words(self, error: Exception) -> str:
        """The transport's words. They may cite a header."""
        return one_line(str(error), self._secrets)


def _headers(secrets: Secrets) -> list[tuple[bytes, bytes]]:
    given = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": _ENCODINGS}
    if secrets.key is not None:
        given["Authorization"] = f"Bearer {secrets.key}"
    given.update(secrets.headers)
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in given.items()]


def _mounts(base_url: str | None) -> dict[str, httpx2.AsyncBaseTransport | None]:
    """A proxy of the environment cannot reach this machine's own addresses; None = without one."""
    host = (urlsplit(base_url or "").hostname or "").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
        return {f"all://{host}": None} if local else {}
    shown = f"[{host}]" if address.version == 6 else host
    return {f"all://{shown}": None} if address.is_loopback else {}
