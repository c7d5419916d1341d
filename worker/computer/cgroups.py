"""Reading what the kernel counted for a group of processes, on control groups version 1 and 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.computer.contract import Usage

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class CounterFiles:
    """Where one group's counters lie; a file that this kernel lacks reads as unknown."""

    cpu: str
    peak_memory: str
    memory_events: str
    processes: str
    process_count: str


def counters_v1(memory: Path, cpuacct: Path, pids: Path) -> CounterFiles:
    return CounterFiles(
        cpu=str(cpuacct / "cpuacct.usage"),
        peak_memory=str(memory / "memory.max_usage_in_bytes"),
        memory_events=str(memory / "memory.oom_control"),
        processes=str(memory / "cgroup.procs"),
        process_count=str(pids / "pids.current"),
    )


def counters_v2(group: Path) -> CounterFiles:
    return CounterFiles(
        cpu=str(group / "cpu.stat"),
        peak_memory=str(group / "memory.peak"),
        memory_events=str(group / "memory.events"),
        processes=str(group / "cgroup.procs"),
        process_count=str(group / "pids.current"),
    )


def is_v2(root: Path = ROOT) -> bool:
    return (root / "cgroup.controllers").exists()


def counters_of_process(pid: int, *, must_contain: str) -> CounterFiles | None:
    """The counters of the group that `pid` of this host is in, if its name contains `must_contain`.

    The check keeps a process of another machine (a remote daemon) or a reused number from being taken for ours.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    groups = parse_membership(lines)
    memory = groups.get("memory", groups.get(""))
    if memory is None or must_contain not in memory:
        return None
    files = _files_of(groups, memory)
    return files if Path(files.processes).exists() else None


def parse_membership(lines: list[str]) -> Mapping[str, str]:
    """Controller → group path from the lines of /proc/PID/cgroup; version 2 stands under the empty name."""
    groups: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path.lstrip("/")
    return groups


def _files_of(groups: Mapping[str, str], memory: str) -> CounterFiles:
    if "memory" in groups:
        cpuacct, pids = (groups.get(name, memory) for name in ("cpuacct", "pids"))
        return counters_v1(ROOT / "memory" / memory, ROOT / "cpuacct" / cpuacct, ROOT / "pids" / pids)
    return counters_v2(ROOT / memory)


def read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def usage_from(cpu: str | None, peak_memory: str | None) -> Usage:
    return Usage(cpu_ms=cpu_ms(cpu), peak_memory_bytes=number(peak_memory))


def cpu_ms(text: str | None) -> int | None:
    """`cpuacct.usage` is nanoseconds alone; `cpu.stat` has a line `usage_usec N`."""
    if not text:
        return None
    nanoseconds = number(text)
    if nanoseconds is not None:
        return nanoseconds // 1_000_000
    microseconds = _field(text, "usage_usec")
    return None if microseconds is None else microseconds // 1_000


def oom_kills(memory_events: str | None) -> int | None:
    """How many processes the kernel killed for memory; the same line in both versions."""
    return None if memory_events is None else _field(memory_events, "oom_kill")


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return number(value)
    return None


def number(text: str | None) -> int | None:
    stripped = (text or "").strip()
    return int(stripped) if stripped.isdigit() else None


@dataclass(frozen=True, slots=True)
class Counters:
    """Live readings of one group."""

    files: CounterFiles

    def usage(self) -> Usage:
        return usage_from(read(self.files.cpu), read(self.files.peak_memory))

    def oom_kills(self) -> int | None:
        return oom_kills(read(self.files.memory_events))

    def processes(self) -> list[int]:
        return [int(line) for line in (read(self.files.processes) or "").split()]
