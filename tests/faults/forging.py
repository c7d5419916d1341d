"""Somebody who can write to the broker: copies tickets, changes them, makes some up."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Self

import httpx
import orjson
import redis as redis_library

from shared.queue.tickets import RunTicket, run_message
from tests.faults.reader import Row
from tests.faults.stack import Node, Stack

if TYPE_CHECKING:
    from tests.faults.lab import Lab

COPIES = (2, 3, 5, 10, 50)
RECENT = 200


class Forger:
    """Sends messages to the queues of nodes, and claims over HTTP with a real node's credential."""

    def __init__(self, stack: Stack, random: Random) -> None:
        self._stack = stack
        self._random = random
        self._redis: redis_library.Redis = stack.redis.client()
        self.sent = 0
        self.claims = 0
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def spread(self, count: int) -> None:
        """About so many messages of all kinds, then one claim of each kind over HTTP."""
        until = self.sent + count
        attempts = self._recent()
        kinds: Sequence[Callable[[Row], None]] = (self._copy, self._misdirect, self._invent, self._mangle)
        while self.sent < until and attempts:
            self._random.choice(kinds)(self._random.choice(attempts))
        if attempts:
            self._claim_what_is_anothers(self._random.choice(attempts))

    def wait_until_read(self, lab: Lab) -> None:
        """Every node has read all that we sent."""
        names = [f"node.{node.id}" for node in self._stack.nodes]

        def is_read() -> bool:
            return all(self._redis.llen(name) == 0 for name in names)

        lab.until(is_read, what="queues that are read", real_seconds=120)

    def _recent(self) -> list[Row]:
        return self._stack.reader.rows(
            "SELECT id, job_id, number, node_id, takes_slot FROM attempts ORDER BY id DESC LIMIT ?", RECENT
        )

    def _copy(self, attempt: Row) -> None:
        """The very ticket again: of an attempt that waits, runs, or has ended long ago."""
        copies = self._random.choice(COPIES)
        self._send("copied", attempt["node_id"], [_ticket(attempt)] * copies)

    def _misdirect(self, attempt: Row) -> None:
        """Another node gets the ticket, as it is or with its own name in it."""
        others = [node for node in self._stack.nodes if node.id != attempt["node_id"]]
        other = self._random.choice(others).id
        message = _ticket(attempt) if self._random.random() < 0.5 else _ticket(attempt, node=other)
        self._send("misdirected", other, [message])

    def _invent(self, attempt: Row) -> None:
        """Ids that nobody has ever given out."""
        letters = list(attempt["id"])
        letters[-1] = self._random.choice([c for c in "0123456789abcdef" if c != letters[-1]])
        made_up = {**attempt, "id": "".join(letters), "number": self._random.randrange(1, 9)}
        self._send("invented", attempt["node_id"], [_ticket(made_up)])

    def _mangle(self, attempt: Row) -> None:
        """What is no ticket of ours, as far as Celery lets it through."""
        message = orjson.loads(_ticket(attempt))
        args, kwargs, embed = orjson.loads(base64.b64decode(message["body"]))
        changed: Sequence[Any] = (
            [args, {**kwargs, "v": 99}, embed],
            [args, {"attempt": kwargs["attempt"]}, embed],
            [[1, 2, 3], kwargs, embed],
            [args, {**kwargs, "attempt": {"$ne": None}}, embed],
            [args, {**kwargs, "light": True}, embed],
            ["no", "ticket"],
            None,
        )
        message["body"] = base64.b64encode(orjson.dumps(self._random.choice(changed))).decode()
        self._send("mangled", attempt["node_id"], [orjson.dumps(message)])

    def _send(self, kind: str, node_id: str, messages: Sequence[bytes]) -> None:
        with suppress(redis_library.ConnectionError):
            self._redis.lpush(f"node.{node_id}", *messages)
            self.sent += len(messages)
            self.kinds[kind] += len(messages)

    def _claim_what_is_anothers(self, attempt: Row) -> None:
        """A node that is one of ours and has gone bad asks for another's attempt, and reports its end."""
        node = self._random.choice([node for node in self._stack.nodes if node.id != attempt["node_id"]])
        credential = orjson.loads((node.home / "node" / "identity.json").read_bytes())["credential"]
        report = {"attempt_id": attempt["id"], "token": "f" * 64, "outcome": "succeeded", "result": "stolen"}
        body = {
            "epoch": self._epoch_of(node),
            "claims": [{"attempt_id": attempt["id"], "nonce": f"{time.monotonic()}"}],
            "reports": [report],
        }
        answer = httpx.post(
            f"{self._stack.url}/api/v1/workers/{node.id}/sync",
            json=body,
            headers={"Authorization": f"Bearer {credential}"},
            timeout=30,
        )
        self.claims += 1
        if answer.status_code != httpx.codes.OK:
            self.wrong.append(f"a foreign claim was answered {answer.status_code}: {answer.text[:200]}")
            return
        told = answer.json()
        if told["grants"][0]["refused"] is None or told["reports"].get(attempt["id"]) != "stale":
            self.wrong.append(f"node {node.name} got what is another's: {told}")

    def _epoch_of(self, node: Node) -> str:
        (row,) = self._stack.reader.rows("SELECT epoch FROM nodes WHERE id = ?", node.id)
        return str(row["epoch"])


def _ticket(attempt: Row, *, node: str | None = None) -> bytes:
    return run_message(
        RunTicket(
            attempt=attempt["id"],
            job=attempt["job_id"],
            number=attempt["number"],
            node=node or attempt["node_id"],
            agent="load",
            takes_slot=bool(attempt["takes_slot"]),
        )
    )
