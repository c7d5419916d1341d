"""Audit: revision 0003, after 0002.

SQLite forgets a table's triggers when a later revision makes the table anew: such a revision has to set them again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.String(36).with_variant(sa.String(36, collation="C"), "postgresql")
ACTION = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)

FACTS = (
    "id, at, actor_kind, actor_id, actor_name, credential_id, address, request_id, space, action, resource_type, "
    'resource_id, outcome, "before", "after", message, unrecorded'
)
REFUSED = "the audit trail is append-only"


def upgrade() -> None:
    op.create_table(
        "audit_anchors",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_anchors")),
    )
    op.create_table(
        "audit_trail",
        sa.Column("id", ID, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor_kind", sa.String(length=32), nullable=False),
        sa.Column("actor_id", ID, nullable=True),
        sa.Column("actor_name", sa.String(length=255), nullable=True),
        sa.Column("credential_id", ID, nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("space", sa.String(length=255), nullable=True),
        sa.Column("action", ACTION, nullable=False),
        sa.Column("resource_type", sa.String(length=64), nullable=True),
        sa.Column("resource_id", sa.String(length=255), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("unrecorded", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("hash", sa.String(length=64), nullable=True),
        sa.CheckConstraint("outcome IN ('done', 'refused', 'failed')", name=op.f("ck_audit_trail_outcome")),
        sa.CheckConstraint("(sequence IS NULL) = (hash IS NULL)", name=op.f("ck_audit_trail_sealed_whole")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_trail")),
        sa.UniqueConstraint("sequence", name=op.f("uq_audit_trail_sequence")),
    )
    with op.batch_alter_table("audit_trail", schema=None) as batch_op:
        batch_op.create_index("ix_audit_trail_action", ["action", "at", "id"], unique=False)
        batch_op.create_index("ix_audit_trail_actor_id", ["actor_id", "at", "id"], unique=False)
        batch_op.create_index("ix_audit_trail_actor_name", ["actor_name", "at", "id"], unique=False)
        batch_op.create_index("ix_audit_trail_at", ["at", "id"], unique=False)
        batch_op.create_index("ix_audit_trail_outcome", ["outcome", "at", "id"], unique=False)
        batch_op.create_index("ix_audit_trail_resource", ["resource_type", "resource_id", "at", "id"], unique=False)
        batch_op.create_index(
            "ix_audit_trail_unsealed",
            ["id"],
            unique=False,
            postgresql_where=sa.text("sequence IS NULL"),
            sqlite_where=sa.text("sequence IS NULL"),
        )

    op.create_table(
        "audit_uses",
        sa.Column("credential_id", ID, nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("credential_id", "address", "day", name=op.f("pk_audit_uses")),
    )
    guard = _guard_on_sqlite if op.get_bind().dialect.name == "sqlite" else _guard_on_postgresql
    guard()


def _guard_on_sqlite() -> None:
    """Let rows be added, sealed once, and removed when an anchor that names a sealed row stands after them."""
    refuse = f"BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
    anchored = "COALESCE((SELECT max(sequence) FROM audit_anchors), 0)"
    no_such_row = "NOT EXISTS (SELECT 1 FROM audit_trail WHERE sequence = NEW.sequence AND hash = NEW.hash)"
    for trigger in (
        "audit_trail_added BEFORE INSERT ON audit_trail WHEN NEW.sequence IS NOT NULL",
        f"audit_trail_facts BEFORE UPDATE OF {FACTS} ON audit_trail",
        "audit_trail_seals BEFORE UPDATE ON audit_trail WHEN OLD.sequence IS NOT NULL",
        f"audit_trail_kept BEFORE DELETE ON audit_trail WHEN OLD.sequence IS NULL OR OLD.sequence > {anchored}",
        f"audit_anchors_true BEFORE INSERT ON audit_anchors WHEN {no_such_row}",
        "audit_anchors_fixed BEFORE UPDATE ON audit_anchors",
        "audit_anchors_kept BEFORE DELETE ON audit_anchors",
    ):
        op.execute(f"CREATE TRIGGER {trigger} {refuse}")


def _guard_on_postgresql() -> None:
    """The same, and no TRUNCATE."""
    refuse = f"RAISE EXCEPTION '{REFUSED}' USING ERRCODE = 'restrict_violation';"
    anchored = "COALESCE((SELECT max(sequence) FROM audit_anchors), 0)"
    there = "EXISTS (SELECT 1 FROM audit_trail WHERE sequence = NEW.sequence AND hash = NEW.hash)"
    for name, body in (
        ("audit_refuse", refuse),
        ("audit_keep", f"IF OLD.sequence <= {anchored} THEN RETURN OLD; END IF; {refuse}"),
        ("audit_anchor", f"IF {there} THEN RETURN NEW; END IF; {refuse}"),
    ):
        op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    row, statement = "FOR EACH ROW", "FOR EACH STATEMENT"
    for trigger, function in (
        (f"audit_trail_added BEFORE INSERT ON audit_trail {row} WHEN (NEW.sequence IS NOT NULL)", "audit_refuse"),
        (f"audit_trail_facts BEFORE UPDATE OF {FACTS} ON audit_trail {row}", "audit_refuse"),
        (f"audit_trail_seals BEFORE UPDATE ON audit_trail {row} WHEN (OLD.sequence IS NOT NULL)", "audit_refuse"),
        (f"audit_trail_kept BEFORE DELETE ON audit_trail {row}", "audit_keep"),
        (f"audit_trail_whole BEFORE TRUNCATE ON audit_trail {statement}", "audit_refuse"),
        (f"audit_anchors_true BEFORE INSERT ON audit_anchors {row}", "audit_anchor"),
        (f"audit_anchors_fixed BEFORE UPDATE OR DELETE ON audit_anchors {row}", "audit_refuse"),
        (f"audit_anchors_whole BEFORE TRUNCATE ON audit_anchors {statement}", "audit_refuse"),
    ):
        op.execute(f"CREATE TRIGGER {trigger} EXECUTE FUNCTION {function}()")


def downgrade() -> None:
    op.drop_table("audit_uses")
    op.drop_table("audit_trail")
    op.drop_table("audit_anchors")
    if op.get_bind().dialect.name == "postgresql":
        for name in ("audit_anchor", "audit_keep", "audit_refuse"):
            op.execute(f"DROP FUNCTION {name}()")
