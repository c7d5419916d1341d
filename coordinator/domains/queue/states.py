"""The lives of jobs and attempts. Each state says who brings a job there and who takes it out."""

from __future__ import annotations

from enum import StrEnum

from shared.lifecycle import Lifecycle


class JobState(StrEnum):
    """Where a job stands."""

    queued = "queued"
    """Accepted (or waiting for its next try). The dispatcher places it; a hold or `not_before` may keep it here."""
    dispatched = "dispatched"
    """An attempt is on its way to a node. The node's claim starts it; silence sends it back to queued."""
    running = "running"
    """A node holds the claim. Its report, or the loss of its lease, ends it."""
    cancelling = "cancelling"
    """A running job is being stopped: somebody cancelled it, or its deadline passed. The node's report ends it."""
    succeeded = "succeeded"
    """A current attempt's result was accepted. Final."""
    dead = "dead"
    """No further try: the policy is exhausted or the error is final. Only a redrive takes it out."""
    cancelled = "cancelled"
    """Cancelled, and its computer is gone. Final."""


class AttemptState(StrEnum):
    """Where one try stands."""

    dispatched = "dispatched"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    """The job's own failure: exit code, error, timeout. Counts against `max_attempts`."""
    lost = "lost"
    """Ours: the node, the computer or the lease was lost. Counts against the infrastructure limit."""
    expired = "expired"
    """Never claimed. Counts against nothing."""
    returned = "returned"
    """Handed back by a draining node. Counts against nothing."""
    cancelled = "cancelled"


JOB = Lifecycle(
    "job",
    {
        JobState.queued: {JobState.dispatched, JobState.cancelled, JobState.dead, JobState.succeeded},
        JobState.dispatched: {JobState.running, JobState.queued, JobState.cancelled, JobState.dead},
        JobState.running: {JobState.succeeded, JobState.queued, JobState.dead, JobState.cancelling},
        JobState.cancelling: {JobState.cancelled, JobState.dead},
        JobState.succeeded: set(),
        JobState.dead: {JobState.queued},
        JobState.cancelled: set(),
    },
)

ATTEMPT = Lifecycle(
    "attempt",
    {
        AttemptState.dispatched: {AttemptState.running, AttemptState.expired, AttemptState.cancelled},
        AttemptState.running: {
            AttemptState.succeeded,
            AttemptState.failed,
            AttemptState.lost,
            AttemptState.returned,
            AttemptState.cancelled,
        },
        AttemptState.succeeded: set(),
        AttemptState.failed: set(),
        AttemptState.lost: set(),
        AttemptState.expired: set(),
        AttemptState.returned: set(),
        AttemptState.cancelled: set(),
    },
)

ENDED = frozenset({JobState.succeeded, JobState.dead, JobState.cancelled})
"""Nothing more happens by itself."""
ON_A_NODE = frozenset({JobState.dispatched, JobState.running, JobState.cancelling})
"""Jobs whose current attempt belongs to a node."""
