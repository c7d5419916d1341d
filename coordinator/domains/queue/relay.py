"""From committed attempts to tickets on the broker. Publishing twice is harmless, so nothing here needs to be exact."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import redis
import structlog
from sqlalchemy import and_, or_, select, update

from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.models import attempts, jobs
from coordinator.domains.queue.placing import Ticket
from coordinator.domains.queue.states import AttemptState
from coordinator.store.database import Transaction
from shared.queue import tickets

log = structlog.get_logger(__name__)

REMEMBERED = 20_000
UNPUBLISHED_BATCH = 1_000


class Relay:
    """Publishes tickets, and remembers for a while which went out: the hot path need not write that down."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._sent_again: set[str] = set()
        self.is_broken = False

    def publish(self, batch: Sequence[Ticket]) -> bool:
        """Send these tickets; False when the broker did not take them (the sweep sends them again)."""
        if not batch:
            return True
        messages: dict[str, list[bytes]] = {}
        for ticket in batch:
            messages.setdefault(ticket.node_id, []).append(tickets.run_message(_run_ticket(ticket)))
        return self._push(messages, [ticket.attempt_id for ticket in batch])

    def answers(self) -> bool:
        """Whether the broker answers now."""
        try:
            self._client.ping()
        except (redis.RedisError, OSError):
            self.is_broken = True
        else:
            self.is_broken = False
        return not self.is_broken

    def sweep(self, tx: Transaction, limits: Limits) -> int:
        """Publish what nobody published or claimed for too long, and write down what went out; answers how many.

        It is published once the transaction is over: a broker that hangs must not hold what others wait for. That it
        went out is written down by the next sweep.
        """
        self._write_down(tx)
        if self.is_broken:
            return 0
        due = self._due(tx, limits)
        known = [row.id for row in due if row.id in self._sent and row.published_at is None]
        _mark(tx, known)
        again = [_ticket(row) for row in due if row.id not in set(known)]
        if again:
            tx.after_commit(lambda: self._send_again(again))
        return len(again)

    def _write_down(self, tx: Transaction) -> None:
        ids = tuple(self._sent_again)
        _mark(tx, ids)
        tx.after_commit(lambda: self._sent_again.difference_update(ids))

    def _send_again(self, batch: Sequence[Ticket]) -> None:
        if self.publish(batch):
            self._sent_again.update(ticket.attempt_id for ticket in batch)

    def _push(self, messages: dict[str, list[bytes]], ids: Iterable[str]) -> bool:
        try:
            tickets.publish(self._client, messages)
        except (redis.RedisError, OSError) as error:
            self.is_broken = True
            log.warning("broker.refused", error=type(error).__name__)
            return False
        self.is_broken = False
        for attempt_id in ids:
            self._sent[attempt_id] = None
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        return True

    def _due(self, tx: Transaction, limits: Limits) -> Sequence[Any]:
        unpublished = and_(
            attempts.c.published_at.is_(None),
            attempts.c.dispatched_at < tx.now - timedelta(seconds=limits.unpublished_seconds),
        )
        unclaimed = and_(
            attempts.c.published_at < tx.now - timedelta(seconds=limits.republish_seconds),
            attempts.c.publish_count < limits.max_publishes,
        )
        query = (
            select(attempts, jobs.c.spec["agent"].as_string().label("agent"))
            .select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))
            .where(attempts.c.state == str(AttemptState.dispatched), or_(unpublished, unclaimed))
            .limit(UNPUBLISHED_BATCH)
        )
        return tx.conn.execute(query).all()


def _mark(tx: Transaction, ids: Sequence[str]) -> None:
    """Write down that the tickets of these attempts went out just now."""
    if ids:
        still = (attempts.c.id.in_(ids), attempts.c.state == str(AttemptState.dispatched))
        values = {"published_at": tx.now, "publish_count": attempts.c.publish_count + 1}
        tx.conn.execute(update(attempts).where(*still).values(values))


def _run_ticket(ticket: Ticket) -> tickets.RunTicket:
    return tickets.RunTicket(
        attempt=ticket.attempt_id,
        job=ticket.job_id,
        number=ticket.number,
        node=ticket.node_id,
        agent=ticket.agent,
        takes_slot=ticket.takes_slot,
    )


def _ticket(row: Any) -> Ticket:
    return Ticket(row.id, row.job_id, row.number, row.node_id, row.agent or "", bool(row.takes_slot))
