"""One directory and the process trees that work in it, as a computer."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.computer.collecting import Harvest
from worker.computer.contract import (
    WORK,
    Collected,
    CollectLimits,
    ComputerLost,
    ComputerSpec,
    InputFile,
    IsolationReport,
    Usage,
)
from worker.computer.disk import used_bytes
from worker.computer.process import hosting, sandbox, tree
from worker.computer.process.entry import COMPUTER_VARIABLE, ProcessEntry
from worker.computer.process.groups import Group, find_group
from worker.computer.process.hosting import ProcessId
from worker.computer.process.sandbox import JOB_UID, Tools, Way
from worker.computer.running import CommandComputer
from worker.computer.supervise import Entry


@dataclass(frozen=True, slots=True)
class Place:
    """Where a computer lies on the host."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def records(self) -> Path:
        return self.folder / "running"

    @property
    def card(self) -> Path:
        return self.folder / "computer.json"

    def recorded(self) -> list[ProcessId]:
        """Processes that were under way when the last record was written."""
        found: list[ProcessId] = []
        for record in self.records.glob("*") if self.records.is_dir() else ():
            try:
                rows = json.loads(record.read_text())
            except (OSError, ValueError):
                # Written halfway when the worker died; its process is found by its environment.
                continue
            found += [ProcessId(int(pid), int(started)) for pid, started in rows]
        return found


def furnish(place: Place, *, owner: int | None) -> None:
    """Makes the directories; the work directory belongs to the user that the job runs as."""
    place.folder.mkdir(mode=0o700, exist_ok=True)
    for folder in (place.records, place.tmp, place.work):
        folder.mkdir(mode=0o755, exist_ok=True)
        if owner is not None and folder is not place.records:
            shutil.chown(folder, owner, owner)


def clear_away(place: Place) -> None:
    """Ends what a computer of an earlier process still runs, and removes all of it."""
    for process in place.recorded():
        hosting.send(process, 9)
    computer = place.folder.name
    hosting.sweep(lambda: hosting.with_variable(COMPUTER_VARIABLE, computer))
    group = find_group(place.folder.parent, computer)
    if group is not None:
        group.remove()
    tree.remove(place.folder)


class ProcessComputer(CommandComputer):
    def __init__(
        self, tools: Tools, spec: ComputerSpec, isolation: IsolationReport, *, place: Place, group: Group | None
    ) -> None:
        bare = tools.way is Way.bare
        super().__init__(spec, isolation, str(place.work) if bare else WORK)
        self._bare = bare
        self._place = place
        self._owner = JOB_UID if tools.way is Way.bwrap_as_root else None
        self._group = group
        self._lock = threading.Lock()
        self._gone = False
        self._run = ProcessEntry(tools, spec, work=place.work, records=place.records, group=group)

    # -- files

    def put_files(self, files: Sequence[InputFile]) -> None:
        self._check_there()
        tree.put_files(self._place.work, files, owner=self._owner)

    def collect(self, destination: Path, limits: CollectLimits) -> Collected:
        self._check_there()
        taken = Harvest(destination, limits)
        tree.harvest(self._place.work, taken)
        return taken.collected()

    # -- what was used

    def usage(self) -> Usage:
        if self._group is not None:
            return self._group.counters.usage()
        # Bubblewrap does not wait for the sandbox's processes, so what they used is counted nowhere.
        return self._run.spent.usage() if self._bare else Usage()

    def _disk_used(self) -> int | None:
        return used_bytes(str(self._place.work))

    def _oom_kills_before(self) -> int | None:
        return self._group.counters.oom_kills() if self._group is not None else None

    def _oom_kills_after(self, *, suspicious: bool) -> int | None:
        return self._oom_kills_before()

    # -- processes

    def _after_stop(self) -> None:
        """A sandbox's init ends only after all of its processes, and the loop waits for that."""

    def _entry(self) -> Entry:
        self._check_there()
        return self._run

    def _base_environment(self) -> dict[str, str]:
        base = {"PATH": sandbox.PATH, "HOME": self.work_dir, "LANG": "C.UTF-8"}
        if self._bare:
            base |= {"TMPDIR": str(self._place.tmp), COMPUTER_VARIABLE: self.spec.id}
        return base

    def kill_all(self) -> None:
        self._check_there()
        self._run.end_all()

    def destroy(self) -> None:
        with self._lock:
            if self._gone:
                return
            self._run.end_all(close=True)
            clear_away(self._place)
            self._gone = True

    def _check_there(self) -> None:
        if self._gone or not self._place.work.is_dir():
            raise ComputerLost("the computer's directory is gone", computer=self.spec.id)
