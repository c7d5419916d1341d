"""Calls that overlap: each on its own thread, one at a time in motion; the schedule says which, at every statement."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import Connection

from tests.faults.model.stage import Call, Stage, Where

SLOW, QUICK = 0.4, 8.0
SHARE_OF_SLOW = 0.3
SHARE_OF_HANGING = 0.8
"""Of the calls that a schedule wants to see hang."""
_LOOK_SECONDS = 0.004
"""So long a step may take before we ask whether it waits for another's lock."""
_PATIENCE_SECONDS = 20.0


class Stuck(AssertionError):
    """All strands wait, and none of them goes on."""


class Locks(Protocol):
    """Who waits for whom on the server."""

    def blockers(self, backend: int) -> frozenset[int]: ...

    def interrupt(self, backend: int) -> None: ...


class Strand:
    """One call in motion. It rests before each statement (as its dice fall) and always before its commit."""

    def __init__(self, stage: Stage, call: Call, *, share_of_rests: float) -> None:
        self.call = call
        self.backend: int | None = None
        """the connection's process on the server"""
        self._stage = stage
        self._share_of_rests = share_of_rests
        self._go = threading.Semaphore(0)
        self._at_rest = threading.Event()
        self.is_blocked = False
        self.pace = QUICK
        """How likely it is to be the next to move."""
        call.rest = self._rest
        self._thread = threading.Thread(target=self._run, name=call.name, daemon=True)

    @property
    def is_over(self) -> bool:
        return self.call.outcome is not None

    def go_on(self, locks: Locks) -> None:
        """Move to the next rest, to the end, or to a lock that another strand holds."""
        self._at_rest.clear()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self.settle(locks)

    def settle(self, locks: Locks) -> None:
        """Return once it rests, is over, or waits for a lock."""
        waited = 0.0
        while not self._at_rest.wait(_LOOK_SECONDS):
            waited += _LOOK_SECONDS
            if self.backend is not None and locks.blockers(self.backend):
                self.is_blocked = True
                return
            if waited > _PATIENCE_SECONDS:
                raise Stuck(f"{self.call.name} neither moves nor waits for a lock")
        self.is_blocked = False
        if self.is_over:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._stage.play(self.call)
        finally:
            self._at_rest.set()

    def _rest(self, conn: Connection, where: Where) -> None:
        driver: Any = conn.connection.dbapi_connection
        self.backend = driver.info.backend_pid
        if where is Where.commit or self.call.dice.random() < self._share_of_rests:
            self._at_rest.set()
            self._go.acquire()


class Strands:
    """All calls in motion."""

    def __init__(self, stage: Stage, locks: Locks, *, share_of_rests: float = 0.3, hanging: str = "") -> None:
        self._stage = stage
        self._locks = locks
        self._share_of_rests = share_of_rests
        self._hanging = hanging
        self.all: list[Strand] = []

    def begin(self, call: Call) -> Strand:
        strand = Strand(self._stage, call, share_of_rests=self._share_of_rests)
        # One of them may hang while the world goes on; more would leave nobody to go on.
        if all(other.pace == QUICK for other in self.all) and call.dice.random() < self._share_of_slow(call):
            strand.pace = SLOW
        self.all.append(strand)
        self.go_on(strand)
        return strand

    def _share_of_slow(self, call: Call) -> float:
        if not self._hanging:
            return SHARE_OF_SLOW
        return SHARE_OF_HANGING if re.match(self._hanging, call.name) else 0.0

    def movable(self) -> list[Strand]:
        return [strand for strand in self.all if not strand.is_blocked]

    def go_on(self, strand: Strand) -> None:
        strand.go_on(self._locks)
        if strand.is_blocked:
            self._spare_a_second(strand)
        self._settle_the_blocked()

    def take_finished(self) -> list[Call]:
        done = [strand.call for strand in self.all if strand.is_over]
        self.all = [strand for strand in self.all if not strand.is_over]
        return done

    def untangle(self) -> None:
        """All wait for each other: the server ends that by failing one of them, which takes it a second."""
        _until(lambda: any(_is_free(strand, self._locks) for strand in self.all))

    def _spare_a_second(self, strand: Strand) -> None:
        """One may wait at a time: of two who wait for a row, chance and no seed decides who has it next.

        The second meets a time limit, unless the two wait for each other: that is for the server to find.
        """
        waiting = {other.backend for other in self.all if other.is_blocked and other is not strand}
        assert strand.backend is not None
        entangled = any(strand.backend in self._locks.blockers(backend) for backend in waiting if backend is not None)
        if waiting and not entangled:
            self._locks.interrupt(strand.backend)
            _until(lambda: _is_free(strand, self._locks))

    def _settle_the_blocked(self) -> None:
        # In the order of their ids they would hide who waits for whom; in the order of their start they do not.
        for strand in self.all:
            if strand.is_blocked:
                strand.settle(self._locks)


def _is_free(strand: Strand, locks: Locks) -> bool:
    strand.settle(locks)
    return not strand.is_blocked


def _until(is_so: Callable[[], bool]) -> None:
    """Ask until it is so; asking waits a moment by itself."""
    for _ in range(int(_PATIENCE_SECONDS / _LOOK_SECONDS)):
        if is_so():
            return
    raise Stuck("calls wait for each other, and the server does not end it")
