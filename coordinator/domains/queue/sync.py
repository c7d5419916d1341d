"""Claims and reports of a node: many in one request, one transaction, a fixed number of statements."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, case, select

from coordinator.domains.queue import breakers, decisions, moves
from coordinator.domains.queue.breaker_store import ANY_BREAKER
from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.losses import circumstances, earlier_losses
from coordinator.domains.queue.models import attempts, jobs
from coordinator.domains.queue.rows import Attempt, Job, is_torn, pair_of, select_pairs
from coordinator.domains.queue.signals import nudge
from coordinator.domains.queue.states import AttemptState, JobState
from coordinator.domains.queue.tokens import attempt_token, token_hash
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.contracts.node import Claim, Grant, Outcome, Report, Sync, SyncReply

Pairs = Mapping[str, tuple[Attempt, Job]]


def sync(tx: Transaction, resources: Resources, *, node_id: str, request: Sync) -> SyncReply:
    """Decide every claim and report of the batch. Reports go first: they free what claims may need."""
    limits = Limits.of(resources.settings)
    claims = [Claim.from_json(item) for item in request.claims]
    reports = [Report.from_json(item) for item in request.reports]
    pairs, specs, has_breakers = lock_pairs(
        tx, {item.attempt_id for item in claims} | {item.attempt_id for item in reports}
    )
    verdicts, ended = _decide_reports(tx, pairs, reports, node_id=node_id, limits=limits)
    grants, started = _decide_claims(
        tx, pairs, claims, node_id=node_id, epoch=request.epoch, key=resources.key("attempts"), limits=limits
    )
    moves.apply(tx, [*ended, *started], results=_results(reports, ended))
    if ended:
        charges = {report.attempt_id: report.charges for report in reports}
        breakers.charge(tx, resources, ended, charges, there_are_some=has_breakers)
        nudge(tx, resources, "report")
    return SyncReply(grants=[grant.to_json() for grant in _with_specs(tx, grants, specs)], reports=verdicts)


# Statements of the hot path are made once: making one costs more Python than running it. A round trip costs more
# still, so what a grant will need comes along with the lock: the spec, of attempts that may be granted; and whether
# there is any breaker that an end may concern.
_LOCK_PAIRS = (
    select_pairs()
    .add_columns(case((attempts.c.state == str(AttemptState.dispatched), jobs.c.spec)).label("spec"))
    .add_columns(ANY_BREAKER.label("has_breakers"))
    .where(attempts.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(jobs.c.id)
    .with_for_update(of=jobs)
)
_PAIRS = select_pairs().where(attempts.c.id.in_(bindparam("ids", expanding=True)))
_SPECS = select(jobs.c.id, jobs.c.spec).where(jobs.c.id.in_(bindparam("ids", expanding=True)))


def lock_pairs(tx: Transaction, attempt_ids: Collection[str]) -> tuple[Pairs, dict[str, Any], bool]:
    """The attempts with their jobs, the jobs' rows locked in id order so that two batches never deadlock.

    Also the specs of the jobs whose attempts wait to be claimed, and whether there are circuit breakers.
    """
    pairs: dict[str, tuple[Attempt, Job]] = {}
    specs: dict[str, Any] = {}
    has_breakers = False
    if not attempt_ids:
        return pairs, specs, has_breakers
    for row in tx.conn.execute(_LOCK_PAIRS, {"ids": sorted(attempt_ids)}):
        attempt, job = pair_of(row)
        pairs[attempt.id] = attempt, job
        has_breakers = bool(row.has_breakers)
        if row.spec is not None:
            specs[job.id] = row.spec
    if torn := [attempt.id for attempt, job in pairs.values() if is_torn(attempt, job)]:
        # PostgreSQL waited for somebody who held these jobs, then gave the jobs as they are, the attempts as they were
        # before. Now that the jobs are ours, both can be read as they are.
        pairs |= {pair[0].id: pair for pair in map(pair_of, tx.conn.execute(_PAIRS, {"ids": torn}))}
    return pairs, specs, has_breakers


def _decide_reports(
    tx: Transaction, pairs: Pairs, reports: Sequence[Report], *, node_id: str, limits: Limits
) -> tuple[dict[str, str], list[moves.Move]]:
    verdicts: dict[str, str] = {}
    made: list[moves.Move] = []
    understood = {attempt_id: _understood(report) for attempt_id, report in _first(reports).items()}
    shaky = [pairs[id_][1] for id_, told in understood.items() if id_ in pairs and decisions.may_be_lost(told)]
    losses = earlier_losses(tx, shaky, limits)
    for attempt_id, told in understood.items():
        pair = pairs.get(attempt_id)
        verdict: decisions.Accepted | decisions.Stale = decisions.Stale()
        if pair is not None:
            given = circumstances(tx, limits, losses.get(pair[1].id, ()))
            verdict = decisions.report(*pair, told, node_id=node_id, given=given)
        verdicts[attempt_id] = "stale" if isinstance(verdict, decisions.Stale) else "accepted"
        if isinstance(verdict, decisions.Accepted) and verdict.move is not None:
            made.append(verdict.move)
    return verdicts, made


def _first(reports: Sequence[Report]) -> dict[str, Report]:
    """By attempt; twice in one batch is the same report, and the first one decides."""
    first: dict[str, Report] = {}
    for report in reports:
        first.setdefault(report.attempt_id, report)
    return first


def _understood(report: Report) -> decisions.Told:
    return decisions.Told(
        outcome=Outcome(report.outcome),
        token_hash=token_hash(report.token),
        exit_code=report.exit_code,
        reason_code=report.reason_code,
        error=report.error,
        usage=report.usage,
        computer=report.computer,
        digest=report.digest,
    )


def _decide_claims(
    tx: Transaction,
    pairs: Pairs,
    claims: Sequence[Claim],
    *,
    node_id: str,
    epoch: str,
    key: bytes,
    limits: Limits,
) -> tuple[list[Grant], list[moves.Move]]:
    grants: list[Grant] = []
    made: list[moves.Move] = []
    known = dict(pairs)
    for claim in claims:
        token = attempt_token(key, attempt_id=claim.attempt_id, epoch=epoch, nonce=claim.nonce)
        pair = known.get(claim.attempt_id)
        if pair is None:
            grants.append(Grant(claim.attempt_id, refused="unknown_attempt"))
            continue
        by = decisions.Claimant(node_id, epoch, token_hash(token))
        verdict = decisions.claim(*pair, by, now=tx.now, lease_seconds=limits.lease_seconds)
        if isinstance(verdict, decisions.Refused):
            grants.append(Grant(claim.attempt_id, refused=verdict.code))
            continue
        if verdict.move is not None and verdict.move.attempt_after is not None:
            made.append(verdict.move)
            known[claim.attempt_id] = (verdict.move.attempt_after, verdict.move.after)
        attempt, job = pair
        left = None if job.deadline_at is None else max(0.0, (job.deadline_at - tx.now).total_seconds())
        grants.append(
            Grant(
                claim.attempt_id,
                token,
                job.id,
                attempt.number,
                limits.lease_seconds,
                spec={},
                deadline_in_seconds=left,
            )
        )
    return grants, made


def _with_specs(tx: Transaction, grants: Sequence[Grant], specs: dict[str, Any]) -> list[Grant]:
    """The grants with what is to be done. Asked again, an attempt runs already and its spec is read anew."""
    missing = [grant.job_id for grant in grants if grant.job_id and grant.job_id not in specs]
    if missing:
        specs = specs | {row.id: row.spec for row in tx.conn.execute(_SPECS, {"ids": missing})}
    return [replace(grant, spec=specs[grant.job_id]) if grant.job_id else grant for grant in grants]


def _results(reports: Sequence[Report], ended: Sequence[moves.Move]) -> list[dict[str, Any]]:
    """What the accepted successes brought."""
    told = _first(reports)
    return [
        {"job_id": move.after.id, "attempt_id": attempt.id, "result": told[attempt.id].result}
        for move in ended
        if (attempt := move.attempt_after) is not None
        and move.after.state is JobState.succeeded
        and told[attempt.id].result is not None
    ]
