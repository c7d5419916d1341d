"""The keeper itself: holds descriptors by name, and clears the node's computers away when no daemon comes back.

Dockerd and a command just wait while nobody reads their stream, as long as somebody holds its other end. The keeper is
that somebody. It reads nothing, decides nothing about jobs, and ends when it is of no use: told so by a daemon that
ends properly, at once when it holds nothing, or once what it held is cleared away because the time is over until which
the coordinator will not have given the work to other nodes.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.keeper import wire

DEFAULT_SECONDS = 20.0
"""How long it waits for a daemon when the one that is gone never said until when."""
_BETWEEN_TRIES = 2.0
_GIVE_UP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Held:
    """One stream: what a daemon needs to know of it, and its descriptors."""

    handle: dict[str, Any]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Keeper:
    """Serves one daemon after another. `sweep` removes every computer of the node; False when it could not."""

    def __init__(
        self,
        *,
        listener: socket.socket,
        client: socket.socket,
        sweep: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._client: socket.socket | None = client
        self._sweep = sweep
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._until: float | None = None
        self._is_over = False

    def run(self) -> None:
        while not self._is_over:
            if self._client is not None:
                self._serve(self._client)
            elif not self._wait_for_daemon(self._patience()):
                self._clear_away()
        for held in self._held.values():
            held.close()
        if self._client is not None:
            self._client.close()

    # -- with a daemon

    def _serve(self, client: socket.socket) -> None:
        packet = wire.receive(client)
        if packet is None:
            self._part(client)
            return
        message, descriptors = packet
        try:
            self._obey(client, message, descriptors)
        except OSError:
            # It died while we answered; the next one asks anew.
            self._part(client)

    def _part(self, client: socket.socket) -> None:
        client.close()
        self._client = None
        if self._until is None:
            self._until = self._clock() + DEFAULT_SECONDS

    def _obey(self, client: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
        asked = message["op"]
        if asked == wire.HOLD:
            self._drop(message["attempt"])
            self._held[message["attempt"]] = Held(message["handle"], tuple(descriptors))
        elif asked == wire.DROP:
            self._drop(message["attempt"])
        elif asked == wire.RENEW:
            self._until = message["until"]
        elif asked == wire.TAKE:
            self._tell_all(client)
        elif asked == wire.BYE:
            self._is_over = True

    def _drop(self, attempt: str) -> None:
        held = self._held.pop(attempt, None)
        if held is not None:
            held.close()

    def _tell_all(self, client: socket.socket) -> None:
        for attempt, held in self._held.items():
            wire.send(client, {"op": wire.KEPT, "attempt": attempt, "handle": held.handle}, held.descriptors)
        wire.send(client, {"op": wire.DONE, "until": self._until, "pid": os.getpid()})

    # -- without one

    def _patience(self) -> float:
        if not self._held or self._until is None:
            return 0.0
        return max(0.0, self._until - self._clock())

    def _wait_for_daemon(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._listener], [], [], seconds)
        if ready:
            self._client, _ = self._listener.accept()
        return bool(ready)

    def _clear_away(self) -> None:
        """Nobody came. What we hold is ended for good, so whoever comes from now on finds nothing."""
        for attempt in list(self._held):
            self._drop(attempt)
        give_up = self._clock() + _GIVE_UP_SECONDS
        while not self._sweep() and self._clock() < give_up:
            # The container runtime is away. A daemon that comes meanwhile will sweep itself.
            if self._wait_for_daemon(_BETWEEN_TRIES):
                return
        self._is_over = True
