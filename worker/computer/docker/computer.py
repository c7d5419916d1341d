"""One container as a computer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.computer.collecting import Harvest
from worker.computer.contract import (
    ARTIFACTS,
    RESULT,
    WORK,
    Adopted,
    Collected,
    CollectLimits,
    ComputerError,
    ComputerLost,
    ComputerSpec,
    InputFile,
    IsolationReport,
    Lifeline,
    Usage,
)
from worker.computer.docker.archive import harvest_artifacts, harvest_result, tar_of
from worker.computer.docker.engine import Engine, EngineError, container_path
from worker.computer.docker.entry import ContainerEntry
from worker.computer.docker.making import Made
from worker.computer.docker.removal import remove_container, remove_volume
from worker.computer.docker.view import InsideView, View, host_view
from worker.computer.running import CommandComputer
from worker.computer.supervise import Entry, Started

_NOT_FOUND = 404
_CONFLICT = 409
_KEEPERS = 2
"""Processes of a container at rest: the init and the keeper."""
_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.01


class DockerComputer(CommandComputer):
    """A running container. All it stored is in the container and its /work volume, and goes with them."""

    def __init__(
        self, engine: Engine, spec: ComputerSpec, isolation: IsolationReport, made: Made, *, look_from_host: bool
    ) -> None:
        super().__init__(spec, isolation, WORK)
        self._engine = engine
        self._container = made.container
        self._volume = made.volume
        self._release = made.release
        self._lock = threading.Lock()
        self._gone = False
        self._run = ContainerEntry(engine, made.container, on_lost=self._lost, alone=spec.kind == "task")
        self._view = self._best_view(made.keeper_pid if look_from_host else 0)
        self._known_oom_kills = 0

    def _best_view(self, keeper_pid: int) -> View:
        return host_view(self._container, keeper_pid) or InsideView(self._run)

    # -- files

    def put_files(self, files: Sequence[InputFile]) -> None:
        if not files:
            return
        try:
            self._engine.put_stream(self._path("archive"), {"path": WORK}, tar_of(files))
        except EngineError as error:
            raise self._told(error) from error

    def collect(self, destination: Path, limits: CollectLimits) -> Collected:
        harvest = Harvest(destination, limits)
        if self._view.has(RESULT):
            self._fetch(RESULT, lambda stream: harvest_result(stream, harvest))
        if self._view.has(ARTIFACTS):
            skip = limits.max_total_bytes
            self._fetch(ARTIFACTS, lambda stream: harvest_artifacts(stream, harvest, skip_bytes=skip))
        return harvest.collected()

    def _fetch(self, name: str, use: Callable[[Any], None]) -> None:
        try:
            with self._engine.get_stream(self._path("archive"), {"path": f"{WORK}/{name}"}) as stream:
                use(stream)
        except EngineError as error:
            if error.status_code != _NOT_FOUND:
                raise self._told(error) from error
            self._check_there()

    # -- what the kernel counted

    def usage(self) -> Usage:
        return self._view.usage()

    def _disk_used(self) -> int | None:
        return self._view.disk_used()

    def _oom_kills_before(self) -> int | None:
        return self._view.oom_kills() if self._view.cheap else self._known_oom_kills

    def _oom_kills_after(self, *, suspicious: bool) -> int | None:
        if not (self._view.cheap or suspicious):
            return None
        kills = self._view.oom_kills()
        self._known_oom_kills = max(self._known_oom_kills, kills or 0)
        return kills

    # -- processes

    def _entry(self) -> Entry:
        return self._run

    def _start(
        self, argv: Sequence[str], environment: Mapping[str, str], *, with_stdin: bool, lifeline: Lifeline | None
    ) -> Started:
        started = self._run.start(argv, environment, with_stdin=with_stdin)
        if lifeline is not None:
            started.tie(lifeline)
        return started

    def _started_before(self, adopted: Adopted) -> Started:
        sock = socket.socket(fileno=adopted.stream)
        return self._run.again(adopted.handle["exec"], sock, adopted.handle["marker"])

    def _base_environment(self) -> dict[str, str]:
        return {"HOME": WORK, "LANG": "C.UTF-8"}

    def kill_all(self) -> None:
        exec_id = self._run.kill_everything()
        self._wait_for(lambda: self._run.exit_code(exec_id) is not None)
        self._wait_for(self._is_at_rest)

    def _after_stop(self) -> None:
        # Killed is not yet reaped: a full process table would turn away the next command.
        if self._run.has_nothing_to_do:
            with suppress(ComputerLost):
                self._wait_for(self._is_at_rest)

    def _is_at_rest(self) -> bool:
        """Unknown counts as no: a question that could not even be asked is the sign of a full process table."""
        processes = self._view.processes()
        return processes is not None and processes <= _KEEPERS

    def _wait_for(self, there: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not there():
            if time.monotonic() > give_up:
                raise ComputerError("the computer's processes could not be ended", computer=self.spec.id)
            time.sleep(_PAUSE_SECONDS)

    # -- the end

    def destroy(self) -> None:
        with self._lock:
            if self._gone:
                return
            remove_container(self._engine, self._container)
            if self._volume is not None:
                remove_volume(self._engine, self._volume)
            self._gone = True
        self._release()

    # -- inside

    def _path(self, *rest: str) -> str:
        return container_path(self._container, *rest)

    def _told(self, error: EngineError) -> Exception:
        if error.status_code in (_NOT_FOUND, _CONFLICT):
            return self._lost()
        return error

    def _check_there(self) -> None:
        try:
            self._engine.get(self._path("json"))
        except EngineError as error:
            raise self._told(error) from error

    def _lost(self) -> ComputerLost:
        """What can still be learnt about a container that is not there as it should be."""
        try:
            state = self._engine.get(self._path("json"))["State"]
        except EngineError:
            return ComputerLost("the container is gone", computer=self.spec.id)
        return ComputerLost(
            f"the container is {state['Status']}",
            computer=self.spec.id,
            exit_code=state.get("ExitCode"),
            oom=bool(state.get("OOMKilled")),
            reason=state.get("Error") or None,
        )
