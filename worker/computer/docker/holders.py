"""Namespace holders: one idle container per slot whose empty network the slot's computers join one after another.

Making a network namespace is about half of what Docker takes to start a container. A holder lends its own to one
computer at a time, so no two jobs ever share it while both live.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.computer.docker.engine import Engine, EngineError, container_path
from worker.computer.docker.recipe import Identity, holder_body
from worker.computer.docker.removal import remove_container

_MAX_USES = 200
_MAX_AGE_SECONDS = 3600.0
_NOT_THERE = 404


@dataclass(slots=True)
class Holder:
    container: str
    born: float
    uses: int = 0

    def worn(self, now: float) -> bool:
        return self.uses >= _MAX_USES or now - self.born >= _MAX_AGE_SECONDS


class Holders:
    """Lends holders and takes them back; a holder is made when none is free."""

    def __init__(
        self,
        engine: Engine,
        identity: Identity,
        *,
        image: str,
        runtime: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._body = holder_body(identity, image=image, runtime=runtime)
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._free: list[Holder] = []
        self._known: set[str] = set()

    @property
    def known(self) -> frozenset[str]:
        """Containers that a reaper must leave alone."""
        with self._lock:
            return frozenset(self._known)

    def borrow(self) -> Holder:
        holder = self._pop() or self._make()
        holder.uses += 1
        return holder

    def take_over(self, container: str) -> Holder:
        """The holder of a computer that an earlier process of this node made; how worn it is nobody knows."""
        with self._lock:
            self._known.add(container)
        return Holder(container, self._clock(), uses=_MAX_USES)

    def give_back(self, holder: Holder) -> None:
        """Only once the computer that used it is gone."""
        with self._lock:
            keep = not (self._closed or holder.worn(self._clock()))
            if keep:
                self._free.append(holder)
        if not keep:
            self.discard(holder)

    def discard(self, holder: Holder) -> None:
        with self._lock:
            self._known.discard(holder.container)
        remove_container(self._engine, holder.container)

    def take_back(self, holder: Holder) -> bool:
        """Like `give_back` after something went wrong; False when the holder itself turned out dead."""
        if self._runs(holder):
            self.give_back(holder)
            return True
        # What ended one may have ended all (a restart, a clean-up by hand): start over with fresh ones.
        self.discard(holder)
        self._discard_free()
        return False

    def _runs(self, holder: Holder) -> bool:
        try:
            return bool(self._engine.get(container_path(holder.container, "json"))["State"]["Running"])
        except EngineError as error:
            if error.status_code == _NOT_THERE:
                return False
            raise

    def close(self) -> None:
        """From now on what is given back is removed."""
        with self._lock:
            self._closed = True
        self._discard_free()

    def _discard_free(self) -> None:
        with self._lock:
            free, self._free = self._free, []
        for holder in free:
            self.discard(holder)

    def _pop(self) -> Holder | None:
        with self._lock:
            return self._free.pop() if self._free else None

    def _make(self) -> Holder:
        # Known before it runs: a reaper that looks in between must not take it for an orphan.
        with self._lock:
            container = str(self._engine.post("/containers/create", body=self._body)["Id"])
            self._known.add(container)
        holder = Holder(container, self._clock())
        try:
            self._engine.post(container_path(container, "start"))
        except BaseException:
            self.discard(holder)
            raise
        return holder
