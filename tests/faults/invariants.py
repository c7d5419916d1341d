"""What must hold whatever happened, checked on the database and on the ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.faults.ledger import Run
from tests.faults.reader import ENDED, Reader, Row, attempts_of, document, history_of, jobs_of

EXCUSED = ("lost", "expired", "returned", "failed", "cancelled")
"""An attempt that ended so may have been followed by another."""


def violations(reader: Reader, ids: Sequence[str], runs: Sequence[Run], *, may_die: bool = True) -> list[str]:
    """Every sentence is something that must never be true of accepted jobs once all is healed."""
    jobs = jobs_of(reader, ids)
    attempts = attempts_of(reader, ids)
    history = history_of(reader, ids)
    return [
        *_lost(jobs, ids),
        *_results(reader, jobs, attempts),
        *_stale(history),
        *_crowded(attempts),
        *_unexplained(jobs, history, may_die=may_die),
        *_doubles(runs, attempts),
        *_resurrected(history),
    ]


def _lost(jobs: Sequence[Row], ids: Sequence[str]) -> list[str]:
    """I1: every accepted job ends."""
    known = {job["id"]: job["state"] for job in jobs}
    missing = [f"I1: job {job_id} was accepted and is not there" for job_id in ids if job_id not in known]
    return missing + [f"I1: job {key} is {state}" for key, state in known.items() if state not in ENDED]


def _results(reader: Reader, jobs: Sequence[Row], attempts: Sequence[Row]) -> list[str]:
    """I2: one accepted result for each job that succeeded, none for others."""
    accepted = Counter(row["job_id"] for row in attempts if row["state"] == "succeeded")
    wrong = []
    for job in jobs:
        wanted = 1 if job["state"] == "succeeded" else 0
        if accepted[job["id"]] != wanted:
            wrong.append(f"I2: job {job['id']} is {job['state']} with {accepted[job['id']]} accepted results")
    succeeded = {row["id"]: row["state"] for row in attempts}
    ids = {job["id"] for job in jobs}
    for row in reader.rows("SELECT job_id, attempt_id FROM job_results"):
        if row["job_id"] in ids and succeeded.get(row["attempt_id"]) != "succeeded":
            wrong.append(
                f"I2: the result of job {row['job_id']} is of attempt {row['attempt_id']}, which did not succeed"
            )
    return wrong


def _stale(history: Sequence[Row]) -> list[str]:
    """I3: by the history, no attempt ended a job but the one that was current."""
    current: dict[str, int] = {}
    wrong = []
    for line in history:
        number = line["attempt_number"]
        if line["type"] == "job.dispatched":
            if number <= current.get(line["job_id"], 0):
                wrong.append(f"I3: attempt {number} of job {line['job_id']} was sent after a later one")
            current[line["job_id"]] = number
        elif number is not None and number != current.get(line["job_id"]):
            wrong.append(
                f"I3: {line['type']} of job {line['job_id']} came from attempt {number}, which was not current"
            )
    return wrong


def _crowded(attempts: Sequence[Row]) -> list[str]:
    """I4, at the end: no job has two live attempts, and no job that is over has one."""
    live = Counter(row["job_id"] for row in attempts if row["state"] in ("dispatched", "running"))
    return [f"I4: job {job_id} still has {count} live attempts" for job_id, count in live.items()]


def _unexplained(jobs: Sequence[Row], history: Sequence[Row], *, may_die: bool) -> list[str]:
    """I7: a job is dead only with a reason, an error and a line in its history."""
    told = {line["job_id"] for line in history if line["type"] == "job.dead"}
    wrong = []
    for job in jobs:
        if job["state"] != "dead":
            continue
        if not job["reason_code"] or not document(job["error"]) or job["id"] not in told:
            wrong.append(f"I7: job {job['id']} is dead without reason, error or history")
        if not may_die:
            wrong.append(f"I7: job {job['id']} is dead of {job['reason_code']}, though nothing of it was at fault")
    return wrong


def _doubles(runs: Sequence[Run], attempts: Sequence[Row]) -> list[str]:
    """I8: each attempt really ran once at most, and one that was followed by another had ended by the book."""
    states = {(row["job_id"], row["number"]): row["state"] for row in attempts}
    wrong = []
    ran: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        if run.attempt in ran[run.job]:
            wrong.append(f"I8: attempt {run.attempt} of job {run.job} ran twice")
        ran[run.job].append(run.attempt)
    for job, numbers in ran.items():
        for number in sorted(numbers)[:-1]:
            if states.get((job, number)) not in EXCUSED:
                wrong.append(
                    f"I8: attempt {number} of job {job} is {states.get((job, number))}, and another ran after it"
                )
    unknown = [run for run in runs if (run.job, run.attempt) not in states]
    return wrong + [f"I8: attempt {run.attempt} of job {run.job} ran and the database knows none" for run in unknown]


def _resurrected(history: Sequence[Row]) -> list[str]:
    """What was cancelled stays cancelled: nothing follows but the end that the cancelling asked for."""
    over: set[str] = set()
    wrong = []
    for line in history:
        if line["job_id"] in over and line["type"] in ("job.succeeded", "job.running", "job.dispatched"):
            wrong.append(f"I3: {line['type']} of job {line['job_id']} after it was cancelled")
        if line["type"] in ("job.cancelling", "job.cancelled"):
            over.add(line["job_id"])
        if line["type"] == "job.dead":
            # Its deadline stopped it; an admin may send it round again.
            over.discard(line["job_id"])
    return wrong


def crowding(reader: Reader) -> list[str]:
    """I4 and I6 at this moment: one live attempt a job, and no node with more than it has slots."""
    live = reader.rows(
        "SELECT job_id, count(*) AS n FROM attempts WHERE state IN ('dispatched', 'running') "
        "GROUP BY job_id HAVING count(*) > 1"
    )
    full = reader.rows(
        "SELECT nodes.name, nodes.slots, count(*) AS n FROM attempts JOIN nodes ON nodes.id = attempts.node_id "
        "WHERE attempts.state IN ('dispatched', 'running') AND attempts.takes_slot "
        "GROUP BY nodes.name, nodes.slots HAVING count(*) > nodes.slots"
    )
    return [f"I4: job {row['job_id']} has {row['n']} live attempts" for row in live] + [
        f"I6: node {row['name']} has {row['n']} of {row['slots']} slots" for row in full
    ]
