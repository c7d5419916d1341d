"""The table of agents."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Float, Index, Integer, String, Table, Text, false, text

from coordinator.domains.agents.states import STORED, Runtime
from coordinator.store.schema import Document, Id, Name, id_column, metadata, time_column, version_column


def _one_of(column: str, words: list[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(word)) for word in words)})"


agents = Table(
    "agents",
    metadata,
    id_column(),
    Column("space", Name, nullable=False),
    Column("name", Name, nullable=False),
    Column("description", Text, nullable=False),
    Column("role", Name, nullable=False),
    Column("runtime", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("computer", Document, nullable=False),
    Column("placement", Document, nullable=False),
    Column("retry", Document, nullable=False),
    Column("breakers", Document),
    Column("is_exclusive", Boolean, nullable=False, server_default=false()),
    Column("max_concurrent_tasks", Integer),
    Column("llm_provider", Name),
    Column("llm_model", Name),
    Column("system_prompt", Text),
    Column("temperature", Float),
    Column("max_tokens", Integer),
    Column("enabled_tools", Document, nullable=False),
    Column("flow", Document),
    Column("tags", Document, nullable=False),
    Column("metadata", Document, nullable=False),
    Column("created_by", Id),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("deleted_at", nullable=True),
    version_column(),
    CheckConstraint(_one_of("status", sorted(STORED)), name="status"),
    CheckConstraint(_one_of("runtime", [str(runtime) for runtime in Runtime]), name="runtime"),
    Index(
        "ix_agents_list",
        "space",
        "id",
        postgresql_where=text("deleted_at IS NULL"),
        sqlite_where=text("deleted_at IS NULL"),
    ),
)
