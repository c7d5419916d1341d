"""The database as an outsider reads it: SQL of the model's own, on a connection of its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import psycopg
from sqlalchemy.engine import URL

LIVE = frozenset({"dispatched", "running"})
ENDED = frozenset({"succeeded", "dead", "cancelled"})


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, as far as the invariants go."""

    id: str
    agent_id: str
    state: str
    current: str | None
    generation: int
    reason: str | None
    is_finished: bool
    is_exclusive: bool


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt, as far as the invariants go."""

    id: str
    job_id: str
    number: int
    node_id: str
    takes_slot: bool
    state: str
    reason: str | None
    digest: str | None
    epoch: str | None


@dataclass(frozen=True, slots=True)
class Picture:
    """What was committed at one moment."""

    jobs: Mapping[str, JobRow] = field(default_factory=dict)
    attempts: Mapping[str, AttemptRow] = field(default_factory=dict)
    results: Mapping[str, str] = field(default_factory=dict)
    """job → attempt whose result was kept"""
    leader: tuple[str, int] | None = None
    """who leads, and the epoch"""
    led_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a job's history that tells of a move."""

    job_id: str
    source: str | None
    target: str


class _Rows(Protocol):
    def __call__(self, statement: str) -> Sequence[Sequence[Any]]: ...


class Reader:
    """Reads pictures and histories; writes only what a careless stranger would."""

    def __init__(self, url: URL) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._connection: Any = _sqlite(url) if self.is_sqlite else _postgresql(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def picture(self) -> Picture:
        jobs = self._ask(
            "SELECT id, agent_id, state, current_attempt_id, generation, reason_code, finished_at IS NOT NULL,"
            " is_exclusive FROM jobs ORDER BY id"
        )
        attempts = self._ask(
            "SELECT id, job_id, number, node_id, takes_slot, state, reason_code, result_digest, node_epoch"
            " FROM attempts ORDER BY id"
        )
        leaders = self._ask("SELECT holder, epoch, until FROM leaders")
        return Picture(
            {row[0]: JobRow(*row) for row in jobs},
            {row[0]: AttemptRow(*row) for row in attempts},
            {row[0]: row[1] for row in self._ask("SELECT job_id, attempt_id FROM job_results")},
            (leaders[0][0], leaders[0][1]) if leaders else None,
            _moment(leaders[0][2]) if leaders else None,
        )

    def results(self) -> dict[str, Any]:
        """job → the result that was kept"""
        return {row[0]: _document(row[1]) for row in self._ask("SELECT job_id, result FROM job_results")}

    def orders(self) -> list[str]:
        """For each job the order of the client that it came from."""
        return [_document(row[0])["input"]["order"] for row in self._ask("SELECT spec FROM jobs")]

    def history(self) -> list[Step]:
        """Every move, in order."""
        rows = self._ask("SELECT job_id, data FROM job_events WHERE type LIKE 'job.%' ORDER BY id")
        told = [(row[0], _document(row[1]) or {}) for row in rows]
        return [Step(job_id, data.get("from"), data["to"]) for job_id, data in told if "to" in data]

    def shut_out(self) -> list[str]:
        """The nodes that get no work because an admin said so."""
        return [row[0] for row in self._ask("SELECT id FROM nodes WHERE NOT is_approved OR is_draining ORDER BY id")]

    def awaited_nodes(self) -> set[str]:
        """The nodes of which exclusive jobs wait to hear that an old computer is gone."""
        waiting = "SELECT node_id FROM attempts WHERE id IN (SELECT waits_for_attempt_id FROM jobs)"
        return {row[0] for row in self._ask(waiting)}

    def try_second_live_attempt(self, job_id: str) -> bool:
        """Give a job another live attempt past all code, as a faulty statement would; whether the database let it."""
        columns = "id, job_id, number, generation, node_id, node_name, takes_slot, state, dispatched_at, publish_count"
        copied = (
            f"INSERT INTO attempts ({columns}, lines_stored)"  # noqa: S608 - words of this module
            " SELECT 'stray000' || substr(id, 9), job_id, number + 1000, generation, node_id, node_name, takes_slot,"
            " 'dispatched', dispatched_at, 0, 0 FROM attempts"
            f" WHERE job_id = '{job_id}' AND state IN ('dispatched', 'running') ORDER BY number LIMIT 1"
        )
        try:
            self._connection.execute(copied)
        except (sqlite3.IntegrityError, psycopg.errors.UniqueViolation):
            return False
        return True

    def blockers(self, backend: int) -> frozenset[int]:
        """Whose locks this connection of PostgreSQL's waits for now."""
        return frozenset(self._ask(f"SELECT pg_blocking_pids({backend})")[0][0])

    def interrupt(self, backend: int) -> None:
        """End what this connection waits for, as a time limit would."""
        self._ask(f"SELECT pg_cancel_backend({backend})")

    def _ask(self, statement: str) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._connection.execute(statement).fetchall()
        return rows


def _sqlite(url: URL) -> Any:
    assert url.database is not None
    return sqlite3.connect(url.database, isolation_level=None, check_same_thread=False)


def _postgresql(url: URL) -> Any:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def _document(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _moment(value: Any) -> datetime:
    told = datetime.fromisoformat(value) if isinstance(value, str) else value
    return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
