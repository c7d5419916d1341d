"""The database as an auditor reads it: own connections, own SQL, none of the code under test."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Protocol

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]
LIVE = ("dispatched", "running")
ENDED = ("succeeded", "dead", "cancelled")
_CHUNK = 500


class Reader(Protocol):
    """Answers a query with rows; `?` stands for a value."""

    def rows(self, query: str, *values: Any) -> list[Row]: ...


class SqliteReader:
    """Reads the file beside the coordinator."""

    def __init__(self, path: str) -> None:
        self._path = path

    def rows(self, query: str, *values: Any) -> list[Row]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]


class PostgresReader:
    """Reads over a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def rows(self, query: str, *values: Any) -> list[Row]:
        with psycopg.connect(self._dsn, autocommit=True, row_factory=dict_row, connect_timeout=10) as connection:
            return connection.execute(query.replace("?", "%s").encode(), values).fetchall()


def reader_of(url: str) -> Reader:
    """A reader of the database that the coordinator was given."""
    if url.startswith("sqlite:///"):
        return SqliteReader(url.removeprefix("sqlite:///"))
    return PostgresReader(url)


def among(reader: Reader, query: str, ids: Iterable[str]) -> list[Row]:
    """The rows of a query that ends in `IN (…)`, for any number of ids."""
    wanted = list(ids)
    found: list[Row] = []
    for first in range(0, len(wanted), _CHUNK):
        chunk = wanted[first : first + _CHUNK]
        found += reader.rows(query.replace("(…)", f"({', '.join('?' * len(chunk))})"), *chunk)
    return found


def jobs_of(reader: Reader, ids: Iterable[str]) -> list[Row]:
    return among(reader, "SELECT * FROM jobs WHERE id IN (…)", ids)


def attempts_of(reader: Reader, ids: Iterable[str]) -> list[Row]:
    found = among(reader, "SELECT * FROM attempts WHERE job_id IN (…)", ids)
    return sorted(found, key=lambda row: (row["job_id"], row["number"]))


def history_of(reader: Reader, ids: Iterable[str]) -> list[Row]:
    """The moves of these jobs, oldest first."""
    # No LIKE: its percent sign means something else to psycopg.
    found = among(reader, "SELECT * FROM job_events WHERE substr(type, 1, 4) = 'job.' AND job_id IN (…)", ids)
    return sorted(found, key=lambda row: row["id"])


def unfinished(reader: Reader, ids: Sequence[str]) -> list[Row]:
    return [row for row in jobs_of(reader, ids) if row["state"] not in ENDED]


def document(value: Any) -> Any:
    """A JSON column as either database hands it out."""
    return json.loads(value) if isinstance(value, str) else value


def moment(value: Any) -> datetime | None:
    """A time column as either database hands it out."""
    if value is None:
        return None
    told: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
