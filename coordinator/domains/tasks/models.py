"""Tables of tasks, executions and files. Whether a task runs is not here: its job (same id) knows."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text, text

from coordinator.store.schema import Document, Id, Name, id_column, metadata, time_column, version_column

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("instructions", Text, nullable=False),
    Column("required_tools", Document, nullable=False),
    Column("requested", Document, nullable=False),
    Column("assigned_by", Id),
    Column("workflow_id", Id),
    Column("parent_task_id", Id),
    Column("progress_percent", Integer, nullable=False),
    Column("metadata", Document, nullable=False),
    version_column(),
)
"""`requested` is what the client asked for itself (`retry`, `placement`), before it is merged with its agent's."""

executions = Table(
    "executions",
    metadata,
    Column("id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("input", Document, nullable=False),
    Column("options", Document, nullable=False),
    Column("requested", Document, nullable=False),
)

files = Table(
    "files",
    metadata,
    id_column(),
    Column("space", Name, nullable=False),
    Column("filename", Name, nullable=False),
    Column("content_type", Name, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("storage_key", Text, nullable=False),
    Column("job_id", Id),
    Column("job_kind", String(16)),
    Column("attempt_id", Id),
    Column("created_by", Id),
    time_column("created_at"),
    time_column("deleted_at", nullable=True),
    Index("ix_files_list", "space", "id"),
    Index("ix_files_job_id_id", "job_id", "id"),
    Index(
        "ix_files_deleted",
        "deleted_at",
        postgresql_where=text("deleted_at IS NOT NULL"),
        sqlite_where=text("deleted_at IS NOT NULL"),
    ),
)
"""Uploads (`attempt_id` is NULL) and artifacts (brought out of a computer by that attempt).

A row with `deleted_at` is gone for everybody; it stays until its content has left the storage.
"""
