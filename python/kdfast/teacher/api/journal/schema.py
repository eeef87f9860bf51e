"""The tables of the journal, and the check that a file has exactly these."""

from __future__ import annotations

import sqlite3
from functools import cache

VERSION = 1
"""Also in the header of the file (`user_version`). A change of the tables is a new version."""

APPLICATION_ID = 0x6B64666A
"""`kdfj` in ASCII: by it a journal is told from other SQLite files."""

PAGE_BYTES = 4096


def _charge(row: str) -> str:
    """What an attempt counts against the budget, as SQL."""
    return (
        f"CASE {row}.state WHEN 'not_sent' THEN 0 WHEN 'answered' THEN coalesce({row}.cost_micro, {row}.worst_micro)"
        f" ELSE {row}.worst_micro END"
    )


def _flying(row: str) -> str:
    """What an attempt in flight may cost, as SQL; 0 for one that ended."""
    return f"CASE {row}.state WHEN 'in_flight' THEN {row}.worst_micro ELSE 0 END"


ATTEMPT_TOTALS = f"SELECT coalesce(sum({_charge('a')}), 0), coalesce(sum({_flying('a')}), 0) FROM attempt a"  # noqa: S608
"""(what counts against the budget, what of it is in flight), counted anew."""

STATEMENTS = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # `position` is the request's `order`; `answer` is the first final answer that came.
    """CREATE TABLE request (
    hash TEXT PRIMARY KEY CHECK (length(hash) = 64),
    content BLOB NOT NULL,
    sample INTEGER NOT NULL CHECK (typeof(sample) = 'integer' AND sample >= 0),
    position INTEGER NOT NULL CHECK (typeof(position) = 'integer' AND position >= 0),
    answer INTEGER REFERENCES attempt (id)
)""",
    "CREATE INDEX request_position ON request (position, hash)",
    """CREATE TABLE attempt (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL REFERENCES request (hash),
    number INTEGER NOT NULL CHECK (number >= 1),
    owner TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('in_flight', 'answered', 'unknown', 'not_sent')),
    final INTEGER NOT NULL DEFAULT 0 CHECK (final IN (0, 1) AND (final = 0 OR state = 'answered')),
    expired INTEGER NOT NULL DEFAULT 0 CHECK (expired IN (0, 1)),
    worst_micro INTEGER NOT NULL CHECK (typeof(worst_micro) = 'integer' AND worst_micro >= 0),
    cost_micro INTEGER CHECK (cost_micro IS NULL OR (typeof(cost_micro) = 'integer' AND cost_micro >= 0)),
    status INTEGER,
    headers TEXT,
    response BLOB,
    digest TEXT,
    usage TEXT,
    latency_ms INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    begun_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    UNIQUE (request, number),
    CHECK ((state = 'answered') = (response IS NOT NULL)),
    CHECK ((response IS NULL) = (status IS NULL) AND (response IS NULL) = (digest IS NULL)),
    CHECK ((state = 'in_flight') = (ended_ms IS NULL))
)""",
    "CREATE INDEX attempt_in_flight ON attempt (until_ms) WHERE state = 'in_flight'",
    """CREATE TABLE verdict (
    attempt INTEGER PRIMARY KEY REFERENCES attempt (id),
    kind TEXT NOT NULL,
    reason TEXT NOT NULL
)""",
    # One row: what all attempts count against the budget, and what of it is in flight. Triggers keep it.
    """CREATE TABLE total (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    charged_micro INTEGER NOT NULL,
    in_flight_micro INTEGER NOT NULL
)""",
    f"""CREATE TRIGGER attempt_begun AFTER INSERT ON attempt BEGIN
    UPDATE total SET charged_micro = charged_micro + ({_charge("NEW")}),
        in_flight_micro = in_flight_micro + ({_flying("NEW")});
END""",  # noqa: S608
    f"""CREATE TRIGGER attempt_changed AFTER UPDATE ON attempt BEGIN
    UPDATE total SET charged_micro = charged_micro + ({_charge("NEW")}) - ({_charge("OLD")}),
        in_flight_micro = in_flight_micro + ({_flying("NEW")}) - ({_flying("OLD")});
END""",  # noqa: S608
    """CREATE TRIGGER attempt_kept BEFORE DELETE ON attempt BEGIN
    SELECT RAISE(ABORT, 'an attempt is never removed');
END""",
    """CREATE TRIGGER response_kept BEFORE UPDATE OF response, digest, status ON attempt
WHEN OLD.response IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'a stored response is never changed');
END""",
)


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty database, in one transaction."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("BEGIN EXCLUSIVE")
    for statement in STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", [str(VERSION)])
    connection.execute("INSERT INTO total VALUES (1, 0, 0)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def foreign(connection: sqlite3.Connection) -> str | None:
    """Why an open database is no journal, or one that this kdfast cannot read; None if it is one."""
    application, version = _number(connection, "application_id"), _number(connection, "user_version")
    if application != APPLICATION_ID:
        return f"an SQLite file of another program (application_id {application:#010x}); name another file"
    if version > VERSION:
        return f"written by a newer kdfast; update kdfast to read it: version {version}"
    return None if version == VERSION else f"of an unknown version: {version}"


def damage(connection: sqlite3.Connection, file_bytes: int) -> str | None:
    """What is wrong with the file of an open journal; None if nothing was found. Reads the whole file once."""
    pages, page_bytes = _number(connection, "page_count"), _number(connection, "page_size")
    if file_bytes != pages * page_bytes:
        return f"{file_bytes} bytes instead of {pages * page_bytes}"
    if tables(connection) != _expected_tables():
        return "its tables are not those of a journal"
    found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        return str(found[0])
    version = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if version != (str(VERSION),) or connection.execute("SELECT count(*) FROM total").fetchone() != (1,):
        return "its version or its total is missing"
    return None


def tables(connection: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    """(type, name, SQL) of all tables, indexes and triggers."""
    return list(connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name"))


@cache
def _expected_tables() -> list[tuple[str, str, str | None]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        create(connection)
        return tables(connection)
    finally:
        connection.close()


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
