"""Which driver a node uses, and the sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from shared.errors import Invalid
from worker.computer.contract import ComputerDriver, DriverInfo, DriverUnavailable
from worker.computer.docker.driver import DockerDriver
from worker.computer.process.driver import ProcessDriver

DriverName = Literal["auto", "docker", "process"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The driver to use, what its probe said, and one sentence for people."""

    driver: ComputerDriver
    info: DriverInfo
    reason: str


def choose_driver(
    name: str,
    *,
    home: Path,
    owner: str,
    node: str,
    image: str,
    docker_url: str | None = None,
    runtime: str | None = None,
    allow_unsandboxed: bool = False,
    fetch_images: bool = False,
) -> Choice:
    """`auto` is Docker when a daemon answers and runs the image, else processes; raises when nothing works."""
    docker = DockerDriver(
        socket_url=docker_url, image=image, owner=owner, node=node, runtime=runtime, fetch_images=fetch_images
    )
    process = ProcessDriver(home=home, owner=owner, node=node, allow_unsandboxed=allow_unsandboxed)
    if name == "docker":
        return _only(docker, "asked for")
    if name == "process":
        return _only(process, "asked for")
    if name != "auto":
        raise Invalid(
            f"there is no driver {name!r}", field="driver", reason=f"one of {', '.join(get_args(DriverName))}"
        )
    return _best(docker, process)


def _best(docker: ComputerDriver, process: ComputerDriver) -> Choice:
    info = docker.probe()
    if info.available:
        return Choice(docker, info, f"docker: {info.reason}")
    docker.close()
    return _only(process, f"Docker cannot be used ({info.reason})")


def _only(driver: ComputerDriver, because: str) -> Choice:
    info = driver.probe()
    if not info.available:
        driver.close()
        raise DriverUnavailable(f"no computers can be made here: {info.reason}; {driver.name}, {because}")
    return Choice(driver, info, f"{driver.name}: {because}; {info.reason}")
