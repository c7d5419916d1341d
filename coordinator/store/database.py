"""Connections and transactions. Nobody commits anywhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from shared.clock import Clock, SystemClock
from shared.errors import Unavailable

SQLITE_BUSY_SECONDS = 15


@dataclass(slots=True)
class Transaction:
    """One unit of work. `now` is taken once, so that everything written together carries the same time."""

    conn: Connection
    now: datetime
    bell: Callable[[], None] | None = None
    _after_commit: list[Callable[[], None]] = field(default_factory=list)
    _once: set[str] = field(default_factory=set)

    def after_commit(self, action: Callable[[], None], *, once: str | None = None) -> None:
        """Run `action` when the transaction is durable; of those with the same `once`, the first alone."""
        if once is not None:
            if once in self._once:
                return
            self._once.add(once)
        self._after_commit.append(action)

    def ring(self) -> None:
        """Let those who follow timelines and events know, once this transaction is durable, that there is news."""
        if self.bell is not None:
            self.after_commit(self.bell, once="bell")

    def committed(self) -> None:
        for action in self._after_commit:
            action()


class Database:
    """The engine with our way of beginning, committing and failing."""

    def __init__(self, url: str, *, clock: Clock | None = None, pool_size: int = 16) -> None:
        self.url = normalise(url)
        self.clock = clock or SystemClock()
        self.bell: Callable[[], None] | None = None
        """What `Transaction.ring` rings; nothing until somebody hangs one."""
        self._one_writer: AbstractContextManager[Any] = threading.Lock() if self.is_sqlite else nullcontext()
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgresql_engine(self.url, pool_size)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that may write; commits at the end, rolls back on any exception.

        On SQLite it takes the write lock at once (BEGIN IMMEDIATE): what was read stays true until commit.
        """
        # Writers of one process queue here in order: SQLite's own busy wait is a sleep with a lottery at its end.
        with self._failures_named(), self._one_writer, self.engine.connect() as fresh:
            conn = fresh.execution_options(sqlite_begin="IMMEDIATE") if self.is_sqlite else fresh
            with conn.begin():
                # Not before: whoever waited for the lock would write times that are older than what it read.
                tx = Transaction(conn, self.clock.now(), self.bell)
                yield tx
        tx.committed()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that only reads: one consistent picture, no write lock."""
        with self._failures_named(), self.engine.connect() as conn, conn.begin():
            yield Transaction(conn, self.clock.now())

    def dispose(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise Unavailable("the database does not answer", reason=_first_line(error)) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise Unavailable("the database connection broke", reason=_first_line(error)) from error
            raise


def normalise(url: str) -> URL:
    """The URL with our drivers: `postgres://` and `postgresql://` mean psycopg 3."""
    parsed = make_url(url)
    if parsed.get_backend_name() in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        raise ValueError(f"{parsed.get_backend_name()} is not supported: use sqlite:///PATH or postgresql://…")
    return parsed


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def _loads(value: Any) -> Any:
    # SQLite gives a JSON column's bare number back as a number: its column affinity took the quotes for a detour.
    return value if isinstance(value, int | float) else orjson.loads(value)


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _postgresql_engine(url: URL, pool_size: int) -> Engine:
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        pool_recycle=1800,
        json_serializer=_dumps,
        json_deserializer=_loads,
        connect_args={"connect_timeout": 5, "application_name": "longshore", "prepare_threshold": 3},
    )


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        json_serializer=_dumps,
        json_deserializer=_loads,
        connect_args={"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-16000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        conn.exec_driver_sql(f"BEGIN {conn.get_execution_options().get('sqlite_begin', 'DEFERRED')}")

    return engine
