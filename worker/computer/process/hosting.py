"""Finding and ending processes of this host without ever hitting a reused number."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_START_FIELD = 19
"""Position of `starttime` in /proc/PID/stat, counted after the command's closing bracket."""
_SWEEPS = 20


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for good: the number alone is given away again, number and start time are not."""

    pid: int
    started: int


def process_id(pid: int) -> ProcessId | None:
    """None when there is no such process (any more)."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return ProcessId(pid, int(fields[_START_FIELD]))


def send(target: ProcessId, number: int) -> bool:
    """Signals exactly this process; False when it is gone. The descriptor pins it between look and signal."""
    try:
        pinned = os.pidfd_open(target.pid)
    except OSError:
        return False
    try:
        if process_id(target.pid) != target:
            return False
        signal.pidfd_send_signal(pinned, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pinned)
    return True


def with_variable(name: str, value: str) -> Iterator[ProcessId]:
    """Every process that we may look into and whose environment holds this variable with this value."""
    wanted = f"{name}={value}".encode()
    for pid in _all_pids():
        found = process_id(pid)
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if found is not None and wanted in environment.split(b"\0"):
            yield found


def descendants(root: int) -> list[ProcessId]:
    """All children of `root`, their children and so on, as they are now."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        parent = _parent(pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    found: list[ProcessId] = []
    front = list(children.get(root, ()))
    while front:
        pid = front.pop()
        front += children.get(pid, ())
        identity = process_id(pid)
        if identity is not None:
            found.append(identity)
    return found


def sweep(find: Callable[[], Iterator[ProcessId]]) -> None:
    """Kills what `find` finds, again and again, until it finds nothing: a forking tree takes more than one round."""
    for _ in range(_SWEEPS):
        if not [target for target in find() if send(target, signal.SIGKILL)]:
            return


def signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])
