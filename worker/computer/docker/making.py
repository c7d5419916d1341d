"""From a spec to a running container: created, or adopted when an earlier try of the same attempt made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.computer.contract import ComputerError, ComputerLost, ComputerSpec, DriverUnavailable, Network
from worker.computer.docker.engine import Engine, EngineError, container_path
from worker.computer.docker.holders import Holder, Holders
from worker.computer.docker.images import Images
from worker.computer.docker.recipe import (
    COMPUTER,
    Identity,
    computer_body,
    computer_labels,
    container_name,
    network_mode,
    volume_name,
)
from worker.computer.docker.removal import remove_container, remove_volume

_CONFLICT = 409
_NOT_FOUND = 404


class HolderDied(ComputerError):
    """The namespace that a new computer was to join went away before it could."""


@dataclass(frozen=True, slots=True)
class Made:
    """A running container; `release` is to be called once when it is gone."""

    container: str
    keeper_pid: int
    volume: str | None
    release: Callable[[], None]


class Maker:
    def __init__(
        self, engine: Engine, identity: Identity, *, images: Images, holders: Holders, runtime: str | None
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._images = images
        self._holders = holders
        self._runtime = runtime

    def make(self, spec: ComputerSpec) -> Made:
        if spec.network is Network.open:
            if not has_bridge(self._engine):
                raise DriverUnavailable("the job wants an open network, and this Docker daemon has none to give")
            return self._create_or_adopt(spec, None)
        try:
            return self._make_with_holder(spec)
        except HolderDied:
            return self._make_with_holder(spec)

    def _make_with_holder(self, spec: ComputerSpec) -> Made:
        holder = self._holders.borrow()
        try:
            return self._create_or_adopt(spec, holder)
        except BaseException as error:
            if self._holders.take_back(holder):
                raise
            raise HolderDied("the namespace holder of a new computer died") from error

    def adopt(self, spec: ComputerSpec) -> Made:
        """The running container of an earlier process, and with it the namespace that it lives in."""
        try:
            found = self._ours(spec)
        except EngineError as error:
            if error.status_code != _NOT_FOUND:
                raise
            raise ComputerLost("the container is gone", computer=spec.id) from error
        if not found["State"]["Running"]:
            raise ComputerLost(f"the container is {found['State']['Status']}", computer=spec.id)
        kind, _, joined = str(found["HostConfig"]["NetworkMode"]).partition(":")
        release = _nothing
        if kind == "container":
            holder = self._holders.take_over(joined)
            release = lambda: self._holders.give_back(holder)  # noqa: E731
        return Made(str(found["Id"]), int(found["State"]["Pid"]), self._volume(spec), release)

    def _ours(self, spec: ComputerSpec) -> Any:
        found = self._engine.get(container_path(container_name(spec.id), "json"))
        labels = found["Config"]["Labels"] or {}
        if not self._identity.owns(labels) or labels.get(COMPUTER) != spec.id:
            raise ComputerError(f"{container_name(spec.id)} exists and is not ours", computer=spec.id)
        return found

    def _create_or_adopt(self, spec: ComputerSpec, holder: Holder | None) -> Made:
        container = self._create(spec, holder)
        if container is None:
            made = self._adopt(spec)
            if made is not None:
                if holder is not None:
                    self._holders.give_back(holder)
                return made
            container = self._create(spec, holder)
        if container is None:
            raise ComputerError("a container of this name comes back again and again", computer=spec.id)
        return self._start(spec, container, holder)

    def _start(self, spec: ComputerSpec, container: str, holder: Holder | None) -> Made:
        try:
            self._engine.post(container_path(container, "start"))
            state = self._engine.get(container_path(container, "json"))["State"]
        except BaseException:
            self._remove(container, spec)
            raise
        release = _nothing if holder is None else lambda: self._holders.give_back(holder)
        return Made(container, int(state["Pid"]), self._volume(spec), release)

    def _create(self, spec: ComputerSpec, holder: Holder | None) -> str | None:
        """The new container, or None when one of that name exists."""
        image = spec.image or self._images.default
        labels = computer_labels(self._identity, spec)
        volume = self._images.work_volume(spec.id, image, labels)
        network = network_mode(spec, holder.container if holder else None)
        body = computer_body(spec, image=image, labels=labels, network=network, volume=volume, runtime=self._runtime)
        try:
            return self._post(spec, image, body)
        except EngineError as error:
            if error.status_code == _CONFLICT:
                return None
            self._drop(volume)
            raise
        except BaseException:
            self._drop(volume)
            raise

    def _post(self, spec: ComputerSpec, image: str, body: Mapping[str, Any]) -> str:
        name = {"name": container_name(spec.id)}
        try:
            return str(self._engine.post("/containers/create", name, body)["Id"])
        except EngineError as error:
            if not (error.status_code == _NOT_FOUND and "no such image" in error.reason.lower()):
                raise
        self._images.require(image)
        return str(self._engine.post("/containers/create", name, body)["Id"])

    def _adopt(self, spec: ComputerSpec) -> Made | None:
        """The running container of an earlier try; a dead one is removed, its work began nothing that counts."""
        found = self._ours(spec)
        container = str(found["Id"])
        if not found["State"]["Running"]:
            self._remove(container, spec)
            return None
        return Made(container, int(found["State"]["Pid"]), self._volume(spec), _nothing)

    def _remove(self, container: str, spec: ComputerSpec) -> None:
        remove_container(self._engine, container)
        self._drop(self._volume(spec))

    def _drop(self, volume: str | None) -> None:
        if volume is not None:
            remove_volume(self._engine, volume)

    def _volume(self, spec: ComputerSpec) -> str | None:
        return volume_name(spec.id) if spec.image and spec.image != self._images.default else None


def has_bridge(engine: Engine) -> bool:
    """Without its bridge a daemon would start the container all the same, with no network at all."""
    try:
        engine.get("/networks/bridge")
    except EngineError as error:
        if error.status_code == _NOT_FOUND:
            return False
        raise
    return True


def _nothing() -> None:
    """An adopted computer's holder belongs to whoever made it."""
