"""Queue guarantees: revision 0002, after 0001."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.String(36).with_variant(sa.String(36, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "breakers",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("failure_threshold", sa.Integer(), nullable=False),
        sa.Column("window_seconds", sa.Float(), nullable=False),
        sa.Column("recovery_timeout_seconds", sa.Float(), nullable=False),
        sa.Column("success_threshold", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("opened_at", MOMENT, nullable=True),
        sa.Column("probe_from", MOMENT, nullable=True),
        sa.Column("times_reopened", sa.Integer(), nullable=False),
        sa.Column("probe_attempt_id", ID, nullable=True),
        sa.Column("probes_succeeded", sa.Integer(), nullable=False),
        sa.Column("total_successes", sa.BigInteger(), nullable=False),
        sa.Column("total_failures", sa.BigInteger(), nullable=False),
        sa.Column("last_failure", DOCUMENT, nullable=True),
        sa.Column("last_failure_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name=op.f("ck_breakers_state")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_breakers")),
    )
    op.create_table(
        "pauses",
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("paused_by", ID, nullable=True),
        sa.Column("paused_by_name", sa.String(length=255), nullable=True),
        sa.Column("paused_at", MOMENT, nullable=False),
        sa.CheckConstraint("scope IN ('fleet', 'group', 'node')", name=op.f("ck_pauses_scope")),
        sa.PrimaryKeyConstraint("scope", "subject", name=op.f("pk_pauses")),
    )
    op.create_table(
        "breaker_buckets",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["name"], ["breakers.name"], name=op.f("fk_breaker_buckets_name_breakers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("name", "bucket", name=op.f("pk_breaker_buckets")),
    )
    op.create_table(
        "breaker_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=16), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("changed_by", ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["name"], ["breakers.name"], name=op.f("fk_breaker_changes_name_breakers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_breaker_changes")),
    )
    with op.batch_alter_table("breaker_changes", schema=None) as batch_op:
        batch_op.create_index("ix_breaker_changes_name_id", ["name", "id"], unique=False)

    op.create_table(
        "dead_letters",
        sa.Column("id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("space", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("agent_id", ID, nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=False),
        sa.Column("error", DOCUMENT, nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_by", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("closed_how", sa.String(length=16), nullable=True),
        sa.Column("closed_by", ID, nullable=True),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "closed_how IN ('redriven', 'dismissed', 'pruned')", name=op.f("ck_dead_letters_closed_how")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_dead_letters_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint("job_id", "generation", name=op.f("uq_dead_letters_job_id_generation")),
    )
    with op.batch_alter_table("dead_letters", schema=None) as batch_op:
        batch_op.create_index(
            "ix_dead_letters_age",
            ["created_at"],
            unique=False,
            postgresql_where=sa.text("closed_at IS NULL"),
            sqlite_where=sa.text("closed_at IS NULL"),
        )
        batch_op.create_index(
            "ix_dead_letters_open",
            ["space", "id"],
            unique=False,
            postgresql_where=sa.text("closed_at IS NULL"),
            sqlite_where=sa.text("closed_at IS NULL"),
        )

    with op.batch_alter_table("demands", schema=None) as batch_op:
        batch_op.add_column(sa.Column("space", sa.String(length=255), server_default="default", nullable=False))

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rank", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("is_exclusive", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("waits_for_attempt_id", ID, nullable=True))
        batch_op.drop_index(batch_op.f("ix_jobs_ready"), sqlite_where=sa.text("state = 'queued'"))
        batch_op.create_index(
            "ix_jobs_ready",
            ["demand_id", "rank", "id"],
            unique=False,
            postgresql_where=sa.text("state = 'queued'"),
            sqlite_where=sa.text("state = 'queued'"),
        )
        batch_op.drop_index(
            batch_op.f("ix_jobs_unassigned"), sqlite_where=sa.text("state = 'queued' AND agent_id IS NULL")
        )
        batch_op.create_index(
            "ix_jobs_unassigned",
            ["rank", "id"],
            unique=False,
            postgresql_where=sa.text("state = 'queued' AND agent_id IS NULL"),
            sqlite_where=sa.text("state = 'queued' AND agent_id IS NULL"),
        )
        batch_op.create_index(
            "ix_jobs_exclusive",
            ["waits_for_attempt_id"],
            unique=False,
            postgresql_where=sa.text("waits_for_attempt_id IS NOT NULL"),
            sqlite_where=sa.text("waits_for_attempt_id IS NOT NULL"),
        )

    with op.batch_alter_table("lanes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("agent_name", sa.String(length=255), nullable=True))

    with op.batch_alter_table("agents", schema=None) as batch_op:
        batch_op.add_column(sa.Column("breakers", DOCUMENT, nullable=True))
        batch_op.add_column(sa.Column("is_exclusive", sa.Boolean(), server_default=sa.false(), nullable=False))

    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("broker_login", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("drain_by", MOMENT, nullable=True))
        batch_op.add_column(sa.Column("canaries_heard", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("canaries_missed", sa.Integer(), server_default="0", nullable=False))

    _rank_what_waits()
    _put_demands_into_their_spaces()
    _write_letters_for_the_dead()
    _name_the_lanes()


def _rank_what_waits() -> None:
    """Put the jobs there are in line: their age, and five minutes for each step below the highest priority."""
    created_ms = {
        "postgresql": "CAST(EXTRACT(EPOCH FROM created_at) * 1000 AS BIGINT)",
        "sqlite": "CAST((julianday(created_at) - 2440587.5) * 86400000 AS INTEGER)",
    }[op.get_bind().dialect.name]
    in_line = f"{created_ms} + (3 - priority) * 300000"
    op.execute(f"UPDATE jobs SET rank = {in_line} WHERE finished_at IS NULL")  # noqa: S608 - constants of this file


def _put_demands_into_their_spaces() -> None:
    """A demand is of one agent, which is in one space."""
    theirs = "(SELECT agents.space FROM agents WHERE agents.id = demands.agent_id)"
    op.execute(f"UPDATE demands SET space = COALESCE({theirs}, space)")  # noqa: S608 - constants of this file


def _write_letters_for_the_dead() -> None:
    """Jobs that died before there were dead letters get theirs, so that they can be sent round again."""
    op.execute(
        "INSERT INTO dead_letters "
        "(id, job_id, generation, space, kind, agent_id, priority, reason_code, error, created_at) "
        "SELECT id, id, generation, space, kind, agent_id, priority, COALESCE(reason_code, 'failed'), error, "
        "COALESCE(finished_at, updated_at) FROM jobs WHERE state = 'dead'"
    )


def _name_the_lanes() -> None:
    """Breakers know agents by the names they have now, and look for them in their lanes."""
    op.execute("UPDATE lanes SET agent_name = (SELECT name FROM agents WHERE agents.id = lanes.agent_id)")


def downgrade() -> None:
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.drop_column("canaries_missed")
        batch_op.drop_column("canaries_heard")
        batch_op.drop_column("drain_by")
        batch_op.drop_column("broker_login")

    with op.batch_alter_table("agents", schema=None) as batch_op:
        batch_op.drop_column("is_exclusive")
        batch_op.drop_column("breakers")

    with op.batch_alter_table("lanes", schema=None) as batch_op:
        batch_op.drop_column("agent_name")

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_jobs_exclusive",
            postgresql_where=sa.text("waits_for_attempt_id IS NOT NULL"),
            sqlite_where=sa.text("waits_for_attempt_id IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_jobs_unassigned",
            postgresql_where=sa.text("state = 'queued' AND agent_id IS NULL"),
            sqlite_where=sa.text("state = 'queued' AND agent_id IS NULL"),
        )
        batch_op.drop_index(
            "ix_jobs_ready", postgresql_where=sa.text("state = 'queued'"), sqlite_where=sa.text("state = 'queued'")
        )
        batch_op.drop_column("waits_for_attempt_id")
        batch_op.drop_column("is_exclusive")
        batch_op.drop_column("rank")
    with op.batch_alter_table("demands", schema=None) as batch_op:
        batch_op.drop_column("space")
    op.create_index(
        "ix_jobs_unassigned",
        "jobs",
        [sa.text("priority DESC"), "id"],
        postgresql_where=sa.text("state = 'queued' AND agent_id IS NULL"),
        sqlite_where=sa.text("state = 'queued' AND agent_id IS NULL"),
    )
    op.create_index(
        "ix_jobs_ready",
        "jobs",
        ["demand_id", sa.text("priority DESC"), "id"],
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )

    op.drop_table("dead_letters")
    op.drop_table("breaker_changes")
    op.drop_table("breaker_buckets")
    op.drop_table("pauses")
    op.drop_table("breakers")
