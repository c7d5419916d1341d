"""Tables of the vault domain."""

from __future__ import annotations

from sqlalchemy import Column, String, Table, Text

from coordinator.store.schema import id_column, metadata, time_column

data_keys = Table(
    "data_keys",
    metadata,
    id_column(),
    Column("wrapped", Text, nullable=False, doc="the key itself, sealed by the master key"),
    Column("master", String(64), nullable=False, doc="fingerprint of the master key that wrapped it"),
    time_column("created_at"),
    time_column("retired_at", nullable=True),
)
"""The keys that seal secrets. New secrets are sealed by the newest one that is not retired."""
