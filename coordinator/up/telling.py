"""What `coordinator up` tells: people in lines, programs in one line of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NodeTold:
    """One node, as it introduced itself."""

    id: str
    name: str
    status: str
    is_approved: bool
    driver: str
    isolation: str
    reason: str
    slots: int
    pid: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that runs, and where."""

    url: str
    binds: tuple[str, ...]
    swagger_ui: str
    flower: str | None
    home: Path
    database: str
    redis: str
    storage: str
    admin: str
    admin_password_file: Path | None
    """None when the password was given and is not ours to keep."""
    logs: Path
    nodes: tuple[NodeTold, ...] = ()
    pids: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        return {"event": "ready", **asdict(self)}


def lines(told: Told) -> Iterator[str]:
    """The same for people."""
    yield f"Longshore is ready after {told.seconds:.1f} s."
    yield from _pairs(told)
    for node in told.nodes:
        yield f"  {'Node':<9} {node.name}: {_state(node)}, {node.slots} slots, isolation {node.isolation}"
        yield f"  {'':<9} {node.reason}"
    yield from _warnings(told)
    yield "Ctrl-C stops everything."


def _pairs(told: Told) -> Iterator[str]:
    where = f"password in {told.admin_password_file}" if told.admin_password_file else "with the password you gave"
    pairs = {
        "API": f"{told.url}/api/v1   ({', '.join(told.binds)})",
        "Docs": told.swagger_ui,
        "Flower": told.flower or "not started",
        "Login": f"{told.admin}, {where}",
        "Database": told.database,
        "Redis": told.redis,
        "Files": told.storage,
        "Logs": str(told.logs),
    }
    for name, value in pairs.items():
        yield f"  {name:<9} {value}"


def _state(node: NodeTold) -> str:
    if node.is_approved:
        return node.status
    return f"waits for approval (PATCH /api/v1/admin/workers/{node.id}/approve)"


def _warnings(told: Told) -> Iterator[str]:
    bare = [node.name for node in told.nodes if node.isolation == "none"]
    if bare:
        yield f"WARNING: {', '.join(bare)} runs jobs WITHOUT ISOLATION: they can read what you can read."
        yield "         Install bubblewrap, or Docker and the computer image (scripts/computer-image), to change that."
