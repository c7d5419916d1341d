"""The coordinator's side: requests of nodes and people on the real services, and dispatchers that compete to lead."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from coordinator.dispatcher import Dispatcher
from coordinator.domains.fleet import service as fleet
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.leadership import NotLeading
from coordinator.domains.queue.placing import Ticket
from coordinator.domains.system import service as system
from coordinator.domains.system.service import StoredAnswer, StoredKey
from coordinator.resources import Resources
from shared.contracts.node import Enrol, Heartbeat, Sync
from shared.errors import Conflict, Unauthenticated, Unavailable
from shared.ids import new_id
from tests.faults.model.node import LIGHT_SLOTS, SLOTS
from tests.faults.model.stage import Died, Done, Failed, Outcome


@dataclass(frozen=True, slots=True)
class Order:
    """What a client wants done: it repeats the request with the same key until it gets an answer."""

    key: str
    jobs: tuple[Mapping[str, Any], ...]

    @property
    def body_hash(self) -> str:
        return f"{zlib.crc32(orjson.dumps(self.jobs, default=str)):064x}"


class Desk:
    """Requests, each in one transaction as the web tier has it. Answers are what a client would get, or raise."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._database = resources.database

    def enrol(self, name: str, labels: dict[str, str]) -> tuple[str, str]:
        told = Enrol(name=name, hostname=name, ip_address="10.0.0.1", slots=SLOTS, light_slots=LIGHT_SLOTS)
        with self._database.write() as tx:
            node, credential = fleet.enrol(tx, told, token_id=None)
            fleet.approve(tx, self._resources, node.id, is_approved=True, by="model", labels=labels)
        return node.id, credential

    def open_lane(self, agent_id: str, max_active: int | None) -> None:
        with self._database.write() as tx:
            queue.set_lane(tx, self._resources, agent_id, hold_reason=None, max_active=max_active)

    def beat(self, credential: str, body: Mapping[str, Any]) -> Any:
        with self._database.write() as tx:
            node = self._known(tx, credential)
            return fleet.beat(tx, self._resources, node.id, Heartbeat.from_json(body))

    def sync(self, credential: str, body: Mapping[str, Any]) -> Any:
        with self._database.write() as tx:
            node = self._known(tx, credential)
            fleet.require_ready(is_approved=bool(node.is_approved), epoch=node.epoch, asked=body["epoch"])
            return queue.sync(tx, self._resources, node_id=node.id, request=Sync.from_json(body))

    def submit(self, order: Order) -> list[str]:
        """The ids of the accepted jobs; asked again with the same key, the same ids."""
        which = StoredKey("model", "POST jobs", order.key)
        with self._database.write() as tx:
            lock = zlib.crc32(order.key.encode())
            if (found := system.recall_answer(tx, which, body_hash=order.body_hash, lock=lock)) is not None:
                return list(orjson.loads(found.body))
            jobs = [queue.NewJob(id=new_id(), **fields) for fields in order.jobs]
            queue.submit(tx, self._resources, jobs)
            ids = [job.id for job in jobs]
            answer = StoredAnswer(order.body_hash, 201, {}, orjson.dumps(ids))
            system.store_answer(tx, which, answer, seconds=86400)
        return ids

    def cancel(self, job_id: str) -> str:
        """The state in which the job is then."""
        with self._database.write() as tx:
            return str(queue.cancel(tx, self._resources, job_id, by="model").state)

    def approve(self, node_id: str, *, is_approved: bool) -> None:
        with self._database.write() as tx:
            fleet.approve(tx, self._resources, node_id, is_approved=is_approved, by="model")

    def drain(self, node_id: str, *, is_draining: bool) -> None:
        with self._database.write() as tx:
            fleet.drain(tx, self._resources, node_id, is_draining=is_draining)

    def fence(self, node_id: str) -> None:
        with self._database.write() as tx:
            fleet.fence(tx, self._resources, node_id, by="model", by_name="model")

    def _known(self, tx: Any, credential: str) -> Any:
        node = fleet.authenticate(tx, credential)
        if node is None:
            raise Unauthenticated("the credential is not valid")
        return node


def is_foreseen(name: str, error: Exception) -> bool:
    """Whether this call may fail so: a broken connection, a lost lead, a node that is not ready, work that is over."""
    if isinstance(error, Unavailable):
        return True
    if name.startswith("lead ") and isinstance(error, NotLeading):
        return True
    # Its subclasses (a guard that missed, a lifecycle that forbids) must not come out of a node's request.
    if name.startswith(("sync ", "drain ", "resume ", "submit ")):
        return type(error) is Conflict or (name.startswith("sync ") and error.__class__.__name__ == "Forbidden")
    return name.startswith("cancel ") and isinstance(error, Conflict)


@dataclass(slots=True)
class Chief:
    """One `coordinator dispatch` process. Its steps are the dispatcher's own; the model says when each is taken."""

    name: str
    resources: Resources
    is_paused: bool = False
    is_alive: bool = True
    lives: int = 1
    dispatcher: Dispatcher = field(init=False)
    unpublished: list[tuple[Ticket, ...]] = field(default_factory=list)
    next_duty: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.dispatcher = Dispatcher(self.resources)
        # Its own name for itself has chance in it that no seed reaches.
        self.dispatcher._holder = f"{self.name}-{self.lives}"
        self.is_alive, self.is_paused = True, False
        self.unpublished, self.next_duty = [], 0

    def kill(self) -> None:
        self.is_alive = False
        self.lives += 1

    @property
    def acts(self) -> bool:
        return self.is_alive and not self.is_paused

    @property
    def leads(self) -> bool:
        return self.dispatcher._term is not None

    @property
    def holder(self) -> tuple[str, int] | None:
        """Who it thinks leads: itself, in its epoch; None while it stands by."""
        term = self.dispatcher._term
        return None if term is None else (term.holder, term.epoch)

    def duties(self) -> list[tuple[str, Callable[[], Any]]]:
        """The repairs of one sweep, each in a transaction of its own."""
        term = self.dispatcher._term
        assert term is not None
        return [
            (_name_of(duty), partial(self.dispatcher._perform, term, duty)) for duty in self.dispatcher._duties(term)
        ]

    def lead(self) -> None:
        self.dispatcher._lead()

    def can_place(self) -> bool:
        """A broker that is away keeps jobs in the queue."""
        relay = self.dispatcher._relay
        return not relay.is_broken or relay.answers()

    def place(self) -> Any:
        term = self.dispatcher._term
        assert term is not None
        return self.dispatcher._place(term)

    def publish(self) -> bool:
        return self.dispatcher._relay.publish(self.unpublished.pop(0))

    def after(self, outcome: Outcome) -> None:
        """What a dispatcher makes of a step's end: deposed, it stands by; dead, it is dead."""
        if isinstance(outcome, Died):
            self.kill()
        elif isinstance(outcome, Failed) and isinstance(outcome.error, NotLeading):
            self.dispatcher._term = None
        elif isinstance(outcome, Done) and getattr(outcome.value, "tickets", None):
            self.unpublished.append(tuple(outcome.value.tickets))


def _name_of(duty: Any) -> str:
    return str(getattr(duty, "func", duty).__name__)
