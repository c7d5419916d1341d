"""The driver that makes computers out of Docker containers."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from worker.computer.contract import (
    Computer,
    ComputerError,
    ComputerSpec,
    DriverInfo,
    DriverUnavailable,
    ExecEnd,
    Feature,
    Isolation,
    IsolationReport,
    IsolationTooWeak,
    LimitTooHigh,
)
from worker.computer.docker.computer import DockerComputer
from worker.computer.docker.engine import Engine
from worker.computer.docker.frames import FrameDecoder
from worker.computer.docker.holders import Holders
from worker.computer.docker.images import Images
from worker.computer.docker.making import Maker, has_bridge
from worker.computer.docker.recipe import COMPUTER, HOLDER, KIND, MIB, Identity
from worker.computer.docker.removal import remove_container, remove_volume
from worker.computer.names import check_id

_PROBE_SECONDS = 30.0


class DockerDriver:
    """Makes, adopts, lists and reaps the containers of one node."""

    name = "docker"
    adopts = True

    def __init__(
        self,
        *,
        socket_url: str | None,
        image: str,
        owner: str,
        node: str,
        runtime: str | None = None,
        fetch_images: bool = False,
        look_from_host: bool = True,
    ) -> None:
        self._settings: dict[str, Any] = {
            "socket_url": socket_url,
            "image": image,
            "owner": owner,
            "runtime": runtime,
            "fetch_images": fetch_images,
            "look_from_host": look_from_host,
        }
        self._engine = Engine(socket_url)
        self._identity = Identity(owner, node)
        self._runtime = runtime
        self._look_from_host = look_from_host
        self._images = Images(self._engine, image, fetch=fetch_images)
        self._holders = Holders(self._engine, self._identity, image=image, runtime=runtime)
        self._maker = Maker(self._engine, self._identity, images=self._images, holders=self._holders, runtime=runtime)
        self._isolation = isolation_of(runtime)
        self._lock = threading.Lock()
        self._being_made: set[str] = set()
        self._daemon: Mapping[str, Any] | None = None

    # -- the contract

    def probe(self) -> DriverInfo:
        try:
            version = str(self._engine.version()["Version"])
            self._images.require(self._images.default)
            self._try_one()
            features = self._features()
        except ComputerError as error:
            return DriverInfo(self.name, False, error.message)
        reason = f"Docker {version} answers at {self._engine.url} and runs the image {self._images.default}"
        return DriverInfo(self.name, True, reason, version, self._isolation, features)

    def answers(self) -> bool:
        try:
            self._engine.version()
        except ComputerError:
            return False
        return True

    def create(self, spec: ComputerSpec) -> Computer:
        check_id(spec.id)
        self._refuse(spec)
        with self._in_the_making(spec.id):
            made = self._maker.make(spec)
            return DockerComputer(self._engine, spec, self._isolation, made, look_from_host=self._look_from_host)

    def adopt(self, spec: ComputerSpec) -> Computer:
        check_id(spec.id)
        made = self._maker.adopt(spec)
        return DockerComputer(self._engine, spec, self._isolation, made, look_from_host=self._look_from_host)

    def decode(self, stored: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
        frames = FrameDecoder()
        for data in stored:
            yield from frames(data)

    def sweep(self) -> Mapping[str, Any]:
        return {**self._settings, "owner": self._identity.owner, "node": self._identity.node}

    def list_owned(self) -> Sequence[str]:
        return sorted({str(row["Labels"][COMPUTER]) for row in self._containers() if COMPUTER in row["Labels"]})

    def reap(self, keep: Collection[str]) -> Sequence[str]:
        rows = self._containers()
        with self._lock:
            spared = {*keep, *self._being_made}
        holders = self._holders.known | {_joined(row) for row in rows if row["Labels"].get(COMPUTER) in spared}
        gone: set[str] = set()
        for row in rows:
            if row["Labels"].get(KIND) == HOLDER:
                if row["Id"] not in holders:
                    remove_container(self._engine, str(row["Id"]))
            elif row["Labels"].get(COMPUTER) not in spared:
                remove_container(self._engine, str(row["Id"]))
                gone.add(str(row["Labels"].get(COMPUTER)))
        self._reap_volumes(spared)
        return sorted(gone)

    def twin(self, *, node: str | None = None) -> DockerDriver:
        return DockerDriver(node=node or self._identity.node, **self._settings)

    def close(self) -> None:
        self._holders.close()
        self._engine.close()

    # -- probing

    def _try_one(self) -> None:
        """A real computer that runs a real command; it also leaves the first holder ready."""
        computer = self.create(ComputerSpec(id=f"probe-{uuid.uuid4().hex[:12]}", memory_mb=64, pids=32))
        try:
            done = computer.exec(["sh", "-c", "id -u"], timeout_seconds=_PROBE_SECONDS)
        finally:
            computer.destroy()
        if done.end is not ExecEnd.exited or done.stdout != b"1000\n":
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-200:]
            raise DriverUnavailable(f"a container started but could not run a command as its user: {said or done.end}")

    def _features(self) -> frozenset[str]:
        info = self._daemon_info()
        found = set(_ALWAYS)
        found |= {feature for key, feature in _BY_INFO.items() if info.get(key)}
        if any("seccomp" in str(option) for option in info.get("SecurityOptions") or ()):
            found.add(Feature.seccomp)
        if has_bridge(self._engine):
            found.add(Feature.network_open)
        return frozenset(found)

    def _daemon_info(self) -> Mapping[str, Any]:
        if self._daemon is None:
            self._daemon = dict(self._engine.get("/info"))
        return self._daemon

    # -- refusing

    def _refuse(self, spec: ComputerSpec) -> None:
        offered = self._isolation.kind
        if spec.min_isolation > offered:
            message = f"the job demands {spec.min_isolation.name}, this node offers {offered.name}"
            raise IsolationTooWeak(message, wanted=spec.min_isolation.name, offered=offered.name)
        info = self._daemon_info()
        if spec.cpus > info["NCPU"]:
            raise LimitTooHigh(f"the job asks for {spec.cpus} CPUs, this node has {info['NCPU']}", limit="cpus")
        have = int(info["MemTotal"]) // MIB
        if spec.memory_mb > have:
            raise LimitTooHigh(f"the job asks for {spec.memory_mb} MiB, this node has {have}", limit="memory_mb")

    # -- what is ours

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

    def _containers(self) -> Sequence[Mapping[str, Any]]:
        rows = self._engine.get("/containers/json", {"all": 1, "filters": self._our_filter()})
        return [row for row in rows if self._identity.owns(row["Labels"])]

    def _reap_volumes(self, spared: set[str]) -> None:
        answer = self._engine.get("/volumes", {"filters": self._our_filter()})
        for volume in answer["Volumes"] or ():
            labels = volume["Labels"] or {}
            if self._identity.owns(labels) and labels.get(COMPUTER) not in spared:
                remove_volume(self._engine, str(volume["Name"]))

    def _our_filter(self) -> str:
        return json.dumps({"label": self._identity.filters()})


def _joined(row: Mapping[str, Any]) -> str:
    """The container whose network this one lives in."""
    return str(row["HostConfig"]["NetworkMode"]).removeprefix("container:")


_ALWAYS = frozenset(
    {
        Feature.absolute_work,
        Feature.background,
        Feature.hidden_host,
        Feature.kills_everything,
        Feature.network_none,
        Feature.no_privileges,
        Feature.private_processes,
        Feature.read_only_root,
        Feature.unprivileged_user,
        Feature.usage,
        Feature.disk_watch,
        Feature.oom_told,
    }
)
_BY_INFO = {"MemoryLimit": Feature.memory_limit, "PidsLimit": Feature.pids_limit, "CpuCfsQuota": Feature.cpu_limit}


def isolation_of(runtime: str | None) -> IsolationReport:
    """What the runtime really is; an unknown one is trusted for no more than a container."""
    kind = Isolation.container
    notes = ["the disk limit is a soft quota: looked at while a command runs and when it ended"]
    if runtime is not None and runtime.startswith("runsc"):
        kind = Isolation.gvisor
    elif runtime is not None and runtime.startswith("kata"):
        kind = Isolation.vm
    else:
        notes.append("the kernel is shared with the host")
    return IsolationReport(
        kind=kind,
        filesystem="an image of its own, read-only, with /work and /tmp to write in",
        network="none unless the job's policy opens it",
        pids="processes of its own, counted and limited",
        memory="limited by a control group, swap included",
        user="uid 1000 without capabilities, beside a keeper that it cannot signal",
        notes=tuple(notes),
    )
