"""A server on loopback that plays a teacher's API and its faults, for tests and for checks before money is spent."""

from __future__ import annotations

import hashlib
import json
import math
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from kdfast.teacher.api.fake_replies import FakeRequest, Json, Scripted, http_response, script

Chooser = Callable[[FakeRequest], str]
"""Gives the behaviour, one of `fake_replies.BEHAVIOURS`, for a request."""

_MOST_BYTES = 64 * 2**20


def by_index(behaviours: Sequence[str]) -> Chooser:
    """Behaviours in the order of the requests; later requests are answered.

    Args:
        behaviours: one for the first request, one for the second, ...
    """
    return lambda request: behaviours[request.index] if request.index < len(behaviours) else "ok"


def by_times_seen(behaviours: Sequence[str]) -> Chooser:
    """Behaviours for the first, second, ... time that the same content arrives; later times are answered.

    Args:
        behaviours: one for each time.
    """
    return lambda request: behaviours[request.times_seen] if request.times_seen < len(behaviours) else "ok"


def by_text(behaviours: Mapping[str, str]) -> Chooser:
    """A behaviour for requests whose last user's message contains a text; others are answered.

    Args:
        behaviours: text -> behaviour. The first text that is found decides.
    """
    return lambda request: next((what for text, what in behaviours.items() if text in request.text), "ok")


def by_seed(seed: int, fault_ratio: float, faults: Sequence[str]) -> Chooser:
    """Faults at random. A request's content, and how often it came before, decide; the order of requests does not.

    Args:
        seed: another seed, other faults.
        fault_ratio: the part of the requests that get a fault, 0 to 1.
        faults: the faults, equally likely.
    """

    def choose(request: FakeRequest) -> str:
        drawn = hashlib.sha256(f"{seed}/{request.digest}/{request.times_seen}".encode()).digest()
        if int.from_bytes(drawn[:8]) / 2**64 >= fault_ratio:
            return "ok"
        return faults[int.from_bytes(drawn[8:16]) % len(faults)]

    return choose


class FakeServer:
    """Listens on 127.0.0.1 while a `with` block runs; each request gets a connection and a thread of its own.

    Args:
        choose: gives the behaviour for a request; by default every request is answered.
        wait_s: the wait that it asks for, in seconds.
        latency_s: the time before it writes anything, in seconds.
        drip_s: the time between two bytes of `slow_drip`, in seconds.

    Attributes:
        port: the port that it listens on; it stays after the block's end, when nobody listens there.
        seen: digest -> how many requests had this content.
        texts: last user's message -> how many requests had it.
        behaviours: behaviour -> how often it was played.
        most_at_once: the largest number of requests that were in work at once.

    Example:
        >>> from http.client import HTTPConnection
        >>> with FakeServer() as server:
        ...     connection = HTTPConnection("127.0.0.1", server.port)
        ...     connection.request("POST", "/v1/chat/completions", '{"messages": [{"role": "user", "content": "Hi"}]}')
        ...     choice = json.load(connection.getresponse())["choices"][0]
        ...     connection.close()
        >>> choice["message"]["content"], server.texts
        ('echo: Hi', Counter({'Hi': 1}))
    """

    def __init__(
        self,
        choose: Chooser = lambda _: "ok",
        *,
        wait_s: float = 1.0,
        latency_s: float = 0.0,
        drip_s: float = 0.05,
    ) -> None:
        self._choose = choose
        self._wait_s = wait_s
        self._latency_s = latency_s
        self._drip_s = drip_s
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._at_once = 0
        self.seen: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()
        self.behaviours: Counter[str] = Counter()
        self.most_at_once = 0
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL, as `api.base_url` takes it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(0.05)
        self.port = int(self._listener.getsockname()[1])
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        self._threads.append(accepting)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads = [*(known for known in self._threads if known.is_alive()), thread]
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(10)
                received = _read_request(connection)
                if received is None:
                    return
                self._enter()
                try:
                    self._stopping.wait(self._latency_s)
                    self._play(connection, self._script(received))
                finally:
                    self._leave()
            except ValueError as error:  # no JSON, or a behaviour that there is not: say so, or a test hangs
                words = json.dumps({"error": {"message": f"the fake server cannot: {error}"}}).encode()
                connection.sendall(http_response(400, words))
            except OSError:
                return  # the client went away

    def _enter(self) -> None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

    def _leave(self) -> None:
        with self._lock:
            self._at_once -= 1

    def _script(self, received: tuple[str, str, dict[str, str], Json]) -> Scripted:
        method, path, headers, content = received
        canonical = json.dumps([path, content], sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        with self._lock:
            request = FakeRequest(
                index=self.seen.total(),
                times_seen=self.seen[digest],
                method=method,
                path=path,
                headers=headers,
                content=content,
                digest=digest,
            )
            self.seen[digest] += 1
            self.texts[request.text] += 1
            behaviour = self._choose(request)
            self.behaviours[behaviour] += 1
        return script(behaviour, request, self._wait_s)

    def _play(self, connection: socket.socket, played: Scripted) -> None:
        pieces = [bytes([byte]) for byte in played.data] if played.drip else [played.data]
        for piece in pieces:
            connection.sendall(piece)
            if played.drip and self._stopping.wait(self._drip_s):
                return
        if played.end == "hang":
            _wait_for_the_end(connection, self._stopping)
        elif played.end == "reset":
            # A reset throws away what the client has not yet read: give it the time.
            _wait_for_the_end(connection, self._stopping, 1.0 if played.data else 0.0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _wait_for_the_end(connection: socket.socket, stopping: threading.Event, most_s: float = math.inf) -> None:
    """Waits until the client closes the connection, the server stops, or the time is up."""
    connection.settimeout(0.05)
    until = time.monotonic() + most_s
    while not stopping.is_set() and time.monotonic() < until:
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            continue


def _read_request(connection: socket.socket) -> tuple[str, str, dict[str, str], Json] | None:
    """(method, path, headers, content) of a request; None if the client left before its end."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65_536)
        if not part or len(received) > _MOST_BYTES:
            return None
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    parts = [body]
    missing = min(int(headers.get("content-length", 0)), _MOST_BYTES) - len(body)
    while missing > 0:
        part = connection.recv(min(missing, 2**20))
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    method, path, *_ = [*first.split(" "), "", ""]
    whole = b"".join(parts)
    content = json.loads(whole) if whole else {}
    return method, path, headers, content if isinstance(content, dict) else {}
