"""The computers of a node: a slot for each that runs, and their removal beside the work.

At most `slots` computers run at a time. One whose attempt is reported gives its slot back and is removed by a small
pool, at most `slots` of them at a time, so that there are never more than twice `slots` computers on a node and the
next job does not wait for the removal of the last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import structlog

from shared.errors import LongshoreError
from worker.attempts import Attempt, Stopped
from worker.computer.contract import Computer, ComputerDriver, ComputerError, ComputerSpec

_REMOVERS = 4
_FIRST_PAUSE = 0.2
_LAST_PAUSE = 5.0

log = structlog.get_logger(__name__)


class Computers:
    """Makes computers for attempts and clears them away."""

    def __init__(self, driver: ComputerDriver, *, slots: int, default_image: str | None = None) -> None:
        self.driver = driver
        self.default_image = default_image
        self.slots = slots
        self._used = 0
        self._changed = threading.Condition()
        self._rented: dict[str, Computer | None] = {}
        self._removing: set[str] = set()
        self._permits = threading.Semaphore(slots)
        self._pool = ThreadPoolExecutor(min(slots, _REMOVERS), thread_name_prefix="remover")

    @property
    def used(self) -> int:
        return self._used

    @property
    def count(self) -> int:
        """Computers that exist, with those being removed."""
        with self._changed:
            return sum(computer is not None for computer in self._rented.values()) + len(self._removing)

    def rent(self, attempt: Attempt, spec: ComputerSpec) -> Computer:
        """A computer for this attempt, once a slot is free; Stopped when the attempt has to stop first."""
        self._take_slot(attempt)
        computer = self.driver.create(spec)
        with self._changed:
            self._rented[attempt.id] = computer
        attempt.on_kill(lambda: _kill(computer))
        return computer

    def reserve(self, attempt: Attempt) -> None:
        """A slot for an attempt whose computer exists already, however many are taken."""
        with self._changed:
            self._used += 1
            self._rented[attempt.id] = None

    def adopt(self, attempt: Attempt, spec: ComputerSpec) -> Computer:
        """The computer of an attempt whose slot is reserved."""
        computer = self.driver.adopt(spec)
        with self._changed:
            self._rented[attempt.id] = computer
        attempt.on_kill(lambda: _kill(computer))
        return computer

    def present(self) -> list[str] | None:
        """Ids of all computers that exist now, as the driver tells; None when it does not."""
        try:
            return list(self.driver.list_owned())
        except ComputerError as error:
            log.warning("computers_not_listed", error=error.message)
            return None

    def holds(self, attempt: Attempt) -> bool:
        """Whether the attempt has a slot."""
        with self._changed:
            return attempt.id in self._rented

    def wake(self) -> None:
        """Let those that wait for a slot look whether they have to stop."""
        with self._changed:
            self._changed.notify_all()

    def remove(self, attempt: Attempt) -> None:
        """Remove the attempt's computer now; when this returns it is gone. A driver that is down is waited for."""
        with self._changed:
            computer = self._rented.get(attempt.id)
        attempt.on_kill(None)
        pause = _FIRST_PAUSE
        while computer is not None and not _destroy(computer):
            time.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
        with self._changed:
            if attempt.id in self._rented:
                self._rented[attempt.id] = None

    def clear_away(self, attempt: Attempt) -> None:
        """Give the attempt's slot back, and have its computer removed soon."""
        with self._changed:
            if attempt.id not in self._rented:
                return
            computer = self._rented[attempt.id]
        attempt.on_kill(None)
        if computer is not None:
            self._permits.acquire()
            with self._changed:
                self._removing.add(attempt.id)
            self._pool.submit(self._remove_later, attempt.id, computer)
        with self._changed:
            del self._rented[attempt.id]
            self._used -= 1
            self._changed.notify_all()

    def reap(self, keep: Collection[str]) -> None:
        """Remove what earlier daemons of this node left behind."""
        with self._changed:
            spared = {*keep, *self._rented, *self._removing}
        try:
            gone = self.driver.reap(spared)
        except ComputerError as error:
            log.warning("reaping_failed", error=error.message)
            return
        if gone:
            log.info("computers_reaped", computers=list(gone))

    def close(self) -> None:
        """Wait for the removals under way, then let the driver clear up."""
        self._pool.shutdown(wait=True)
        try:
            self.driver.close()
        except LongshoreError as error:
            log.warning("driver_not_closed", error=error.message)

    def _take_slot(self, attempt: Attempt) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._used < self.slots or attempt.stopping.is_set())
            if attempt.stopping.is_set():
                raise Stopped
            self._used += 1
            self._rented[attempt.id] = None

    def _remove_later(self, attempt_id: str, computer: Computer) -> None:
        try:
            _destroy(computer)
        finally:
            with self._changed:
                self._removing.discard(attempt_id)
            self._permits.release()


def _destroy(computer: Computer) -> bool:
    try:
        computer.destroy()
    except ComputerError as error:
        # The reaper comes round and tries again: the computer carries our name.
        log.warning("computer_not_removed", computer=computer.spec.id, error=error.message)
        return False
    return True


def _kill(computer: Computer) -> None:
    try:
        computer.kill_all()
    except ComputerError as error:
        log.warning("computer_not_killed", computer=computer.spec.id, error=error.message)
