"""Tables of the queue layer. Rows change only through `moves`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from coordinator.domains.queue.states import AttemptState, JobState
from coordinator.store.schema import Document, Id, Name, id_column, metadata, time_column, version_column

BigId = BigInteger().with_variant(Integer, "sqlite")


def _one_of(column: str, states: type[JobState] | type[AttemptState]) -> str:
    return f"{column} IN ({', '.join(repr(str(state)) for state in states)})"


lanes = Table(
    "lanes",
    metadata,
    Column("agent_id", Id, primary_key=True),
    Column("hold_reason", Text),
    Column("max_active", Integer),
    Column("agent_name", Name),
)
"""An agent's lane through the queue: whether work may leave it, how much at a time, and whose it is in words."""

demands = Table(
    "demands",
    metadata,
    id_column(),
    Column("agent_id", Id, nullable=False),
    Column("space", Name, nullable=False, server_default="default"),
    Column("needs", Document, nullable=False),
    Column("takes_slot", Boolean, nullable=False),
    Column("hold_reason", Text),
    Index("ix_demands_agent_id", "agent_id"),
)
"""All jobs of one agent that ask for the same kind of node; why they wait is told once, here."""

jobs = Table(
    "jobs",
    metadata,
    id_column(),
    Column("space", Name, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("agent_id", Id),
    Column("demand_id", Id, ForeignKey("demands.id")),
    Column("priority", SmallInteger, nullable=False),
    Column("rank", BigInteger, nullable=False, server_default="0"),
    Column("is_exclusive", Boolean, nullable=False, server_default=false()),
    Column("state", String(16), nullable=False),
    Column("spec", Document, nullable=False),
    Column("retry", Document, nullable=False),
    Column("hold_reason", Text),
    Column("generation", Integer, nullable=False),
    Column("attempts_made", Integer, nullable=False),
    Column("current_attempt_id", Id),
    Column("waits_for_attempt_id", Id),
    Column("fail_count", Integer, nullable=False),
    Column("infra_count", Integer, nullable=False),
    time_column("not_before", nullable=True),
    time_column("deadline_at", nullable=True),
    time_column("cancel_requested_at", nullable=True),
    Column("reason_code", String(64)),
    Column("error", Document),
    Column("created_by", Id),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("started_at", nullable=True),
    time_column("finished_at", nullable=True),
    version_column(),
    CheckConstraint(_one_of("state", JobState), name="state"),
    Index(
        "ix_jobs_ready",
        "demand_id",
        "rank",
        "id",
        postgresql_where=text("state = 'queued'"),
        sqlite_where=text("state = 'queued'"),
    ),
    Index(
        "ix_jobs_unassigned",
        "rank",
        "id",
        postgresql_where=text("state = 'queued' AND agent_id IS NULL"),
        sqlite_where=text("state = 'queued' AND agent_id IS NULL"),
    ),
    Index(
        "ix_jobs_waiting",
        "not_before",
        postgresql_where=text("state = 'queued' AND not_before IS NOT NULL"),
        sqlite_where=text("state = 'queued' AND not_before IS NOT NULL"),
    ),
    Index(
        "ix_jobs_deadline",
        "deadline_at",
        postgresql_where=text("finished_at IS NULL AND deadline_at IS NOT NULL"),
        sqlite_where=text("finished_at IS NULL AND deadline_at IS NOT NULL"),
    ),
    Index(
        "ix_jobs_exclusive",
        "waits_for_attempt_id",
        postgresql_where=text("waits_for_attempt_id IS NOT NULL"),
        sqlite_where=text("waits_for_attempt_id IS NOT NULL"),
    ),
    Index("ix_jobs_list", "space", "kind", "id"),
    Index("ix_jobs_list_state", "space", "kind", "state", "priority", "id"),
    Index("ix_jobs_list_agent", "agent_id", "kind", "id"),
)

"""`rank` is the moment (ms) at which a job of the highest priority would have come to stand at the same place in line:
lower goes first, so work of low priority waits longer but never for ever. `waits_for_attempt_id` is an exclusive job's
lost attempt, whose computer nobody has seen go yet.
"""

attempts = Table(
    "attempts",
    metadata,
    id_column(),
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("node_id", Id, nullable=False),
    Column("node_name", Name, nullable=False),
    Column("node_epoch", String(64)),
    Column("takes_slot", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("token_hash", String(64)),
    time_column("dispatched_at"),
    time_column("published_at", nullable=True),
    Column("publish_count", Integer, nullable=False),
    time_column("claimed_at", nullable=True),
    time_column("lease_until", nullable=True),
    time_column("ended_at", nullable=True),
    Column("exit_code", Integer),
    Column("reason_code", String(64)),
    Column("error", Document),
    Column("usage", Document),
    Column("computer", Document),
    Column("result_digest", String(64)),
    Column("lines_stored", Integer, nullable=False, server_default="0"),
    UniqueConstraint("job_id", "number"),
    CheckConstraint(_one_of("state", AttemptState), name="state"),
    Index(
        "ix_attempts_one_live",
        "job_id",
        unique=True,
        postgresql_where=text("state IN ('dispatched', 'running')"),
        sqlite_where=text("state IN ('dispatched', 'running')"),
    ),
    Index(
        "ix_attempts_on_node",
        "node_id",
        "state",
        postgresql_where=text("state IN ('dispatched', 'running')"),
        sqlite_where=text("state IN ('dispatched', 'running')"),
    ),
    Index(
        "ix_attempts_lease",
        "lease_until",
        postgresql_where=text("state = 'running'"),
        sqlite_where=text("state = 'running'"),
    ),
    Index(
        "ix_attempts_unclaimed",
        "dispatched_at",
        postgresql_where=text("state = 'dispatched'"),
        sqlite_where=text("state = 'dispatched'"),
    ),
)
"""One try each; the row is the outbox (`published_at`) and, once claimed, the only permission to start a computer."""

job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("file_id", Id, primary_key=True),
    Index("ix_job_inputs_file_id", "file_id"),
)
"""Which files a job reads, so that none of them is deleted under it."""

job_results = Table(
    "job_results",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt_id", Id, nullable=False),
    Column("result", Document),
)
"""The accepted result, apart from the job so that lists stay light."""

job_events = Table(
    "job_events",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("job_id", Id, nullable=False),
    Column("attempt_number", Integer),
    time_column("at"),
    Column("type", String(32), nullable=False),
    Column("level", String(8), nullable=False),
    Column("stream", String(8)),
    Column("message", Text, nullable=False),
    Column("data", Document),
    Index("ix_job_events_job_id_id", "job_id", "id"),
)
"""What happened to a job: its moves and log lines. Written under the job's row lock, so readers see ids in order."""

events = Table(
    "events",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    time_column("at"),
    Column("space", Name, nullable=False),
    Column("type", String(64), nullable=False),
    Column("subject_id", Id),
    Column("data", Document, nullable=False),
)
"""Consequences for others (live stream, later webhooks and triggers), written in the transaction of the change."""

dead_letters = Table(
    "dead_letters",
    metadata,
    id_column(),
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("space", Name, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("agent_id", Id),
    Column("priority", SmallInteger, nullable=False),
    Column("reason_code", String(64), nullable=False),
    Column("error", Document),
    Column("note", Text),
    Column("created_by", Id),
    time_column("created_at"),
    Column("closed_how", String(16)),
    Column("closed_by", Id),
    time_column("closed_at", nullable=True),
    UniqueConstraint("job_id", "generation"),
    CheckConstraint("closed_how IN ('redriven', 'dismissed', 'pruned')", name="closed_how"),
    Index(
        "ix_dead_letters_open",
        "space",
        "id",
        postgresql_where=text("closed_at IS NULL"),
        sqlite_where=text("closed_at IS NULL"),
    ),
    Index(
        "ix_dead_letters_age",
        "created_at",
        postgresql_where=text("closed_at IS NULL"),
        sqlite_where=text("closed_at IS NULL"),
    ),
)
"""One for each time that a job died. Open until an admin sends the job round again or lets the letter go."""

pauses = Table(
    "pauses",
    metadata,
    Column("scope", String(8), primary_key=True),
    Column("subject", Name, primary_key=True),
    Column("reason", Text),
    Column("paused_by", Id),
    Column("paused_by_name", Name),
    time_column("paused_at"),
    CheckConstraint("scope IN ('fleet', 'group', 'node')", name="scope"),
)
"""Where nothing new may start: the whole fleet, a group of nodes, one node. What runs goes on."""

breakers = Table(
    "breakers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("forced", Boolean, nullable=False),
    Column("failure_threshold", Integer, nullable=False),
    Column("window_seconds", Float, nullable=False),
    Column("recovery_timeout_seconds", Float, nullable=False),
    Column("success_threshold", Integer, nullable=False),
    Column("cause", Text),
    time_column("opened_at", nullable=True),
    time_column("probe_from", nullable=True),
    Column("times_reopened", Integer, nullable=False),
    Column("probe_attempt_id", Id),
    Column("probes_succeeded", Integer, nullable=False),
    Column("total_successes", BigInteger, nullable=False),
    Column("total_failures", BigInteger, nullable=False),
    Column("last_failure", Document),
    time_column("last_failure_at", nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    version_column(),
    CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state"),
)
"""One for each thing that jobs depend on and that failed at least once, or that an admin set up."""

breaker_buckets = Table(
    "breaker_buckets",
    metadata,
    Column("name", String(255), ForeignKey("breakers.name", ondelete="CASCADE"), primary_key=True),
    Column("bucket", BigInteger, primary_key=True),
    Column("failures", Integer, nullable=False),
)
"""Failures by slice of time: the sliding window of a breaker."""

breaker_changes = Table(
    "breaker_changes",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", String(255), ForeignKey("breakers.name", ondelete="CASCADE"), nullable=False),
    time_column("at"),
    Column("source", String(16), nullable=False),
    Column("target", String(16), nullable=False),
    Column("cause", Text, nullable=False),
    Column("changed_by", Id),
    Index("ix_breaker_changes_name_id", "name", "id"),
)
"""Every change of a breaker's state, with its cause and who made it."""

agent_stats = Table(
    "agent_stats",
    metadata,
    Column("agent_id", Id, primary_key=True),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("run_ms", BigInteger, nullable=False),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("epoch", Integer, nullable=False),
    time_column("since"),
    time_column("until"),
)

__all__ = [
    "agent_stats",
    "attempts",
    "breaker_buckets",
    "breaker_changes",
    "breakers",
    "dead_letters",
    "demands",
    "events",
    "job_events",
    "job_inputs",
    "job_results",
    "jobs",
    "lanes",
    "leaders",
    "pauses",
]
