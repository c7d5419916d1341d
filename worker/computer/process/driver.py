"""The driver that makes computers out of processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from worker.computer.contract import (
    Computer,
    ComputerError,
    ComputerLost,
    ComputerSpec,
    DriverInfo,
    DriverUnavailable,
    ExecEnd,
    Isolation,
    IsolationTooWeak,
    LimitTooHigh,
)
from worker.computer.names import check_id
from worker.computer.process.computer import Place, ProcessComputer, clear_away, furnish
from worker.computer.process.groups import make_group, remove_parents
from worker.computer.process.reporting import features_of, isolation_of
from worker.computer.process.sandbox import JOB_UID, Tools, Way, bwrap_version, machine_layout
from worker.computer.process.seccomp import filter_program

_MIB = 1024 * 1024
_PROBE_SECONDS = 20.0


class ProcessDriver:
    """Makes, lists and reaps the process computers under one home directory."""

    name = "process"
    adopts = False

    def __init__(
        self,
        *,
        home: Path,
        owner: str,
        node: str,
        allow_unsandboxed: bool = False,
        use_bwrap: bool = True,
        use_groups: bool = True,
    ) -> None:
        self._settings: dict[str, Any] = {
            "home": home,
            "owner": owner,
            "allow_unsandboxed": allow_unsandboxed,
            "use_bwrap": use_bwrap,
            "use_groups": use_groups,
        }
        self._home = home.resolve() / "computers"
        self._card = {"owner": owner, "node": node}
        self._allow_unsandboxed = allow_unsandboxed
        self._use_bwrap = use_bwrap
        self._use_groups = use_groups
        self._lock = threading.Lock()
        self._being_made: set[str] = set()
        self._tools: Tools | None = None
        self._why_no_sandbox = ""

    # -- the contract

    def probe(self) -> DriverInfo:
        try:
            tools, grouped = self._settle_tools(), self._can_group()
        except ComputerError as error:
            return DriverInfo(self.name, False, error.message)
        reason = "bubblewrap works here" if tools.way is not Way.bare else f"no sandbox: {self._why_no_sandbox}"
        version = ".".join(str(part) for part in tools.bwrap_version)
        isolation = isolation_of(tools.way, grouped=grouped)
        return DriverInfo(
            self.name,
            True,
            reason,
            version,
            isolation,
            features_of(tools.way, grouped=grouped, filtered=filter_program() is not None),
        )

    def answers(self) -> bool:
        return self._tools is not None or self.probe().available

    def create(self, spec: ComputerSpec) -> Computer:
        check_id(spec.id)
        tools = self._settle_tools()
        _refuse(spec, tools.way)
        with self._in_the_making(spec.id):
            return self._make(spec, tools)

    def adopt(self, spec: ComputerSpec) -> Computer:
        raise ComputerLost("a sandbox ends with the process that made it", computer=spec.id)

    def sweep(self) -> Mapping[str, Any]:
        raise ComputerLost("sandboxes end with the process that made them")

    def decode(self, stored: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
        raise ComputerLost("a sandbox stores nothing for another process")

    def list_owned(self) -> Sequence[str]:
        if not self._home.is_dir():
            return []
        return sorted(folder.name for folder in self._home.iterdir() if self._is_ours(folder))

    def reap(self, keep: Collection[str]) -> Sequence[str]:
        with self._lock:
            spared = {*keep, *self._being_made}
        gone = [computer for computer in self.list_owned() if computer not in spared]
        for computer in gone:
            clear_away(Place(self._home / computer))
        return gone

    def twin(self, *, node: str | None = None) -> ProcessDriver:
        return ProcessDriver(node=node or self._card["node"], **self._settings)

    def close(self) -> None:
        """Only the empty parent of the control groups is kept between computers."""
        remove_parents()

    # -- making

    def _make(self, spec: ComputerSpec, tools: Tools) -> Computer:
        place = Place(self._home / spec.id)
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.folder.exists() and not self._is_ours(place.folder):
            raise ComputerError(f"{spec.id} exists and is not ours", computer=spec.id)
        furnish(place, owner=JOB_UID if tools.way is Way.bwrap_as_root else None)
        place.card.write_text(json.dumps({**self._card, "id": spec.id, "kind": spec.kind}))
        group = make_group(self._home, spec) if self._use_groups else None
        return ProcessComputer(
            tools, spec, isolation_of(tools.way, grouped=group is not None), place=place, group=group
        )

    def _is_ours(self, folder: Path) -> bool:
        try:
            card = json.loads((folder / "computer.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(card.get("owner") == self._card["owner"] and card.get("node") == self._card["node"])

    @contextmanager
    def _in_the_making(self, computer_id: str) -> Iterator[None]:
        """A reaper that runs meanwhile must not take it for an orphan."""
        with self._lock:
            self._being_made.add(computer_id)
        try:
            yield
        finally:
            with self._lock:
                self._being_made.discard(computer_id)

    # -- probing

    def _settle_tools(self) -> Tools:
        """Found out once, by running a sandbox: a bwrap on the PATH says nothing about whether the kernel lets it."""
        if self._tools is None:
            self._tools = self._find_tools()
        return self._tools

    def _find_tools(self) -> Tools:
        self._why_no_sandbox = "bubblewrap is not to be used"
        for tools in self._candidates() if self._use_bwrap else ():
            fault = self._fault_of(tools)
            if fault is None:
                return tools
            self._why_no_sandbox = fault
        if not self._allow_unsandboxed:
            raise DriverUnavailable(
                f"the process driver has no sandbox ({self._why_no_sandbox}) and may not run without one"
            )
        return Tools(Way.bare)

    def _candidates(self) -> Iterator[Tools]:
        if shutil.which("bwrap") is None:
            self._why_no_sandbox = "bubblewrap (bwrap) is not installed"
            return
        said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
        # Root must first become somebody else: a sandbox of root's own would still be root to the kernel's files.
        missing = [name for name in ("setpriv", "unshare") if shutil.which(name) is None] if os.geteuid() == 0 else []
        if missing:
            self._why_no_sandbox = f"root needs {' and '.join(missing)} (util-linux) to give up its rights"
            return
        links, folders = machine_layout()
        way = Way.bwrap_as_root if os.geteuid() == 0 else Way.bwrap
        yield Tools(way, bwrap_version(said), links, folders)

    def _fault_of(self, tools: Tools) -> str | None:
        spec = ComputerSpec(id=f"probe-{uuid.uuid4().hex[:12]}", memory_mb=64, pids=32)
        with self._in_the_making(spec.id):
            computer = self._make(spec, tools)
            try:
                done = computer.exec(["sh", "-c", "id -u && touch x"], timeout_seconds=_PROBE_SECONDS)
            except ComputerError as error:
                return error.message
            finally:
                computer.destroy()
        if done.end is ExecEnd.exited and done.exit_code == 0:
            return None
        return (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-200:] or f"it ended with {done.end}"

    def _can_group(self) -> bool:
        if not self._use_groups:
            return False
        group = make_group(self._home, ComputerSpec(id=f"probe-{uuid.uuid4().hex[:12]}", memory_mb=64, pids=32))
        if group is not None:
            group.remove()
        return group is not None


def _refuse(spec: ComputerSpec, way: Way) -> None:
    offered = Isolation.none if way is Way.bare else Isolation.bwrap
    if spec.min_isolation > offered:
        message = f"the job demands {spec.min_isolation.name}, this node offers {offered.name}"
        raise IsolationTooWeak(message, wanted=spec.min_isolation.name, offered=offered.name)
    cores = psutil.cpu_count() or 1
    if spec.cpus > cores:
        raise LimitTooHigh(f"the job asks for {spec.cpus} CPUs, this node has {cores}", limit="cpus")
    have = psutil.virtual_memory().total // _MIB
    if spec.memory_mb > have:
        raise LimitTooHigh(f"the job asks for {spec.memory_mb} MiB, this node has {have}", limit="memory_mb")
