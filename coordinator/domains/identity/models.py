"""Tables of the identity domain."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from coordinator.store.schema import Id, Name, id_column, metadata, time_column, version_column

principals = Table(
    "principals",
    metadata,
    id_column(),
    Column("kind", String(32), nullable=False),
    Column("name", Name, nullable=False, unique=True),
    Column("email", String(320), nullable=True, unique=True, doc="lower case"),
    Column("full_name", Name, nullable=True),
    Column("password_hash", Text, nullable=True),
    Column("role", String(32), nullable=False),
    Column("active", Boolean, nullable=False),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("last_login_at", nullable=True),
    version_column(),
    CheckConstraint("kind IN ('user', 'operator', 'service_account')", name="kind"),
)
"""Whoever can log in. Roles in a space and keys hang on it from tables of their own."""

login_sessions = Table(
    "login_sessions",
    metadata,
    id_column(),
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), nullable=False),
    Column("refresh_id", Id, nullable=True, doc="the one refresh token that is good now"),
    time_column("created_at"),
    time_column("used_at"),
    time_column("expires_at"),
    time_column("revoked_at", nullable=True),
    Index("ix_login_sessions_principal_id", "principal_id"),
    Index("ix_login_sessions_expires_at", "expires_at"),
)
"""One login and all tokens that descend from it. Revoking it ends them all at once."""

# Action words are compared byte by byte: a prefix is then a range of an index on both databases.
_Action = String(64).with_variant(String(64, collation="C"), "postgresql")

audit_trail = Table(
    "audit_trail",
    metadata,
    id_column(),
    time_column("at"),
    Column("actor_kind", String(32), nullable=False),
    Column("actor_id", Id),
    Column("actor_name", Name),
    Column("credential_id", Id),
    Column("address", String(64)),
    Column("request_id", String(128)),
    Column("space", Name),
    Column("action", _Action, nullable=False),
    Column("resource_type", String(64)),
    Column("resource_id", Name),
    Column("outcome", String(16), nullable=False),
    Column("before", Text, doc="canonical JSON, secrets masked; as text, so that both databases keep each byte"),
    Column("after", Text, doc="like before"),
    Column("message", Text),
    Column("unrecorded", Integer, nullable=False, doc="refusals from this address that got no row of their own"),
    Column("sequence", BigInteger, unique=True, doc="its place in the chain; NULL until the leader has sealed it"),
    Column("hash", String(64), doc="SHA-256 of the hash before it and its facts, as hexadecimal digits"),
    CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="outcome"),
    CheckConstraint("(sequence IS NULL) = (hash IS NULL)", name="sealed_whole"),
    Index("ix_audit_trail_at", "at", "id"),
    Index("ix_audit_trail_actor_id", "actor_id", "at", "id"),
    Index("ix_audit_trail_actor_name", "actor_name", "at", "id"),
    Index("ix_audit_trail_action", "action", "at", "id"),
    Index("ix_audit_trail_resource", "resource_type", "resource_id", "at", "id"),
    Index("ix_audit_trail_outcome", "outcome", "at", "id"),
    Index(
        "ix_audit_trail_unsealed",
        "id",
        postgresql_where=text("sequence IS NULL"),
        sqlite_where=text("sequence IS NULL"),
    ),
)
"""Who did what to what. Triggers of the migration refuse every change but sealing, and removal before the anchor."""

audit_anchors = Table(
    "audit_anchors",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False, doc="the last row that was removed"),
    Column("hash", String(64), nullable=False, doc="its hash, on which the chain goes on"),
    time_column("at"),
)
"""Where the kept part of the trail begins: one row for each time that old rows were removed."""

audit_uses = Table(
    "audit_uses",
    metadata,
    Column("credential_id", Id, primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("day", Date, primary_key=True),
)
"""Which credentials were used from where on which day: so that each of them is told once a day, and not each use."""
