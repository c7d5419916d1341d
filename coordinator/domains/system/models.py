"""Tables of the system domain."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table

from coordinator.store.schema import Document, Id, metadata, time_column

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal_id", Id, primary_key=True),
    Column("request", String(64), primary_key=True, doc="digest of method and path"),
    Column("key", String(255), primary_key=True),
    Column("body_hash", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", Document, nullable=False),
    Column("body", LargeBinary, nullable=False),
    time_column("created_at"),
    time_column("expires_at"),
    Index("ix_idempotency_keys_expires_at", "expires_at"),
)
"""Answers to requests that carried an Idempotency-Key, written in the transaction of the work itself."""
