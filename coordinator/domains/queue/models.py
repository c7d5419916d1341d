"""Tables of the queue layer. Rows change only through `moves`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
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
)
"""An agent's lane through the queue: whether work may leave it, and how much at a time."""

demands = Table(
    "demands",
    metadata,
    id_column(),
    Column("agent_id", Id, nullable=False),
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
    Column("state", String(16), nullable=False),
    Column("spec", Document, nullable=False),
    Column("retry", Document, nullable=False),
    Column("hold_reason", Text),
    Column("generation", Integer, nullable=False),
    Column("attempts_made", Integer, nullable=False),
    Column("current_attempt_id", Id),
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
        text("priority DESC"),
        "id",
        postgresql_where=text("state = 'queued'"),
        sqlite_where=text("state = 'queued'"),
    ),
    Index(
        "ix_jobs_unassigned",
        text("priority DESC"),
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
    Index("ix_jobs_list", "space", "kind", "id"),
    Index("ix_jobs_list_state", "space", "kind", "state", "priority", "id"),
    Index("ix_jobs_list_agent", "agent_id", "kind", "id"),
)

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
    "demands",
    "events",
    "job_events",
    "job_inputs",
    "job_results",
    "jobs",
    "lanes",
    "leaders",
]
