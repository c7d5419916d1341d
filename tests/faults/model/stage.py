"""The database as the model has it: the code under test can die, or lose its connection, between every two steps."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from coordinator.store.database import Database, Transaction
from shared.clock import Clock
from shared.errors import Unavailable


class Crashed(BaseException):
    """The process that ran this is dead. Nothing of the code under test may catch it."""


class Where(StrEnum):
    """The step before which something breaks."""

    nowhere = "nowhere"
    statement = "statement"
    commit = "commit"
    publish = "publish"
    """After the commit, before anything that follows from it."""


@dataclass(slots=True)
class Fate:
    """What befalls a call: at which step, and whether the process dies or its database connection breaks."""

    aimed: Where = Where.nowhere
    is_crash: bool = True
    after_statements: int = 0
    has_struck: bool = False

    def strikes(self, where: Where) -> bool:
        """Whether it is here that it breaks; counts statements. It strikes once."""
        if self.has_struck or where is not self.aimed:
            return False
        if where is Where.statement and self.after_statements > 0:
            self.after_statements -= 1
            return False
        self.has_struck = True
        return True


@dataclass(slots=True)
class Done:
    """The call came to its end."""

    value: Any


@dataclass(slots=True)
class Failed:
    """The call raised."""

    error: Exception


@dataclass(slots=True)
class Died:
    """The process died in the middle of the call."""


Outcome = Done | Failed | Died


@dataclass(slots=True)
class Call:
    """One thing that a coordinator process does, in at most one transaction; `done` is told how it came out."""

    name: str
    work: Callable[[], Any]
    done: Callable[[Outcome], None]
    dice: random.Random
    fate: Fate = field(default_factory=Fate)
    who: str = ""
    rest: Callable[[Connection, Where], None] | None = None
    """Called before every step, when calls overlap."""
    outcome: Outcome | None = None

    def step(self, conn: Connection, where: Where) -> None:
        if self.rest is not None:
            self.rest(conn, where)
        if not self.fate.strikes(where):
            return
        if self.fate.is_crash:
            raise Crashed
        raise OperationalError("the model", None, Exception("the connection broke"))

    def committed(self) -> None:
        if self.fate.strikes(Where.publish):
            if self.fate.is_crash:
                raise Crashed
            raise Unavailable("the connection broke after the commit")


class Stage:
    """Who is at work now, by thread."""

    def __init__(self) -> None:
        self.dice_of_nobody = random.Random(0)
        self._calls: dict[int, Call] = {}

    @property
    def current(self) -> Call | None:
        return self._calls.get(threading.get_ident())

    @property
    def dice(self) -> random.Random:
        """The chance of whoever runs: each call has its own, so that their order does not decide their luck."""
        call = self.current
        return self.dice_of_nobody if call is None else call.dice

    def play(self, call: Call) -> Outcome:
        """Run the call on this thread."""
        here = threading.get_ident()
        self._calls[here] = call
        try:
            call.outcome = Done(call.work())
        except Crashed:
            call.outcome = Died()
        except Exception as error:  # noqa: BLE001 - whatever the code under test raises is judged by the model
            call.outcome = Failed(error)
        finally:
            del self._calls[here]
        return call.outcome


class StagedDatabase(Database):
    """The real one, which tells the call at work before each of its steps."""

    def __init__(self, url: str, *, clock: Clock, stage: Stage) -> None:
        super().__init__(url, clock=clock, pool_size=6)
        self._stage = stage
        event.listen(self.engine, "before_cursor_execute", self._on_statement)
        event.listen(self.engine, "commit", self._on_commit)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with super().write() as tx:
            if (call := self._stage.current) is not None:
                tx.after_commit(call.committed)
            yield tx

    def _on_statement(self, conn: Connection, *_: Any) -> None:
        if (call := self._stage.current) is not None:
            call.step(conn, Where.statement)

    def _on_commit(self, conn: Connection) -> None:
        if (call := self._stage.current) is not None:
            call.step(conn, Where.commit)
