"""Tables of the fleet: nodes, their history of vitals, enrolment tokens."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from coordinator.domains.fleet.states import NodeStatus
from coordinator.store.schema import Document, Id, Name, UTCDateTime, id_column, metadata, time_column, version_column

nodes = Table(
    "nodes",
    metadata,
    id_column(),
    Column("name", Name, nullable=False),
    Column("hostname", Name, nullable=False),
    Column("ip_address", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("is_approved", Boolean, nullable=False),
    Column("is_draining", Boolean, nullable=False),
    Column("status_reason", Text),
    Column("group_name", Name),
    Column("labels", Document, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("light_slots", Integer, nullable=False),
    Column("max_agents", Integer, nullable=False),
    Column("cpu_cores", Integer),
    Column("memory_total_mb", Integer),
    Column("os_info", Document, nullable=False),
    Column("software", Document, nullable=False),
    Column("computers", Document, nullable=False),
    Column("credential_hash", String(64), nullable=False),
    Column("epoch", String(64)),
    Column("vitals", Document),
    Column("docker_ok", Boolean),
    Column("queue_ok", Boolean),
    Column("broker_login", String(16)),
    time_column("drain_by", nullable=True),
    Column("canaries_heard", Integer, nullable=False, server_default="0"),
    Column("canaries_missed", Integer, nullable=False, server_default="0"),
    time_column("last_seen_at", nullable=True),
    time_column("approved_at", nullable=True),
    Column("approved_by", Id),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("removed_at", nullable=True),
    version_column(),
    CheckConstraint(f"status IN ({', '.join(repr(str(status)) for status in NodeStatus)})", name="status"),
    Index("ix_nodes_status", "status"),
    Index("ix_nodes_name", "name"),
)

node_vitals = Table(
    "node_vitals",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("at", UTCDateTime, primary_key=True),
    Column("cpu_percent", Float),
    Column("memory_percent", Float),
    Column("disk_percent", Float),
    Column("load_1m", Float),
    Column("network_sent_bytes", BigInteger),
    Column("network_received_bytes", BigInteger),
    Column("slots_used", Integer),
)


enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    id_column(),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("note", Name),
    Column("group_name", Name),
    Column("created_by", Id),
    time_column("created_at"),
    time_column("expires_at"),
    time_column("used_at", nullable=True),
    Column("used_by", Id),
)
