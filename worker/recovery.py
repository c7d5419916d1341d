"""What an earlier daemon of this node left in the journal: results are sent, what ran is told lost.

Here is the place where attempts whose computers still live could be taken over instead of being told lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from shared.contracts.node import JobSpec
from worker.attempts import Attempt, Attempts
from worker.jobs.computers import Computers
from worker.jobs.ending import lost
from worker.journal import Claimed, Ended, Entry, Granted
from worker.uplink import Uplink

log = structlog.get_logger(__name__)


def hold(left_over: Sequence[Entry], attempts: Attempts) -> None:
    """Name them in the heartbeats from the first one on, so that the coordinator waits for our word."""
    for entry in left_over:
        if isinstance(entry, Granted | Ended):
            attempts.add(_attempt(entry))


def recover(left_over: Sequence[Entry], *, attempts: Attempts, computers: Computers, uplink: Uplink) -> None:
    """Remove the computers that are left, then report. Returns once every report was answered."""
    computers.reap(())
    waiting = []
    for entry in left_over:
        if isinstance(entry, Claimed):
            # Nobody knows whether it was granted. Nothing was started; its lease ends by itself.
            uplink.forget(entry.attempt)
        elif isinstance(entry, Ended):
            waiting.append((entry.attempt, uplink.resend(entry)))
        elif isinstance(entry, Granted):
            ending = lost("node_restarted", "the node's daemon was started anew while the job ran")
            waiting.append((entry.attempt, uplink.hand_in(ending.report(_attempt(entry)))))
    for attempt_id, answer in waiting:
        log.info("left_over_reported", attempt=attempt_id, verdict=str(answer.result()))
        attempts.remove(attempt_id)


def _attempt(entry: Granted | Ended) -> Attempt:
    job = entry.job if isinstance(entry, Granted) else ""
    attempt = Attempt(
        attempt_id=entry.attempt, job_id=job, number=0, token=entry.token, spec=JobSpec(kind="", agent="", runtime="")
    )
    attempt.phase = "reporting"
    return attempt
