"""Tables of the identity domain."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, String, Table, Text

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
