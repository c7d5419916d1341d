"""`coordinator dispatch`: the one leader that places jobs, publishes tickets and repairs what went wrong."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import redis
import structlog

from coordinator.broker_keeper import PROBE_SECONDS, BrokerKeeper
from coordinator.domains.fleet import service as fleet
from coordinator.domains.queue import leadership
from coordinator.domains.queue.leadership import NotLeading, Term
from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.placing import OUTLOOK, Placed, place
from coordinator.domains.queue.relay import Relay
from coordinator.domains.tasks.service import files
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.upkeep.assign_agents import Occasions, assign_waiting
from coordinator.upkeep.deadlines import expire_overdue
from coordinator.upkeep.forgetting import forget
from coordinator.upkeep.leases import lose_expired
from coordinator.upkeep.sealing import prune_trail, seal_trail
from coordinator.upkeep.silence import miss_silent_nodes
from coordinator.upkeep.unclaimed import expire_unclaimed
from shared.errors import LongshoreError
from shared.policy.fairness import Sharing
from shared.queue.names import NUDGE_CHANNEL

log = structlog.get_logger(__name__)

BREATH_SECONDS = 0.01
"""Pause after a round of placement: what arrives meanwhile shares the next round's transaction."""
FORGET_SECONDS = 60.0
FORGET_BATCH = 200
ASSIGN_BATCH = 100

Duty = Callable[[Transaction], int]


class Dispatcher:
    """Leads when nobody else does; then places on every nudge and sweeps now and then."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._limits = Limits.of(resources.settings)
        self._occasions = Occasions()
        self._sharing = Sharing(self._settings.fairness_seconds, self._settings.space_max_active)
        self._relay = Relay(resources.redis)
        self._keeper = BrokerKeeper(resources, self._relay, term=lambda: self._term, on_back=self._on_broker_back)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._term: Term | None = None
        self._renew_at = self._sweep_at = self._forget_at = 0.0
        self._due_at = float("inf")

    def run(self) -> None:
        """Work until `stop`; resigns on the way out."""
        listener = threading.Thread(target=self._listen, name="nudges", daemon=True)
        listener.start()
        self._keeper.start()
        log.info("dispatcher.started", holder=self._holder)
        try:
            while not self._stop.is_set():
                self._wake.wait(self._patience())
                self._wake.clear()
                self._turn()
        finally:
            self._stop.set()
            self._resign()
            self._keeper.close()
            listener.join()
            log.info("dispatcher.stopped")

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def _turn(self) -> None:
        try:
            self._lead()
            if self._term is None:
                return
            if time.monotonic() >= self._sweep_at:
                self._sweep(self._term)
            self._place_all(self._term)
        except NotLeading:
            log.warning("dispatcher.deposed")
            self._term = None
            self._renew_at = 0.0
        except LongshoreError as error:
            # The edge of the loop: a database that is away now is asked again at the next turn.
            log.warning("dispatcher.turn_failed", error=error.message, **error.details)
            self._stop.wait(min(1.0, self._settings.sweep_seconds))

    def _patience(self) -> float:
        now = time.monotonic()
        if self._stop.is_set():
            return 0.0
        if self._term is None:
            return max(0.0, self._renew_at - now)
        return max(0.0, min(self._renew_at, self._sweep_at, self._due_at) - now)

    def _lead(self) -> None:
        now = time.monotonic()
        if now < self._renew_at:
            return
        # Until the campaign succeeded we look again soon; afterwards three renewals fit into one term.
        self._renew_at = now + min(1.0, self._settings.leader_seconds / 3)
        with self._resources.database.write() as tx:
            if self._term is None:
                self._term = leadership.campaign(tx, holder=self._holder, seconds=self._settings.leader_seconds)
                if self._term is None:
                    return
                log.info("dispatcher.leads", epoch=self._term.epoch)
                self._sweep_at = 0.0
                self._keeper.look()
            else:
                leadership.renew(tx, self._term, seconds=self._settings.leader_seconds)
        self._renew_at = now + self._settings.leader_seconds / 3

    def _place_all(self, term: Term) -> None:
        """Place until nothing more fits. A broker that is away stops it: jobs wait in the queue, not on their way."""
        while not self._stop.is_set():
            if self._relay.is_broken:
                # The keeper wakes us when it is back; what is due meanwhile must not keep this loop turning.
                self._due_at = float("inf")
                return
            placed = self._place(term)
            self._relay.publish(placed.tickets)
            if not placed.tickets:
                return
            self._stop.wait(BREATH_SECONDS)
            if not placed.is_full_batch and not self._wake.is_set():
                return
            if time.monotonic() >= min(self._renew_at, self._sweep_at):
                # However much there is to place: a leader that does nothing else loses its term, and repairs nothing.
                self._wake.set()
                return
            self._wake.clear()

    def _place(self, term: Term) -> Placed:
        with self._resources.database.write() as tx:
            outlook = leadership.require(tx, term, also=OUTLOOK)
            self._due_at = self._when(outlook.next_due)
            if self._occasions.take() and outlook.has_unassigned:
                began = time.monotonic()
                self._occasions.looked(assign_waiting(tx, self._resources, ASSIGN_BATCH), began=began)
            self._due_at = min(self._due_at, self._occasions.due_at)
            return place(tx, fleet.facts(tx), batch=self._settings.placement_batch, sharing=self._sharing)

    def _sweep(self, term: Term) -> None:
        self._occasions.swept()
        for duty in self._duties(term):
            self._perform(term, duty)
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_SECONDS
            self._perform(term, partial(forget, resources=self._resources))
            self._perform(term, partial(prune_trail, resources=self._resources))
            # Bytes lie outside the database, so their removal is no part of a transaction.
            files.purge(self._resources, FORGET_BATCH)
        self._sweep_at = time.monotonic() + self._settings.sweep_seconds

    def _perform(self, term: Term, duty: Duty) -> None:
        """One duty in a transaction of its own, for as long as we lead."""
        with self._resources.database.write() as tx:
            leadership.require(tx, term)
            count = duty(tx)
        if count:
            log.info("dispatcher.repaired", duty=getattr(duty, "func", duty).__name__, count=count)

    def _duties(self, term: Term) -> list[Duty]:
        return [
            partial(miss_silent_nodes, resources=self._resources, leading_since=term.since),
            partial(lose_expired, resources=self._resources, leading_since=term.since),
            partial(expire_unclaimed, resources=self._resources),
            partial(expire_overdue, resources=self._resources),
            partial(self._relay.sweep, limits=self._limits),
            seal_trail,
        ]

    def _when(self, due: datetime | None) -> float:
        if due is None:
            return float("inf")
        return time.monotonic() + max(0.0, (due - self._resources.clock.now()).total_seconds())

    def _resign(self) -> None:
        if self._term is None:
            return
        try:
            with self._resources.database.write() as tx:
                leadership.resign(tx, self._term)
        except LongshoreError as error:
            log.warning("dispatcher.resign_failed", error=error.message)

    def _on_broker_back(self) -> None:
        """Place what waited, and send what could not be sent, without waiting for anything else."""
        self._sweep_at = 0.0
        self._wake.set()

    def _listen(self) -> None:
        """Turn nudges on the channel into wake-ups; without Redis the sweep interval wakes instead."""
        is_deaf = False
        while not self._stop.is_set():
            try:
                with self._resources.redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(NUDGE_CHANNEL)
                    is_deaf = False
                    # It may have been started anew, without the logins of nodes; and nudges were missed.
                    self._keeper.look()
                    self._wake.set()
                    while not self._stop.is_set():
                        if (nudge := channel.get_message(timeout=1.0)) is not None:
                            self._occasions.heard(_text(nudge["data"]))
                            self._wake.set()
            except (redis.RedisError, OSError) as error:
                if not is_deaf:
                    log.warning("dispatcher.deaf", error=type(error).__name__)
                is_deaf = True
                self._stop.wait(PROBE_SECONDS)


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)
