"""Control groups for processes of our own: real limits for a whole tree, where we may make them (mostly as root)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.computer import cgroups
from worker.computer.contract import ComputerSpec
from worker.computer.process.hosting import process_id, send

_PARENT = "longshore"
_V1 = ("memory", "pids", "cpu", "cpuacct")
_PERIOD = 100_000
_MIB = 1024 * 1024
_KILL_ROUNDS = 100
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Group:
    """One computer's group: one directory on version 2, one per controller on version 1."""

    folders: tuple[Path, ...]
    counters: cgroups.Counters

    @property
    def doors(self) -> Sequence[str]:
        """Files into which a process writes 0 to enter."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def kill(self) -> None:
        """Ends every process in it, again and again until none is left; a fork bomb takes some rounds."""
        for _ in range(_KILL_ROUNDS):
            pids = self.counters.processes()
            if not pids:
                return
            for pid in pids:
                found = process_id(pid)
                if found is not None:
                    send(found, signal.SIGKILL)
            time.sleep(_PAUSE_SECONDS)

    def remove(self) -> None:
        self.kill()
        for folder in self.folders:
            _remove(folder)


def make_group(home: Path, spec: ComputerSpec) -> Group | None:
    """None where this process may not make groups; whoever asks says so in words."""
    try:
        group = _group(home, spec.id)
        for folder in group.folders:
            folder.mkdir(parents=True, exist_ok=True)
        _limit(group.folders, spec)
    except OSError:
        return None
    return group


def find_group(home: Path, computer_id: str) -> Group | None:
    """The group that an earlier process made for this computer."""
    group = _group(home, computer_id)
    return group if any(folder.is_dir() for folder in group.folders) else None


def _group(home: Path, computer_id: str) -> Group:
    # The home keeps two nodes of one machine apart that happen to run the same attempt id.
    name = f"{hashlib.sha256(str(home).encode()).hexdigest()[:12]}-{computer_id}"
    if cgroups.is_v2():
        folder = cgroups.ROOT / _PARENT / name
        return Group((folder,), cgroups.Counters(cgroups.counters_v2(folder)))
    folders = {controller: cgroups.ROOT / controller / _PARENT / name for controller in _V1}
    files = cgroups.counters_v1(folders["memory"], folders["cpuacct"], folders["pids"])
    return Group(_distinct(folders.values()), cgroups.Counters(files))


def _distinct(folders: Iterable[Path]) -> tuple[Path, ...]:
    """`cpu` and `cpuacct` are often one hierarchy under two names."""
    unique = {folder.parent.parent.resolve() / folder.parent.name / folder.name: None for folder in folders}
    return tuple(unique)


def remove_parents() -> None:
    """The directories above all groups, unless another node of this machine still has some in them."""
    roots = [cgroups.ROOT] if cgroups.is_v2() else [cgroups.ROOT / controller for controller in _V1]
    for root in roots:
        with contextlib.suppress(OSError):
            (root / _PARENT).rmdir()


def _limit(folders: Sequence[Path], spec: ComputerSpec) -> None:
    memory = str(spec.memory_mb * _MIB)
    quota = str(round(spec.cpus * _PERIOD))
    if cgroups.is_v2():
        _enable(cgroups.ROOT)
        _enable(cgroups.ROOT / _PARENT)
        folder = folders[0]
        _write(folder / "memory.max", memory)
        _write_if_there(folder / "memory.swap.max", "0")
        _write(folder / "pids.max", str(spec.pids))
        _write(folder / "cpu.max", f"{quota} {_PERIOD}")
        return
    wanted = {
        "memory.limit_in_bytes": memory,
        "pids.max": str(spec.pids),
        "cpu.cfs_period_us": str(_PERIOD),
        "cpu.cfs_quota_us": quota,
    }
    for name, value in wanted.items():
        _write(_holding(folders, name), value)
    for folder in folders:
        _write_if_there(folder / "memory.memsw.limit_in_bytes", memory)


def _holding(folders: Sequence[Path], name: str) -> Path:
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(name)


def _enable(folder: Path) -> None:
    _write(folder / "cgroup.subtree_control", "+memory +pids +cpu")


def _write(path: Path, value: str) -> None:
    # No creation and no truncation: these are the kernel's files.
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def _write_if_there(path: Path, value: str) -> None:
    if path.exists():
        _write(path, value)


def _remove(folder: Path) -> None:
    """A killed process holds its group for a moment longer."""
    for _ in range(_KILL_ROUNDS):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
