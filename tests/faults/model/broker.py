"""The broker as the model has it: a Redis that refuses, takes a part and says that it failed, and loses what it had."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import fakeredis
import orjson
import redis
from fakeredis import FakeServer

from coordinator.signal_line import SignalLine
from shared.queue.names import PING, RUN, node_queue
from shared.queue.tickets import RunTicket, run_message

T = TypeVar("T")


class Mood(StrEnum):
    """How the broker takes what is sent to it."""

    well = "well"
    refusing = "refusing"
    """Nothing arrives, and the sender is told so."""
    ambiguous = "ambiguous"
    """Some of it arrives, and the sender is told that it failed."""


@dataclass(frozen=True, slots=True)
class Popped:
    """A ticket as a node takes it from its queue."""

    attempt: str


class SimulatedBroker:
    """One list for each node. `mood` is for what the coordinator sends; nodes and mishaps go past it."""

    def __init__(self, dice: Callable[[], random.Random]) -> None:
        self._server = FakeServer()
        self._inside = fakeredis.FakeRedis(server=self._server)
        self.mood = Mood.well
        self.client: redis.Redis = _Client(self, dice, server=self._server)

    def pop(self, node_id: str) -> tuple[Popped | None, int]:
        """The node's oldest ticket, and how many canaries were before it."""
        pings = 0
        while (raw := self._inside.rpop(node_queue(node_id))) is not None:
            assert isinstance(raw, bytes)
            headers = orjson.loads(raw)["headers"]
            if headers["task"] == RUN:
                return Popped(headers["id"]), pings
            pings += headers["task"] == PING
        return None, pings

    def is_empty(self, node_id: str) -> bool:
        # Asked before every step, so without a command.
        return node_queue(node_id).encode() not in self._server.dbs[0]

    def push(self, node_id: str, attempt_id: str, job_id: str = "?") -> None:
        """A ticket that no coordinator sent."""
        ticket = RunTicket(attempt=attempt_id, job=job_id, number=1, node=node_id)
        self._inside.lpush(node_queue(node_id), run_message(ticket))

    def double(self, node_id: str, dice: random.Random) -> bool:
        """Deliver one of the waiting tickets twice; False when none waits."""
        waiting = self._waiting(node_id)
        if waiting:
            self._inside.lpush(node_queue(node_id), dice.choice(waiting))
        return bool(waiting)

    def shuffle(self, node_id: str, dice: random.Random) -> bool:
        """Forget the order of the waiting tickets; False when there is none."""
        waiting = self._waiting(node_id)
        if len(waiting) > 1:
            dice.shuffle(waiting)
            self._inside.delete(node_queue(node_id))
            self._inside.lpush(node_queue(node_id), *waiting)
        return len(waiting) > 1

    def wipe(self) -> None:
        self._inside.flushall()

    def _waiting(self, node_id: str) -> list[bytes]:
        found: Any = self._inside.lrange(node_queue(node_id), 0, -1)
        return list(found)


class _Client(fakeredis.FakeRedis):
    """The coordinator's client, under the broker's mood."""

    def __init__(self, broker: SimulatedBroker, dice: Callable[[], random.Random], **options: Any) -> None:
        super().__init__(**options)
        self._broker = broker
        self._dice = dice

    def execute_command(self, *words: Any, **options: Any) -> Any:
        if self._broker.mood is not Mood.well:
            raise redis.ConnectionError("the broker is away")
        answer: Any = super().execute_command(*words, **options)  # type: ignore[no-untyped-call]
        return answer

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        pipe = super().pipeline(transaction, shard_hint)
        whole = pipe.execute

        def execute(*arguments: Any, **options: Any) -> Any:
            if self._broker.mood is Mood.refusing:
                pipe.reset()
                raise redis.ConnectionError("the broker is away")
            if self._broker.mood is Mood.ambiguous:
                del pipe.command_stack[self._dice().randint(0, len(pipe.command_stack)) :]
                whole(*arguments, **options)
                raise redis.TimeoutError("the broker does not answer")
            return whole(*arguments, **options)

        pipe.execute = execute  # type: ignore[method-assign]
        return pipe


class DirectLine(SignalLine):
    """Signals without the memory that the broker is away: that one is a matter of real time and of threads."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self._to = client

    def send(self, what: str, signal: Callable[[redis.Redis], T]) -> T | None:
        try:
            return signal(self._to)
        except redis.RedisError:
            return None
