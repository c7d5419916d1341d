"""The node protocol: enrol, heartbeat, sync (claims and reports), logs. JSON over HTTP, snake_case, times as durations.

A node proves who it is with its own credential (`Authorization: Bearer lsn_…`) and which attempt it speaks for with
that attempt's token. Moments never cross this wire from a node: clocks of nodes are not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

PROTOCOL = 1
"""Raised when a node and a coordinator of different age can no longer talk."""

NODE_TOKEN_PREFIX = "lsn_"  # noqa: S105 - what a token begins with is no secret
ENROL_TOKEN_PREFIX = "lse_"  # noqa: S105
ATTEMPT_TOKEN_HEADER = "X-Attempt-Token"  # noqa: S105


class Message:
    """Base of the wire dataclasses: plain JSON out, unknown keys ignored coming in (the other side may be newer)."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        # What the fields hold is plain JSON already, so one level is enough.
        names: Iterable[str] = self.__dataclass_fields__  # type: ignore[attr-defined]
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        known = cls.__dataclass_fields__  # type: ignore[attr-defined]
        return cls(**{key: value for key, value in data.items() if key in known})


class Outcome(StrEnum):
    """How a node says an attempt ended."""

    succeeded = "succeeded"
    failed = "failed"
    """The job's own fault: exit code, exception, timeout, a limit it hit."""
    lost = "lost"
    """Not the job's fault: the computer or something below it broke."""
    cancelled = "cancelled"
    """Stopped on request; the computer is gone."""
    returned = "returned"
    """Handed back by a draining node; the computer is gone."""


class Want(StrEnum):
    """What the coordinator wants done with an attempt that a node says it holds."""

    keep = "keep"
    stop = "stop"
    """Cancelled: stop it gracefully, then report `cancelled`."""
    kill = "kill"
    """Not (or no longer) this node's: end it at once, report nothing."""


@dataclass(frozen=True, slots=True)
class Enrol(Message):
    """POST /api/v1/workers/register, with an enrolment token as bearer."""

    name: str
    hostname: str
    ip_address: str
    slots: int = 4
    light_slots: int = 32
    max_agents: int = 5
    cpu_cores: int | None = None
    memory_total_mb: int | None = None
    group: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    os_info: dict[str, Any] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)
    computers: dict[str, Any] = field(default_factory=dict)
    """Driver and isolation: {driver, isolation, image, features, notes}."""


@dataclass(frozen=True, slots=True)
class Enrolled(Message):
    """The answer: `credential` is shown this once."""

    id: str
    status: str
    is_approved: bool
    credential: str
    heartbeat_seconds: float


@dataclass(frozen=True, slots=True)
class HeldAttempt(Message):
    """One attempt a node holds: claimed and not yet reported."""

    attempt_id: str
    token: str
    phase: str = "running"


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """POST /api/v1/workers/{id}/heartbeat. `epoch` is random per daemon start."""

    epoch: str
    protocol: int = PROTOCOL
    cpu_usage_percent: float | None = None
    memory_usage_percent: float | None = None
    disk_usage_percent: float | None = None
    vitals: dict[str, Any] = field(default_factory=dict)
    """{load:[1m,5m,15m], network:{sent_bytes,received_bytes}, temperatures:{name: celsius}, memory:{total_bytes,
    available_bytes}, disk:{total_bytes,free_bytes}, computers: n, uptime_seconds}"""
    docker_ok: bool | None = None
    queue_ok: bool | None = None
    slots: int | None = None
    slots_used: int = 0
    light_slots: int | None = None
    draining: bool = False
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """HeldAttempt as JSON, every one the node holds."""
    computers: dict[str, Any] | None = None
    present: list[str] | None = None
    """Attempt ids of every computer that exists on the node, whoever started it; None when it could not be asked."""
    software: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatReply(Message):
    """What the coordinator wants of the node now. `broker` and `queue` are None until an admin approved it."""

    status: str
    is_approved: bool
    heartbeat_seconds: float
    lease_seconds: float
    broker: str | None = None
    queue: str | None = None
    drain: bool = False
    drain_in_seconds: float | None = None
    """How long what runs may still take while it drains; None when it may take as long as it likes."""
    restart_consumer: bool = False
    attempts: dict[str, str] = field(default_factory=dict)
    """attempt id → Want"""
    limits: dict[str, Any] = field(default_factory=dict)
    """{max_artifacts, max_artifacts_bytes, max_file_bytes, max_result_bytes, max_log_bytes}"""


@dataclass(frozen=True, slots=True)
class Claim(Message):
    """Asks to start an attempt. The same nonce asked again gets the same answer (a lost reply)."""

    attempt_id: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Grant(Message):
    """Answer to one claim: either `token` and `spec`, or `refused` with a code (the node drops the ticket)."""

    attempt_id: str
    token: str | None = None
    job_id: str | None = None
    number: int | None = None
    lease_seconds: float | None = None
    spec: dict[str, Any] | None = None
    deadline_in_seconds: float | None = None
    """How long the job has left before its deadline; None when it has none."""
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Report(Message):
    """How an attempt ended. `digest` is the SHA-256 of the canonical result: it makes a repeated report known."""

    attempt_id: str
    token: str
    outcome: str
    exit_code: int | None = None
    reason_code: str | None = None
    error: dict[str, Any] | None = None
    """{code, message, retryable, retry_after_seconds?}"""
    result: Any = None
    usage: dict[str, Any] | None = None
    """{wall_ms, cpu_ms, peak_memory_bytes, bytes_in, bytes_out, log_bytes}"""
    computer: dict[str, Any] | None = None
    """{driver, isolation, image}"""
    charges: dict[str, str] | None = None
    """How the services that the attempt called fared, by breaker name: {"llm:openai/gpt": "ok" or "failed"}."""
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Sync(Message):
    """POST /api/v1/workers/{id}/sync: many claims and reports in one request and one transaction."""

    epoch: str
    claims: list[dict[str, Any]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SyncReply(Message):
    """`grants` in the order of the claims; `reports` maps attempt id → "accepted" or "stale"."""

    grants: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine(Message):
    """One line of a job, sent by POST /api/v1/workers/{id}/logs; the answer is {"stored": n, "stale": [attempt ids]}.

    `offset` counts the attempt's lines from 0, so that a resent batch is not stored twice."""

    attempt_id: str
    token: str
    offset: int
    stream: str
    level: str
    message: str
    age_ms: int = 0
    """How long ago the node saw it; the coordinator turns this into a moment of its own clock."""


@dataclass(frozen=True, slots=True)
class InputFile(Message):
    """A file to place in the computer at /work/input/<filename> before the command starts.

    Its bytes: GET /api/v1/workers/{id}/attempts/{attempt_id}/files/{file_id} with the attempt's token in a header.
    """

    id: str
    filename: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class JobSpec(Message):
    """What a node is told to do. Everything it needs, nothing it does not."""

    kind: str
    """"task" or "execution"; only for people."""
    agent: str
    runtime: str
    """"command" (script run by /bin/sh), "python" (script run by python3), "echo" (answers `input`, no computer)."""
    script: str | None = None
    input: Any = None
    env: dict[str, str] = field(default_factory=dict)
    input_files: list[dict[str, Any]] = field(default_factory=list)
    computer: dict[str, Any] = field(default_factory=dict)
    """{driver?, image?, min_isolation?, cpus, memory_mb, pids, disk_mb, network}"""
    timeout_seconds: float = 3600.0
    cancel_grace_seconds: float = 5.0
    is_exclusive: bool = False
    """Its computer must be gone before its end is reported: another try may start only then."""
