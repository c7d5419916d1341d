"""What every computer can do, whichever driver makes it.

A computer is one isolated machine for one job. A driver makes computers, names the isolation they really have,
and removes what an earlier process of this node left behind. `self_check` tries each promise of this file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from shared.errors import LongshoreError

WORK = "/work"
INPUT = "input"
ARTIFACTS = "artifacts"
RESULT = "result.json"


class Isolation(IntEnum):
    """How strongly a computer is kept apart from its host, weakest first; a job may demand a minimum."""

    none = 0
    bwrap = 1
    container = 2
    gvisor = 3
    vm = 4


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """What a driver truly offers on this machine, part by part, with notes in words."""

    kind: Isolation
    filesystem: str
    network: str
    pids: str
    memory: str
    user: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """Answer of a probe: usable or not, and why."""

    name: str
    available: bool
    reason: str
    version: str = ""
    isolation: IsolationReport | None = None
    features: frozenset[str] = frozenset()


class Feature(StrEnum):
    """What a driver promises here beyond running commands; `self_check` tries exactly what is declared."""

    absolute_work = "absolute_work"
    background = "background"
    cpu_limit = "cpu_limit"
    disk_watch = "disk_watch"
    hidden_host = "hidden_host"
    kills_everything = "kills_everything"
    memory_limit = "memory_limit"
    network_none = "network_none"
    network_open = "network_open"
    no_privileges = "no_privileges"
    oom_told = "oom_told"
    pids_limit = "pids_limit"
    private_processes = "private_processes"
    read_only_root = "read_only_root"
    seccomp = "seccomp"
    unprivileged_user = "unprivileged_user"
    usage = "usage"


class Network(StrEnum):
    none = "none"
    open = "open"


@dataclass(frozen=True, slots=True)
class ComputerSpec:
    """What a job asks for. `id` is the attempt id and makes creation idempotent; sizes are MiB.

    `expires_at` (epoch seconds) is written on the computer for whoever finds it later; it ends nothing by itself.
    """

    id: str
    image: str | None = None
    min_isolation: Isolation = Isolation.none
    cpus: float = 1.0
    memory_mb: int = 512
    pids: int = 256
    disk_mb: int = 1024
    network: Network = Network.none
    kind: str = "task"
    expires_at: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class ExecEnd(StrEnum):
    """Why a command ended."""

    exited = "exited"
    timeout = "timeout"
    cancelled = "cancelled"
    output_limit = "output_limit"
    disk_limit = "disk_limit"
    lost = "lost"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended. `oom` tells a memory kill apart from any other exit 137."""

    end: ExecEnd
    exit_code: int | None
    oom: bool
    duration_ms: int
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What the computer used so far; None where the driver cannot tell."""

    cpu_ms: int | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CollectLimits:
    """Caps on what is taken out of a computer."""

    max_files: int = 100
    max_file_bytes: int = 100 * 1024 * 1024
    max_total_bytes: int = 500 * 1024 * 1024
    max_result_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Artifact:
    """One regular file from /work/artifacts, now at `path` on the host. `name` is relative, with `/`."""

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Collected:
    """What came out: /work/result.json if there was one, the artifacts, and what was refused and why."""

    result: bytes | None
    artifacts: tuple[Artifact, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to put at `path` (relative to the work directory). `size` is needed for a source that cannot seek."""

    path: str
    source: BinaryIO | bytes
    size: int | None = None
    mode: int = 0o644


OnOutput = Callable[[str, bytes], None]
"""Called with ("stdout" | "stderr", chunk) while a command runs; must not block for long."""


class Lifeline(Protocol):
    """What lets a command outlive the process that watches it: its stream is stored, and held by somebody else too."""

    def hold(self, stream: int, handle: Mapping[str, str]) -> None:
        """The command needs nothing from us any more; `handle` is what its driver wants to find it again."""

    def pull(self, stream: int) -> bytes:
        """Read the stream and store what was read, so that neither can happen without the other."""

    def replay(self) -> Iterator[bytes]:
        """Everything that was stored so far."""

    def stop(self) -> None:
        """Nobody will ask for what comes from now on."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A command that an earlier process of this node started: its stream, its handle, when it began (monotonic)."""

    stream: int
    handle: Mapping[str, str]
    began: float
    lifeline: Lifeline


class Computer(Protocol):
    """One living computer. Every method may raise ComputerLost."""

    spec: ComputerSpec
    isolation: IsolationReport
    work_dir: str
    """Absolute path of the working directory inside; also in the environment as WORK."""

    def put(self, path: str, source: BinaryIO | bytes, *, size: int | None = None, mode: int = 0o644) -> None:
        """Write one file at `path` (relative to the work directory), owned by the job's user; makes parents."""

    def put_files(self, files: Sequence[InputFile]) -> None:
        """Write many files at the price of one; the same rules as `put`. Nothing to write costs nothing."""

    def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float | None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        cancel: threading.Event | None = None,
        grace_seconds: float = 0.0,
        max_output_bytes: int = 16 * 1024 * 1024,
        keep_output_bytes: int = 256 * 1024,
        lifeline: Lifeline | None = None,
    ) -> ExecResult:
        """Run `argv` as the job's user in the work directory until it ends, times out, is cancelled or floods.

        On timeout, cancel or flood everything that the command started is dead when this returns; cancel sends
        SIGTERM first and SIGKILL after `grace_seconds`. The result keeps the last `keep_output_bytes` of each stream.
        With a `lifeline`, and a driver that `adopts`, another process can go on where this one is killed.
        """

    def resume(
        self,
        adopted: Adopted,
        *,
        timeout_seconds: float | None,
        on_output: OnOutput | None = None,
        cancel: threading.Event | None = None,
        grace_seconds: float = 0.0,
        max_output_bytes: int = 16 * 1024 * 1024,
        keep_output_bytes: int = 256 * 1024,
    ) -> ExecResult:
        """Go on watching a command; the same in all else as `exec`, its output from the very beginning."""

    def collect(self, destination: Path, limits: CollectLimits) -> Collected:
        """Bring out result and artifacts; never follows links, never writes outside `destination`."""

    def usage(self) -> Usage: ...

    def kill_all(self) -> None:
        """End every process of the job; the computer itself lives on."""

    def destroy(self) -> None:
        """Remove the computer and all that it stored. Doing it twice is fine. When it returns, it is gone."""


class ComputerDriver(Protocol):
    """Makes computers of one kind."""

    name: str
    adopts: bool
    """Whether computers and commands outlive the process that made them, and can be taken over by the next."""

    def probe(self) -> DriverInfo:
        """Whether this driver really works here, by trying it."""

    def answers(self) -> bool:
        """Whether the driver is there right now; cheap enough for every heartbeat."""

    def create(self, spec: ComputerSpec) -> Computer:
        """A started computer, ready for put and exec. Refuses (IsolationTooWeak) rather than downgrades."""

    def adopt(self, spec: ComputerSpec) -> Computer:
        """The running computer that an earlier process of this node made. Raises ComputerLost when it is not there."""

    def sweep(self) -> Mapping[str, Any]:
        """With this another process makes a driver for the same computers; for drivers that adopt."""

    def decode(self, stored: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
        """What a lifeline has stored, as (stream, chunk) pairs."""

    def list_owned(self) -> Sequence[str]:
        """Ids of the computers of this node that exist now, whoever started them."""

    def reap(self, keep: Collection[str]) -> Sequence[str]:
        """Remove this node's computers except `keep`, and nothing that belongs to anyone else; answers what went."""

    def twin(self, *, node: str | None = None) -> ComputerDriver:
        """The same driver as another process would have it, on this node or as another node."""

    def close(self) -> None:
        """Remove helpers (holders, temporary folders) that the driver keeps between computers."""


class ComputerError(LongshoreError):
    """Something about a computer went wrong that is not the job's own fault."""

    code, status, retryable = "COMPUTER_ERROR", 500, True


class ComputerLost(ComputerError):
    """The computer is gone under our hands (killed, daemon restarted, disk pulled)."""

    code = "COMPUTER_LOST"


class ImageMissing(ComputerError):
    """The image is not on this node and cannot be fetched."""

    code = "IMAGE_MISSING"


class DriverUnavailable(ComputerError):
    """The driver does not work here now (daemon down, sandbox refused)."""

    code = "DRIVER_UNAVAILABLE"


class IsolationTooWeak(ComputerError):
    """The job demands more isolation than this driver has."""

    code, retryable = "ISOLATION_TOO_WEAK", False


class LimitTooHigh(ComputerError):
    """The job asks for more than this node allows."""

    code, retryable = "LIMIT_TOO_HIGH", False
