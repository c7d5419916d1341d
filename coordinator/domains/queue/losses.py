"""Where jobs were lost before: asked only about those that were lost often enough for the answer to matter."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, bindparam, select

from coordinator.domains.queue.decisions import Circumstances
from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.models import attempts, jobs
from coordinator.domains.queue.rows import Job
from coordinator.domains.queue.states import AttemptState
from coordinator.store.database import Transaction
from shared.policy.retry import Loss

_LOSSES = (
    select(attempts.c.job_id, attempts.c.node_id, attempts.c.node_name, attempts.c.ended_at, attempts.c.reason_code)
    .select_from(attempts.join(jobs, and_(jobs.c.id == attempts.c.job_id, jobs.c.generation == attempts.c.generation)))
    .where(attempts.c.job_id.in_(bindparam("ids", expanding=True)), attempts.c.state == str(AttemptState.lost))
)


def earlier_losses(tx: Transaction, about_to_lose: Collection[Job], limits: Limits) -> Mapping[str, Sequence[Loss]]:
    """The losses of these jobs since they were accepted or sent round again, by job id.

    A job that has too few of them for the rule about poison is left out, so usually nothing is asked.
    """
    ids = sorted({job.id for job in about_to_lose if limits.poison.may_apply(job.infra_count + 1)})
    found: dict[str, list[Loss]] = {}
    if ids:
        for row in tx.conn.execute(_LOSSES, {"ids": ids}):
            loss = Loss(row.node_id, row.node_name, row.ended_at, row.reason_code)
            found.setdefault(row.job_id, []).append(loss)
    return found


def circumstances(tx: Transaction, limits: Limits, losses: Sequence[Loss] = ()) -> Circumstances:
    """What a decision about an end depends on, as it is now."""
    return Circumstances(tx.now, limits, random.random(), losses)  # noqa: S311 - jitter, not a secret
