"""The dead letter queue of tasks and executions: what is in it, and what admins do about it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.domains.agents import service as agents
from coordinator.domains.queue import letters, redriving
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.letters import Letter, LetterFilter
from coordinator.domains.queue.redriving import Principal
from coordinator.domains.queue.service import JobState, JobView
from coordinator.domains.tasks.states import PRIORITY_WORDS
from coordinator.domains.tasks.store import work
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import NotFound, StateConflict

RETRY_BATCH = 500
"""Jobs that one transaction of `retry_all` sends round again: some tenths of a second of locks."""
RETRY_ALL_SECONDS = 20.0
"""After this long `retry_all` answers with what it has done: no proxy should give up on the request."""
WITHOUT_AGENT = "unassigned"

Write = Callable[[], AbstractContextManager[Transaction]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A task or an execution with its letter. `letter` is None while its computer is still being stopped."""

    job: JobView
    letter: Letter | None
    title: str
    metadata: Mapping[str, Any]
    trace: str | None


@dataclass(frozen=True, slots=True)
class Stats:
    """The queue in numbers. `retryable` are those whose agent is still there."""

    total: int
    retryable: int
    by_priority: Mapping[str, int]
    by_reason: Mapping[str, int]
    by_agent: Mapping[str, int]
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Retried:
    """How many were sent round again, and whether the time was up before all were looked at."""

    count: int
    is_all: bool


def list_entries(tx: Transaction, space: str, wanted: LetterFilter, page: PageRequest) -> Page[Entry]:
    """What is in the queue, newest first."""
    found = letters.list_letters(tx, space, wanted, page)
    return Page(_entries(tx, found.items), found.total)


def get(tx: Transaction, space: str, job_id: str) -> Entry:
    """One entry; NotFound when it is not in the queue."""
    letter = letters.open_letter(tx, space, job_id)
    if letter is None:
        raise NotFound("it is not in the dead letter queue", id=job_id)
    return _entries(tx, [letter])[0]


def stats(tx: Transaction, space: str) -> Stats:
    """The queue in numbers; every priority is there, with 0 if need be."""
    found = letters.count_letters(tx, space)
    by_priority = Counter(dict.fromkeys(reversed(list(queue.PRIORITIES)), 0))
    by_reason: Counter[str] = Counter()
    by_agent: Counter[str] = Counter()
    for one in found:
        by_priority[PRIORITY_WORDS[one.priority]] += one.count
        by_reason[one.reason_code] += one.count
        by_agent[one.agent_id or WITHOUT_AGENT] += one.count
    there = agents.living(tx, space, by_agent.keys() - {WITHOUT_AGENT}) | {WITHOUT_AGENT}
    return Stats(
        total=by_agent.total(),
        retryable=sum(count for agent, count in by_agent.items() if agent in there),
        by_priority=dict(by_priority),
        by_reason=dict(by_reason.most_common()),
        by_agent=dict(by_agent.most_common()),
        oldest=min((one.oldest for one in found), default=None),
    )


def retry(tx: Transaction, resources: Resources, space: str, job_id: str, *, by: Principal) -> Entry:
    """Send one round again at once; answers it as it is now."""
    job = redriving.lock_one(tx, space, job_id)
    if job.agent_id is not None and not agents.find_to_use(tx, space, {job.agent_id}):
        raise StateConflict("its agent was deleted: nobody is left to do it", state=str(job.state))
    redriving.redrive(tx, resources, [job], by=by)
    return _whole(tx, queue.views(tx, [job_id]), {job_id: None})[0]


def retry_all(
    write: Write,
    resources: Resources,
    space: str,
    wanted: LetterFilter,
    *,
    by: Principal,
    seconds: float,
    tell: Callable[[Transaction, int], None] | None = None,
) -> Retried:
    """Send all that are meant round again, oldest first, in transactions of their own; `tell` is part of each.

    Each of these moves its jobs and closes their letters together: wherever it is cut short, a job has either gone
    round again or is still offered. Those that die meanwhile are left for the next call.
    """
    until, count, after = time.monotonic() + seconds, 0, None
    with write() as tx:
        wanted = wanted.no_later_than(tx.now)
    while True:
        with write() as tx:
            found = redriving.lock_to_redrive(tx, space, wanted, limit=RETRY_BATCH, after=after)
            there = agents.find_to_use(tx, space, {one.job.agent_id for one in found if one.job.agent_id})
            able = [one.job for one in found if one.job.agent_id is None or one.job.agent_id in there]
            redriven = redriving.redrive(tx, resources, able, by=by, is_paced=True)
            if tell is not None and (redriven or not count):
                tell(tx, redriven)
            count += redriven
        if len(found) < RETRY_BATCH:
            return Retried(count, is_all=True)
        if time.monotonic() >= until:
            return Retried(count, is_all=False)
        after = found[-1].letter_id


def put(tx: Transaction, resources: Resources, space: str, job_id: str, *, reason: str, by: Principal) -> Entry:
    """Put a task or an execution there by hand."""
    state = redriving.put_by_hand(tx, resources, space, job_id, reason=reason, by=by)
    if state is JobState.dead:
        return get(tx, space, job_id)
    return _whole(tx, queue.views(tx, [job_id]), {job_id: None})[0]


def remove(tx: Transaction, space: str, job_id: str, *, by: Principal) -> None:
    """Take one out; it stays failed."""
    redriving.dismiss(tx, space, job_id, by=by)


def _entries(tx: Transaction, found: Sequence[Letter]) -> list[Entry]:
    jobs = queue.views(tx, [letter.job_id for letter in found])
    return _whole(tx, jobs, {letter.job_id: letter for letter in found})


def _whole(tx: Transaction, jobs: Mapping[str, JobView], found: Mapping[str, Letter | None]) -> list[Entry]:
    tasks = work.tasks_by_id(tx, [job.id for job in jobs.values() if job.kind == "task"])
    traces = {job_id: _trace(job.error) for job_id, job in jobs.items()}
    traces |= letters.last_words(tx, [job_id for job_id, trace in traces.items() if trace is None])
    return [
        Entry(
            job=jobs[job_id],
            letter=letter,
            title=tasks[job_id].title if job_id in tasks else str(jobs[job_id].spec.get("agent") or ""),
            metadata=tasks[job_id].metadata if job_id in tasks else {},
            trace=traces[job_id],
        )
        for job_id, letter in found.items()
        if job_id in jobs
    ]


def _trace(error: Mapping[str, Any] | None) -> str | None:
    """What the error itself brought along; else the last lines on stderr have to do."""
    told = (error or {}).get("traceback") or (error or {}).get("trace") or (error or {}).get("stderr")
    return told if isinstance(told, str) else None
