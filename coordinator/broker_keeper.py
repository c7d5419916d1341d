"""What the leader does for the broker beside sending tickets: see it come back, keep nodes' logins, send canaries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis
import structlog

from coordinator.broker_advice import advise
from coordinator.domains.fleet import broker_access, canaries
from coordinator.domains.queue import leadership
from coordinator.domains.queue.leadership import NotLeading, Term
from coordinator.domains.queue.relay import Relay
from coordinator.resources import Resources
from shared.errors import LongshoreError
from shared.queue import logins
from shared.queue.logins import LoginsRefused

PROBE_SECONDS = 0.2
"""How often a broker that is away is asked whether it is back."""
REFUSED_SECONDS = 60.0
"""A broker that refuses to make logins is asked again after this long."""

log = structlog.get_logger(__name__)


class BrokerKeeper:
    """Works on a thread of its own, so that a broker that hangs holds up neither placement nor the lead.

    `term` tells whether we lead; `on_back` is called when a broker that was away answers again.
    """

    def __init__(
        self, resources: Resources, relay: Relay, *, term: Callable[[], Term | None], on_back: Callable[[], None]
    ) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._relay = relay
        self._term = term
        self._on_back = on_back
        self._changed = threading.Event()
        self._closing = False
        self._look_at = 0.0
        self._canary_at = 0.0
        self._is_advised = False
        self._is_refusal_told = False
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Look at the logins now: the broker may be another than a moment ago, or we lead anew."""
        self._look_at = 0.0
        self._changed.set()

    def close(self) -> None:
        self._closing = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            self._changed.wait(self._patience())
            self._changed.clear()
            if not self._closing:
                self._turn()

    def _patience(self) -> float:
        if self._relay.is_broken:
            return PROBE_SECONDS
        if self._term() is None:
            return self._settings.sweep_seconds
        return max(0.0, min(self._look_at, self._canary_at) - time.monotonic())

    def _turn(self) -> None:
        try:
            if self._relay.is_broken:
                if not self._relay.answers():
                    return
                log.info("broker.back")
                self._look_at = 0.0
                self._on_back()
            term = self._term()
            if term is not None:
                self._keep(term)
        except NotLeading:
            # The dispatcher finds out by itself; what we wanted to write is not written.
            return
        except LongshoreError as error:
            log.warning("broker_keeper.postponed", error=error.message)
            self._postpone()
        except (redis.RedisError, OSError) as error:
            log.warning("broker.away", error=type(error).__name__)
            self._relay.is_broken = True

    def _keep(self, term: Term) -> None:
        now = time.monotonic()
        if not self._is_advised:
            self._advise()
        if now >= self._look_at:
            self._look_at = now + self._settings.sweep_seconds
            self._keep_logins()
        if now >= self._canary_at:
            self._canary_at = now + self._settings.canary_seconds
            self._send_canaries(term)

    def _postpone(self) -> None:
        soon = time.monotonic() + self._settings.sweep_seconds
        self._look_at, self._canary_at = max(self._look_at, soon), max(self._canary_at, soon)

    def _advise(self) -> None:
        for found in advise(self._resources.redis):
            if found.is_right is False:
                log.warning("broker.setting", setting=found.name, advice=found.message)
        self._is_advised = True

    def _keep_logins(self) -> None:
        """Make what the broker has the same as what the rows of nodes say: it forgets when it restarts."""
        try:
            on_broker = logins.known(self._resources.redis)
            with self._resources.database.read() as tx:
                drifted = broker_access.find_drift(tx, self._resources, on_broker)
            if drifted:
                broker_access.settle(self._resources, drifted)
                log.info("broker.logins_kept", nodes=len(drifted))
            self._is_refusal_told = False
        except LoginsRefused as error:
            self._look_at = time.monotonic() + REFUSED_SECONDS
            self._note_refusal(error)

    def _note_refusal(self, error: LoginsRefused) -> None:
        mode = self._settings.node_broker_logins
        if mode == "shared":
            return
        with self._resources.database.write() as tx:
            broker_access.note_refusal(tx, self._settings)
        if not self._is_refusal_told:
            nodes_get = "nothing" if mode == "own" else "the login that all share"
            log.warning("broker.makes_no_logins", reason=str(error), nodes_get=nodes_get)
            self._is_refusal_told = True

    def _send_canaries(self, term: Term) -> None:
        with self._resources.database.read() as tx:
            missed = canaries.listeners(tx)
        if not missed:
            return
        sent = canaries.send(self._resources.redis, missed)
        with self._resources.database.write() as tx:
            leadership.require(tx, term)
            canaries.note_sent(tx, sent)
