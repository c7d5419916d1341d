"""Tables of the identity domain."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, String, Table, Text

from coordinator.store.schema import Name, id_column, metadata, time_column, version_column

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
"""Whoever can log in. Roles in a space, keys and login sessions hang on it from tables of their own."""
