"""Running attempts whose lease ran out: their node is silent or forgot them."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import and_

from coordinator.domains.queue import nodes, store
from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.models import attempts
from coordinator.domains.queue.states import AttemptState
from coordinator.resources import Resources
from coordinator.store.database import Transaction

BATCH = 500


def lose_expired(tx: Transaction, resources: Resources, *, leading_since: datetime) -> int:
    """Give up attempts with a lease in the past; answers how many.

    Not before this leader has led for the grace time: while nobody led, no heartbeat may have been taken in either,
    and an outage of the coordinator must not kill the fleet's work.
    """
    grace = timedelta(seconds=Limits.of(resources.settings).leader_grace_seconds)
    if tx.now < leading_since + grace:
        return 0
    where = and_(attempts.c.state == str(AttemptState.running), attempts.c.lease_until < tx.now)
    pairs = store.lock_live_attempts(tx, where, BATCH)
    message = "its node was not heard of until the lease ran out"
    nodes.lose(tx, resources, pairs, reason_code="lease_expired", message=message)
    return len(pairs)
