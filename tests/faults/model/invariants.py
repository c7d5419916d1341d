"""What must be true after every step, and what must be true in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.contracts.node import SyncReply
from tests.faults.model.ledger import Container, Ran
from tests.faults.model.reader import ENDED, LIVE, AttemptRow, JobRow, Picture, Step

DOUBLES_EXCUSED = frozenset({"lost", "expired", "returned", "cancelled"})
"""An attempt that the database calls so may have done its work all the same; it is not the one that counts."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be live at a time."""

    slots: Mapping[tuple[str, bool], int]
    """(node, whether it takes a slot) → places"""
    lanes: Mapping[str, int]
    """agent → most at a time"""


@dataclass(slots=True)
class Promises:
    """What nodes were told: one grant for each attempt, the same answer to the same question."""

    tokens: dict[str, str] = field(default_factory=dict)
    nonces: dict[str, str] = field(default_factory=dict)

    def judge(self, asked: Mapping[str, Any], reply: SyncReply, now: Picture) -> Iterator[Violation]:
        """Hold the answer to a sync against what was told before, and against what is committed."""
        for claim, grant in zip(asked["claims"], reply.grants, strict=True):
            yield from self._judge_grant(claim["attempt_id"], f"{asked['epoch']} {claim['nonce']}", grant, now)
        for report in asked["reports"]:
            yield from _judge_verdict(report, reply.reports[report["attempt_id"]], now)

    def _judge_grant(
        self, attempt_id: str, question: str, grant: Mapping[str, Any], now: Picture
    ) -> Iterator[Violation]:
        if (token := grant["token"]) is not None:
            if self.tokens.setdefault(attempt_id, token) != token:
                yield Violation("claims are granted once", f"{attempt_id} was granted again, with another token")
            self.nonces.setdefault(attempt_id, question)
            return
        row = now.attempts.get(attempt_id)
        is_live = row is not None and row.state == "running" and now.jobs[row.job_id].state == "running"
        if is_live and self.nonces.get(attempt_id) == question:
            told = f"{attempt_id} was granted, and refused when its node asked again: {grant['refused']}"
            yield Violation("a claim asked again is granted again", told)


def _judge_verdict(report: Mapping[str, Any], verdict: str, now: Picture) -> Iterator[Violation]:
    row = now.attempts.get(report["attempt_id"])
    is_kept = row is not None and row.state not in LIVE and row.digest == report["digest"]
    if verdict == "accepted" and not is_kept:
        yield Violation("I3 accepted means kept", f"the report of {report['attempt_id']}")
    if verdict != "accepted" and is_kept:
        told = f"the report of {report['attempt_id']} was accepted, and called {verdict} when it came again"
        yield Violation("a report sent again is answered again", told)


def after_step(before: Picture, after: Picture, bounds: Bounds) -> Iterator[Violation]:
    """What a single commit must not have done."""
    live = [attempt for attempt in after.attempts.values() if attempt.state in LIVE]
    for job in after.jobs.values():
        if (was := before.jobs.get(job.id)) is not job and was != job:
            yield from _moved(was, job)
    for attempt in after.attempts.values():
        old = before.attempts.get(attempt.id)
        if old is None or old.state != attempt.state:
            yield from _stepped(old, attempt, before)
    yield from _vanished(before, after)
    yield from _results(after)
    yield from _live(live, after, bounds)


def _moved(was: JobRow | None, job: JobRow) -> Iterator[Violation]:
    name = f"job {job.id}"
    if job.state == "dead" and not job.reason:
        yield Violation("I7 dead only with a reason", name)
    if (job.state in ENDED) != job.is_finished:
        yield Violation("I1 an end has a time", f"{name} is {job.state}")
    if was is None or was.state == job.state:
        return
    redriven = was.state == "dead" and job.state == "queued" and job.generation == was.generation + 1
    if was.state in ENDED and not redriven:
        yield Violation("I1 an end is final", f"{name} went from {was.state} to {job.state}")
    if was.state == "cancelling" and job.state not in ("cancelled", "dead"):
        yield Violation("a cancelled job never succeeds", f"{name} went from cancelling to {job.state}")


def _stepped(old: AttemptRow | None, attempt: AttemptRow, before: Picture) -> Iterator[Violation]:
    name = f"attempt {attempt.id}"
    if old is not None and old.state not in LIVE:
        yield Violation("I3 the end of an attempt is final", f"{name} went from {old.state} to {attempt.state}")
    if attempt.state not in ("succeeded", "failed"):
        return
    job = before.jobs.get(attempt.job_id)
    if old is None or old.state != "running" or job is None or job.current != attempt.id:
        was = "new" if old is None else old.state
        yield Violation("I3 only the current attempt's result counts", f"{name} was {was} and {attempt.state} counted")


def _vanished(before: Picture, after: Picture) -> Iterator[Violation]:
    for kind, old, new in (("job", before.jobs, after.jobs), ("attempt", before.attempts, after.attempts)):
        for gone in old.keys() - new.keys():
            yield Violation("I1 nothing accepted vanishes", f"{kind} {gone}")


def _results(after: Picture) -> Iterator[Violation]:
    successes: dict[str, list[str]] = {}
    for attempt in after.attempts.values():
        if attempt.state == "succeeded":
            successes.setdefault(attempt.job_id, []).append(attempt.id)
    for job in after.jobs.values():
        accepted = successes.get(job.id, [])
        kept = after.results.get(job.id)
        right = accepted == [job.current] == [kept] if job.state == "succeeded" else not accepted and kept is None
        if not right:
            told = f"job {job.id} is {job.state}; succeeded {accepted}, current {job.current}, result of {kept}"
            yield Violation("I2 one accepted result for each success", told)


def _live(live: Sequence[AttemptRow], after: Picture, bounds: Bounds) -> Iterator[Violation]:
    for job_id, count in Counter(attempt.job_id for attempt in live).items():
        if count > 1:
            yield Violation("I4 one live attempt for each job", f"job {job_id} has {count}")
    for place, count in Counter((attempt.node_id, bool(attempt.takes_slot)) for attempt in live).items():
        if count > bounds.slots[place]:
            yield Violation("I6 no more live attempts than slots", f"{count} on {place}")
    for agent, count in Counter(after.jobs[attempt.job_id].agent_id for attempt in live).items():
        if count > bounds.lanes.get(agent, count):
            yield Violation("I6 no more live attempts than the lane has", f"{count} of {agent}")
    for attempt in live:
        if after.jobs[attempt.job_id].current != attempt.id:
            yield Violation("I4 a live attempt is its job's current one", attempt.id)


# ---- in the end


def at_the_end(after: Picture, history: Sequence[Step], containers: Sequence[Container]) -> Iterator[Violation]:
    """What must be true once everything is healed and had its time."""
    for job in after.jobs.values():
        if job.state not in ENDED:
            yield Violation("I1 every accepted job ends", f"job {job.id} is still {job.state}")
    yield from _histories(after, history)
    yield from _doubles(after, containers)
    for container in containers:
        if container.is_running:
            yield Violation("I5 nothing is left running", f"{container.attempt} on {container.node}")


def _histories(after: Picture, history: Iterable[Step]) -> Iterator[Violation]:
    """The history tells the whole way of each job, without a gap, to where it is."""
    stands: dict[str, str] = {}
    for step in history:
        if step.source is not None and stands.get(step.job_id) != step.source:
            told = f"job {step.job_id} was {stands.get(step.job_id)}, its history goes on from {step.source}"
            yield Violation("I7 the history has no gap", told)
        stands[step.job_id] = step.target
    for job in after.jobs.values():
        if stands.get(job.id) != job.state:
            yield Violation("I7 the history ends where the job is", f"{job.id}: {stands.get(job.id)}, {job.state}")


def _doubles(after: Picture, containers: Sequence[Container]) -> Iterator[Violation]:
    for attempt_id, starts in Counter(each.attempt for each in containers).items():
        row = after.attempts.get(attempt_id)
        if starts > 1:
            yield Violation("I8 an attempt starts one container", f"{attempt_id} started {starts}")
        if row is None or row.state == "dispatched" or row.epoch is None:
            yield Violation("I8 only a claimed attempt starts a container", attempt_id)
    for container in containers:
        row = after.attempts.get(container.attempt)
        if container.state is not Ran.succeeded or row is None:
            continue
        if row.state != "succeeded" and row.state not in DOUBLES_EXCUSED:
            told = f"{container.attempt} did its work, and the database calls it {row.state}"
            yield Violation("I8 work is done twice only when the first was given up", told)


def results(after: Picture, kept: Mapping[str, Any]) -> Iterator[Violation]:
    """The result that was kept is what the attempt that counts brought."""
    for job_id, result in kept.items():
        if result != {"attempt": after.jobs[job_id].current}:
            yield Violation("I2 the result is of the attempt that counts", f"{job_id} has {result}")


def orders(found: Iterable[str], asked: Mapping[str, int]) -> Iterator[Violation]:
    """A request that came twice was done once."""
    for key, count in Counter(found).items():
        if count != asked[key]:
            yield Violation("a request sent again is done once", f"{key} asked for {asked[key]}, {count} are there")


def beside(started: Container, others: Iterable[Container], now: Picture) -> Iterator[Violation]:
    """A container that runs while an older one of its job does.

    That may be where an admin cut the node off or nobody was there to end the older one in time. A daemon that was
    there all the time ends its work before the lease of it runs out.
    """
    for older in others:
        row = now.attempts.get(older.attempt)
        if older is started or older.job != started.job or row is None:
            continue
        if started.is_exclusive:
            yield Violation("an exclusive job never runs twice at a time", f"{older.attempt}, {started.attempt}")
        elif row.reason == "lease_expired" and not older.was_unwatched:
            told = f"{started.attempt} began while {older.attempt} ran on {older.node}"
            yield Violation("a node ends its own work before others begin it", told)
