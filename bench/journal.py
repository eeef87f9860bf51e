"""How many changes a second does the journal of an API teacher make safe, against what people use?

    python bench/journal.py --peers FOLDER    # FOLDER: site-packages of a venv that has diskcache

A change is a request that is noted before it is sent, or a response that is noted before it is read. Every candidate
notes the same texts, from 1, 8 and 32 threads, for a fixed time; each round runs every candidate once, in a random
order, on the same disk. After each run the file is opened anew and must hold everything that was noted.

- kdfast: `begin_attempt` and `finish_attempt`. On the disk when it returns; budget, lease and doubles are checked.
- append: one line of JSON, `flush`, `fsync`, threads by turns. On the disk when it returns; nothing is checked.
- diskcache, synced: `Cache.set` with `sqlite_synchronous=2` (FULL). On the disk when it returns (WAL mode).
- diskcache: as it comes (NORMAL). What was noted last is lost when the machine stops.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from data_path import machine
from kdfast.teacher.api.journal import Attempt, Journal, Request, Response

THREADS = (1, 8, 32)
ENDPOINT = "http://localhost/v1/chat/completions"
RESULTS = Path(__file__).parent / "results" / "journal.md"
PEER = "append"


class Store(Protocol):
    """What keeps requests and responses."""

    def begin(self, number: int, body: dict[str, Any]) -> Any:
        """Notes a request."""

    def finish(self, begun: Any, response: bytes) -> None:
        """Notes its response."""

    def close(self) -> None:
        """Closes the file."""


class KdfastStore:
    """kdfast's journal."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "answers.db")

    def begin(self, number: int, body: dict[str, Any]) -> Attempt:
        """Notes a request."""
        made = self.journal.begin_attempt(Request(ENDPOINT, body, 0, number), 900, budget_micro=10**12)
        assert isinstance(made, Attempt)  # noqa: S101
        return made

    def finish(self, begun: Attempt, response: bytes) -> None:
        """Notes its response."""
        self.journal.finish_attempt(begun, Response(200, {}, response, 500), final=True, cost_micro=450)

    def close(self) -> None:
        """Closes the file."""
        self.journal.close()

    @staticmethod
    def changes(folder: Path) -> int:
        """The changes that the file holds."""
        with Journal(folder / "answers.db", read_only=True) as journal:
            counts = journal.stats()
        return counts.requests + counts.answered


class AppendStore:
    """A line of JSON for each change."""

    def __init__(self, folder: Path) -> None:
        self.file = (folder / "answers.jsonl").open("ab")
        self.lock = threading.Lock()

    def begin(self, number: int, body: dict[str, Any]) -> int:
        """Notes a request."""
        self._append({"number": number, "body": body})
        return number

    def finish(self, begun: int, response: bytes) -> None:
        """Notes its response."""
        self._append({"number": begun, "response": response.decode()})

    def _append(self, line: dict[str, Any]) -> None:
        text = json.dumps(line).encode() + b"\n"
        with self.lock:
            self.file.write(text)
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    @staticmethod
    def changes(folder: Path) -> int:
        """The changes that the file holds."""
        with (folder / "answers.jsonl").open("rb") as file:
            return sum(1 for line in file if json.loads(line))


class DiskcacheStore:
    """The package diskcache."""

    settings: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        import diskcache

        self.cache = diskcache.Cache(str(folder), timeout=60, eviction_policy="none", **self.settings)

    def begin(self, number: int, body: dict[str, Any]) -> int:
        """Notes a request."""
        self.cache.set(("request", number), json.dumps(body))
        return number

    def finish(self, begun: int, response: bytes) -> None:
        """Notes its response."""
        self.cache.set(("response", begun), response)

    def close(self) -> None:
        """Closes the file."""
        self.cache.close()

    @staticmethod
    def changes(folder: Path) -> int:
        """The changes that the file holds."""
        import diskcache

        with diskcache.Cache(str(folder)) as cache:
            return len(cache)


class SyncedDiskcacheStore(DiskcacheStore):
    """The same, with an fsync a commit."""

    settings = {"sqlite_synchronous": 2}  # noqa: RUF012


def texts() -> tuple[dict[str, Any], bytes]:
    """The body of a request with two tools, some 2 KB, and a response; seeded."""
    rng = random.Random(0)
    words = ["the", "weather", "city", "list", "of", "results", "user", "42", "café", "please", "call", "id"]
    text = " ".join(rng.choices(words, k=300))
    tools = [
        {"type": "function", "function": {"name": name, "description": text[:200]}} for name in ("a", "b")
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "tools": tools}
    call = {"name": "a", "arguments": json.dumps({"city": text[200:400]})}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": call}],
    }
    usage = {"prompt_tokens": 512, "completion_tokens": 64, "total_tokens": 576}
    return body, json.dumps(
        {"id": "c", "model": "m", "choices": [{"message": message}], "usage": usage}
    ).encode()


def changes_per_second(make: Callable[[Path], Store], folder: Path, threads: int, seconds: float) -> float:
    """Lets threads note requests and responses for a while."""
    store, (body, response) = make(folder), texts()
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    ends: list[float] = [0.0] * threads

    def work(place: int) -> None:
        start.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            number = place + threads * (counts[place] // 2)
            begun = store.begin(number, {**body, "user": str(number)})
            store.finish(begun, response)
            counts[place] += 2
        ends[place] = time.perf_counter()

    running = [threading.Thread(target=work, args=[place]) for place in range(threads)]
    for thread in running:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in running:
        thread.join()
    store.close()
    held = make.changes(folder)  # type: ignore[attr-defined]
    if held != sum(counts):
        raise SystemExit(f"{make}: noted {sum(counts)} changes, holds {held}")
    return sum(counts) / (max(ends) - begun)


def fsync_ms(folder: Path, times: int = 15) -> float:
    """Median time of an fsync after 4 KiB were appended."""
    took = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


def file_system(folder: Path) -> str:
    """The type of a folder's file system, and its device."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    own = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    device, _, kind = max(own, key=lambda mount: len(mount[1]))[:3]
    return f"{kind} on {Path(device).name}"


def table(rates: dict[tuple[str, int], list[float]], names: list[str]) -> list[str]:
    """The rates as Markdown: the median of the rounds and their range, and the ratio to the peer, round by round."""
    lines = [
        f"| candidate | threads | changes/s, median | lowest to highest | / {PEER} |",
        "|---|---|---|---|---|",
    ]
    for threads in THREADS:
        for name in names:
            found = rates[name, threads]
            ratio = statistics.median(
                one / peer for one, peer in zip(found, rates[PEER, threads], strict=True)
            )
            lines.append(
                f"| {name} | {threads} | {statistics.median(found):.0f} | {min(found):.0f} to {max(found):.0f}"
                f" | {ratio:.2f} |"
            )
    return lines


def main() -> None:
    """Runs all candidates and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each candidate in each round")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else the system's temporary one")
    parser.add_argument("--peers", type=Path, help="a folder with the package diskcache; else it is left out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    stores: dict[str, Any] = {"kdfast": KdfastStore, PEER: AppendStore}
    version = "left out"
    if options.peers is not None:
        sys.path.append(str(options.peers))
        import diskcache

        version = diskcache.__version__
        stores |= {"diskcache, synced": SyncedDiskcacheStore, "diskcache": DiskcacheStore}
    rng, begun = random.Random(0), time.perf_counter()
    rates: dict[tuple[str, int], list[float]] = {(name, count): [] for count in THREADS for name in stores}
    fsyncs, kind = [], ""
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            kind = file_system(Path(name))
            for candidate, threads in rng.sample(list(rates), len(rates)):
                folder = Path(name) / f"{candidate}-{threads}"
                folder.mkdir()
                fsyncs.append(fsync_ms(Path(name)))
                rate = changes_per_second(stores[candidate], folder, threads, options.seconds)
                rates[candidate, threads].append(rate)
    took = time.perf_counter() - begun
    described = {**machine(), "disk": kind, "sqlite": sqlite3.sqlite_version, "diskcache": version}
    lines = [
        "# The journal of an API teacher: changes a second",
        "",
        f"Measured with `python bench/journal.py` in {took:.0f} s: {options.rounds} rounds of all candidates in random",
        f"order, {options.seconds:g} s each. An fsync of 4 KiB took {statistics.median(fsyncs):.1f} ms (median of "
        f"{len(fsyncs)}; {min(fsyncs):.1f} to {max(fsyncs):.1f}).",
        "",
        str(described),
        "",
        *table(rates, list(stores)),
        "",
        "A change is a request or a response, some 2 KB each. `append` is a line of JSON with an fsync, by turns;",
        "`diskcache, synced` has an fsync a commit, in WAL mode; `diskcache` has none: what was noted last is lost",
        "when the machine stops. Only kdfast checks budget, lease and doubles. The machine was shared with other work:",
        "compare the rows, not the numbers with those of another day.",
    ]
    options.out.write_text("\n".join(lines) + "\n")
    samples = {f"{name}, {threads} threads": found for (name, threads), found in rates.items()}
    document = {"machine": described, "fsync_ms": fsyncs, "changes_per_second": samples}
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
