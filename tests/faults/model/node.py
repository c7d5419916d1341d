"""A node as a state machine: a daemon that can die between any two steps, its disk, its containers, its requests."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.contracts.node import Grant, HeartbeatReply, Outcome, Report, SyncReply, Want
from shared.errors import Forbidden
from tests.faults.model.broker import Popped, SimulatedBroker
from tests.faults.model.ledger import Container, Ledger, Ran
from tests.faults.model.stage import Done, Failed
from tests.faults.model.stage import Outcome as CallOutcome
from worker.fence import SHARE_OF_LEASE

SLOTS = 2
LIGHT_SLOTS = 3
_OUTCOMES = {Ran.succeeded: Outcome.succeeded, Ran.failed: Outcome.failed, Ran.broke: Outcome.lost}


@dataclass(slots=True, eq=False)
class Parcel:
    """A request on its way, and its answer on its way back."""

    node: str
    epoch: str
    kind: str
    body: dict[str, Any]
    sent_at: float
    is_awaited: bool = True
    """False once its sender is dead or has given up waiting; the coordinator may still get it."""
    outcome: CallOutcome | None = None

    @property
    def key(self) -> str:
        """A name of its own, whatever else its sender sends."""
        return f"parcel {id(self)}"


@dataclass(slots=True, eq=False)
class Held:
    """An attempt in hand: granted, and its report not yet answered."""

    attempt: str
    token: str
    job: str
    spec: dict[str, Any]
    container: Container | None = None
    stop: Want | Outcome | None = None
    """keep is never in it: what it has to end as, or `kill`"""
    report: dict[str, Any] | None = None


@dataclass(slots=True)
class Daemon:
    """What is in memory, and gone when the process is."""

    epoch: str
    is_approved: bool = False
    hears: bool = False
    is_draining: bool = False
    fence_at: float | None = None
    held: dict[str, Held] = field(default_factory=dict)
    claiming: dict[str, str] = field(default_factory=dict)
    """attempt → nonce"""
    beat: Parcel | None = None
    sync: Parcel | None = None
    next_beat: float = 0.0
    lease_seconds: float = 0.0


@dataclass(slots=True)
class Disk:
    """What outlives the process: the journal's entries by attempt."""

    claimed: dict[str, str] = field(default_factory=dict)
    granted: dict[str, Held] = field(default_factory=dict)

    def forget(self, attempt_id: str) -> None:
        self.claimed.pop(attempt_id, None)
        self.granted.pop(attempt_id, None)


class SimulatedNode:
    """One worker host."""

    def __init__(
        self,
        *,
        name: str,
        node_id: str,
        credential: str,
        adopts: bool,
        broker: SimulatedBroker,
        ledger: Ledger,
        dice: random.Random,
    ) -> None:
        self.name, self.id, self.credential = name, node_id, credential
        self.adopts = adopts
        """Whether containers outlive the daemon and its successor takes them over; else they die with it."""
        self._broker, self._ledger, self._dice = broker, ledger, dice
        self._disk = Disk()
        self.daemon: Daemon | None = None
        self.is_paused = False
        self.is_cut_off = False
        """from the coordinator"""
        self.is_deaf = False
        """from the broker"""
        self.is_gone = False
        self.pings = 0
        self._epochs = 0

    # -- life and death

    def start(self, now: float) -> None:
        """A new daemon, which finds what the one before it left."""
        self._epochs += 1
        daemon = self.daemon = Daemon(f"{self.name}-epoch-{self._epochs}", next_beat=now)
        for attempt_id in list(self._disk.claimed):
            # Whether it was granted nobody knows; nothing was started.
            self._disk.forget(attempt_id)
        for held in self._disk.granted.values():
            daemon.held[held.attempt] = held
            if held.report is None and (not self.adopts or held.container is None):
                self._end(held, Outcome.lost, reason="node_restarted")

    def kill(self) -> None:
        """kill -9."""
        daemon, self.daemon = self.daemon, None
        self.is_paused = False
        for parcel in (daemon.beat, daemon.sync) if daemon else ():
            if parcel is not None:
                parcel.is_awaited = False
        for container in self._containers():
            container.was_unwatched = True
            if not self.adopts:
                container.remove()

    def burn(self) -> None:
        """The machine is gone for good, with everything on it."""
        self.kill()
        self.is_gone = True
        for container in self._containers():
            container.remove()

    def pause(self) -> None:
        """SIGSTOP: the daemon stands still, its containers do not."""
        self.is_paused = True
        for container in self._containers():
            container.was_unwatched = True

    def tick(self, now: float) -> None:
        """What time alone does: the daemon's watch over its leases."""
        daemon = self.daemon
        if daemon is None or self.is_paused or daemon.fence_at is None or now < daemon.fence_at:
            return
        daemon.fence_at = None
        for held in daemon.held.values():
            if held.report is None:
                self._end(held, Outcome.lost, reason="coordinator_silent")

    # -- what a daemon does, step by step

    @property
    def acts(self) -> Daemon | None:
        """The daemon, when it can do something now."""
        return None if self.is_paused else self.daemon

    def wants_ticket(self) -> bool:
        daemon = self.acts
        room = daemon is not None and len(daemon.held) + len(daemon.claiming) < SLOTS + LIGHT_SLOTS
        return room and daemon is not None and daemon.hears and not self.is_deaf

    def take(self) -> Popped | None:
        """Take a ticket; the claim goes out with the next sync."""
        daemon = self.daemon
        assert daemon is not None
        popped, pings = self._broker.pop(self.id)
        self.pings += pings
        if popped is not None and popped.attempt not in daemon.held and popped.attempt not in daemon.claiming:
            daemon.claiming[popped.attempt] = f"{self._dice.getrandbits(64):x}"
        return popped

    def wants_beat(self, now: float) -> bool:
        daemon = self.acts
        return daemon is not None and daemon.beat is None and now >= daemon.next_beat

    def send_beat(self, now: float) -> Parcel:
        daemon = self.daemon
        assert daemon is not None
        there = {each.attempt for each in self._containers() if each.is_there}
        body = {
            "epoch": daemon.epoch,
            "slots": SLOTS,
            "light_slots": LIGHT_SLOTS,
            "slots_used": len(daemon.held),
            "docker_ok": True,
            "queue_ok": True,
            "draining": daemon.is_draining,
            "attempts": [{"attempt_id": each.attempt, "token": each.token} for each in daemon.held.values()],
            "present": sorted(there),
            "vitals": {"queue": {"pings": self.pings, "last_ping_seconds_ago": None}},
        }
        daemon.beat = Parcel(self.id, daemon.epoch, "beat", body, now)
        return daemon.beat

    def wants_sync(self) -> bool:
        daemon = self.acts
        if daemon is None or daemon.sync is not None:
            return False
        return bool(daemon.claiming) or any(held.report is not None for held in daemon.held.values())

    def send_sync(self, now: float) -> Parcel:
        """Ask for what was taken and tell what has ended, all in one; a repeat says the same with the same nonces."""
        daemon = self.daemon
        assert daemon is not None
        self._disk.claimed |= daemon.claiming
        claims = [{"attempt_id": key, "nonce": nonce} for key, nonce in daemon.claiming.items()]
        reports = [held.report for held in daemon.held.values() if held.report is not None]
        daemon.sync = Parcel(
            self.id, daemon.epoch, "sync", {"epoch": daemon.epoch, "claims": claims, "reports": reports}, now
        )
        return daemon.sync

    def give_up(self, parcel: Parcel) -> None:
        """Wait no longer for the answer; what was asked will be asked again."""
        parcel.is_awaited = False
        daemon = self.daemon
        if daemon is not None and daemon.beat is parcel:
            daemon.beat = None
        if daemon is not None and daemon.sync is parcel:
            daemon.sync = None

    def receive(self, parcel: Parcel, now: float) -> None:
        """Take the answer in."""
        daemon, outcome = self.daemon, parcel.outcome
        assert daemon is not None
        assert parcel.is_awaited
        self.give_up(parcel)
        if isinstance(outcome, Done) and parcel.kind == "beat":
            self._obey(daemon, outcome.value, parcel.sent_at, now)
        elif isinstance(outcome, Done):
            self._settle(daemon, outcome.value)
        else:
            daemon.next_beat = now
            if isinstance(outcome, Failed) and isinstance(outcome.error, Forbidden):
                self._cut_off(daemon)

    def startable(self) -> Iterator[Held]:
        daemon = self.acts
        held = daemon.held.values() if daemon is not None else ()
        return (each for each in held if each.container is None and each.report is None and each.stop is None)

    def start_container(self, held: Held) -> Container:
        told = held.spec["input"]
        held.container = self._ledger.start(
            Container(
                attempt=held.attempt,
                job=held.job,
                node=self.name,
                will=_will(self._dice, told),
                seconds=self._dice.uniform(0.1, float(told["seconds"])),
                is_exclusive=bool(held.spec.get("is_exclusive")),
            )
        )
        return held.container

    def endable(self) -> Iterator[Held]:
        """What ended by itself, or was told to end."""
        daemon = self.acts
        for held in daemon.held.values() if daemon is not None else ():
            ran_out = held.container is not None and not held.container.is_running
            if held.report is None and (held.stop is not None or ran_out):
                yield held

    def end(self, held: Held) -> None:
        """Write down how it ended; what was stopped is gone first."""
        daemon = self.daemon
        assert daemon is not None
        if held.stop is Want.kill:
            self._let_go(daemon, held)
        elif isinstance(held.stop, Outcome):
            self._end(held, held.stop, reason=None)
        else:
            assert held.container is not None
            self._end(held, _OUTCOMES[held.container.state], reason=None)

    def drain(self) -> None:
        """The daemon's own signal: take nothing new, hand back what runs."""
        daemon = self.daemon
        assert daemon is not None
        daemon.is_draining = True
        daemon.hears = False
        for held in daemon.held.values():
            held.stop = held.stop or Outcome.returned

    # -- inside

    def _containers(self) -> Iterator[Container]:
        return (each for each in self._ledger.containers if each.node == self.name and each.is_there)

    def _end(self, held: Held, outcome: Outcome, *, reason: str | None) -> None:
        is_stopped = outcome in (Outcome.cancelled, Outcome.returned, Outcome.lost)
        if held.container is not None and (is_stopped or held.container.is_exclusive):
            held.container.remove()
        held.stop = outcome
        held.report = _report(held, outcome, reason)

    def _let_go(self, daemon: Daemon, held: Held) -> None:
        if held.container is not None:
            held.container.remove()
        daemon.held.pop(held.attempt, None)
        self._disk.forget(held.attempt)

    def _obey(self, daemon: Daemon, reply: HeartbeatReply, sent_at: float, now: float) -> None:
        daemon.next_beat = now + reply.heartbeat_seconds
        daemon.fence_at = sent_at + reply.lease_seconds * SHARE_OF_LEASE
        daemon.is_approved = reply.is_approved
        if not reply.is_approved:
            self._cut_off(daemon)
            return
        daemon.hears = reply.broker is not None and not daemon.is_draining
        for attempt_id, want in reply.attempts.items():
            held = daemon.held.get(attempt_id)
            if held is None or want == Want.keep:
                continue
            if want == Want.kill:
                held.stop = Want.kill
                held.report = None
            elif held.report is None and held.stop is None:
                held.stop = Outcome.cancelled

    def _cut_off(self, daemon: Daemon) -> None:
        """We are nobody to the coordinator: everything of ours was given to others."""
        daemon.hears = False
        for attempt_id in list(daemon.claiming):
            del daemon.claiming[attempt_id]
            self._disk.forget(attempt_id)
        for held in list(daemon.held.values()):
            self._let_go(daemon, held)

    def _settle(self, daemon: Daemon, reply: SyncReply) -> None:
        for attempt_id in reply.reports:
            if (held := daemon.held.get(attempt_id)) is not None and held.report is not None:
                self._let_go(daemon, held)
        for told in reply.grants:
            grant = Grant.from_json(told)
            if daemon.claiming.pop(grant.attempt_id, None) is None:
                continue
            self._disk.forget(grant.attempt_id)
            if grant.refused is not None or grant.token is None or grant.spec is None:
                continue
            held = Held(grant.attempt_id, grant.token, grant.job_id or "", grant.spec)
            if daemon.is_draining:
                held.stop = Outcome.returned
            daemon.held[held.attempt] = self._disk.granted[held.attempt] = held


def _will(dice: random.Random, told: dict[str, Any]) -> Ran:
    kinds, weights = zip(*told["ends"].items(), strict=True)
    return Ran(dice.choices(kinds, weights)[0])


def _report(held: Held, outcome: Outcome, reason: str | None) -> dict[str, Any]:
    error: dict[str, Any] | None = None
    if outcome is not Outcome.succeeded:
        retryable = bool(held.spec["input"]["is_retryable"])
        error = {"code": "FAILED", "message": "as the model has it", "retryable": retryable}
    report = Report(
        attempt_id=held.attempt,
        token=held.token,
        outcome=str(outcome),
        exit_code=0 if outcome is Outcome.succeeded else 1,
        reason_code=reason or ("exit_nonzero" if outcome is Outcome.failed else None),
        error=error,
        result={"attempt": held.attempt} if outcome is Outcome.succeeded else None,
        usage={"wall_ms": 1},
    )
    digest = hashlib.sha256(orjson.dumps([report.outcome, report.exit_code, report.result])).hexdigest()
    return {**report.to_json(), "digest": digest}
