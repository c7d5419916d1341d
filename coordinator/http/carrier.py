"""The event loop that carries all WebSockets of a process: one thread, however many there are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

import structlog

SLOW_WORK_THREADS = 4
"""For what sockets ask of the database: the loop itself never waits for anything but sockets."""
GOODBYE_SECONDS = 1.5

log = structlog.get_logger(__name__)


class Carried(Protocol):
    """One socket's whole life on the loop."""

    @property
    def is_admitted(self) -> bool: ...

    def run(self) -> Coroutine[Any, Any, None]: ...

    def stop(self) -> None:
        """End it soon; called on the loop."""


class Carrier:
    """Starts its thread with the first socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._carried: dict[Carried, asyncio.Task[None]] = {}
        self._reserved = 0
        self.is_stopping = False

    @property
    def count(self) -> int:
        """Sockets that are open or about to be."""
        return len(self._carried) + self._reserved

    @property
    def waiting(self) -> int:
        """Sockets that have not shown yet who they are."""
        return sum(not each.is_admitted for each in list(self._carried))

    def adopt(self, make: Callable[[], Carried]) -> None:
        """Carry what `make` makes on the loop. Callable from any thread."""
        loop = self._running_loop()
        with self._lock:
            self._reserved += 1
        loop.call_soon_threadsafe(self._begin, make)

    def shut_down(self) -> None:
        """Let every socket say goodbye; returns when all are closed, or when that takes too long."""
        self.is_stopping = True
        loop = self._loop
        if loop is not None and self.count:
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._stop_all(), loop).result(GOODBYE_SECONDS)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(ThreadPoolExecutor(SLOW_WORK_THREADS, thread_name_prefix="sockets"))
                threading.Thread(target=self._loop.run_forever, name="sockets", daemon=True).start()
            return self._loop

    def _begin(self, make: Callable[[], Carried]) -> None:
        with self._lock:
            self._reserved -= 1
        carried = make()
        task = asyncio.get_running_loop().create_task(carried.run())
        self._carried[carried] = task
        task.add_done_callback(lambda done: self._ended(carried, done))

    def _ended(self, carried: Carried, task: asyncio.Task[None]) -> None:
        del self._carried[carried]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("socket.failed", exc_info=error)

    async def _stop_all(self) -> None:
        tasks = list(self._carried.values())
        for each in list(self._carried):
            each.stop()
        await asyncio.gather(*tasks, return_exceptions=True)


CARRIER = Carrier()
"""This process's."""
