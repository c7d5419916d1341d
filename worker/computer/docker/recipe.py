"""What a container of ours looks like: pure functions from a spec to the bodies that the Engine API wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.computer.contract import WORK, ComputerSpec, Network

MIB = 1024 * 1024

OWNER = "longshore.owner"
NODE = "longshore.node"
COMPUTER = "longshore.computer"
ATTEMPT = "longshore.attempt"
KIND = "longshore.kind"
EXPIRES = "longshore.expires"
HOLDER = "holder"

JOB_USER = "1000:1000"
KEEPER_USER = "0:0"
HOLDER_USER = "65534:65534"
TMP = "/tmp"  # noqa: S108 - inside the container, a file system of its own
_KEEPER = ["sleep", "infinity"]
_TMP_SHARE = 4
_TMP_MAX_MIB = 256
_OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose containers these are; only what carries both labels is ever removed."""

    owner: str
    node: str

    def labels(self) -> dict[str, str]:
        return {OWNER: self.owner, NODE: self.node}

    def filters(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.labels().items()]

    def owns(self, labels: Mapping[str, str] | None) -> bool:
        have = labels or {}
        return all(have.get(name) == value for name, value in self.labels().items())


def container_name(computer_id: str) -> str:
    return f"longshore-{computer_id}"


def volume_name(computer_id: str) -> str:
    return f"longshore-{computer_id}-work"


def computer_labels(identity: Identity, spec: ComputerSpec) -> dict[str, str]:
    """The job's own labels first, so that none of them can pose as ours."""
    ours = identity.labels() | {COMPUTER: spec.id, ATTEMPT: spec.id, KIND: spec.kind}
    if spec.expires_at is not None:
        ours[EXPIRES] = str(spec.expires_at)
    return {**spec.labels, **ours}


def network_mode(spec: ComputerSpec, holder: str | None) -> str:
    if spec.network is Network.open:
        return "bridge"
    return f"container:{holder}" if holder else "none"


def computer_body(
    spec: ComputerSpec, *, image: str, labels: Mapping[str, str], network: str, volume: str | None, runtime: str | None
) -> dict[str, Any]:
    """A keeper that does nothing, as root without any capability; the work is exec'ed beside it as another user."""
    return {
        "Image": image,
        "User": KEEPER_USER,
        "Entrypoint": _KEEPER,
        "Cmd": [],
        "WorkingDir": WORK,
        "Labels": dict(labels),
        "NetworkDisabled": False,
        "HostConfig": _hardened() | _limits(spec) | {
            "NetworkMode": network,
            "Tmpfs": {TMP: f"rw,nosuid,nodev,exec,mode=1777,size={_tmp_mib(spec)}m"},
            "Mounts": [_work_mount(volume, labels)],
            **({"Runtime": runtime} if runtime else {}),
        },
    }  # fmt: skip


def holder_body(identity: Identity, *, image: str, runtime: str | None) -> dict[str, Any]:
    """A container that only owns a network namespace without any interface but loopback."""
    return {
        "Image": image,
        "User": HOLDER_USER,
        "Entrypoint": _KEEPER,
        "Cmd": [],
        "Hostname": "computer",
        "Labels": identity.labels() | {KIND: HOLDER},
        "HostConfig": _hardened() | {
            "NetworkMode": "none",
            "Memory": 16 * MIB,
            "MemorySwap": 16 * MIB,
            "PidsLimit": 8,
            **({"Runtime": runtime} if runtime else {}),
        },
    }  # fmt: skip


def exec_body(argv: list[str], env: Mapping[str, str], *, user: str, with_stdin: bool) -> dict[str, Any]:
    return {
        "Cmd": argv,
        "User": user,
        "WorkingDir": WORK,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "AttachStdin": with_stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
    }


def _hardened() -> dict[str, Any]:
    return {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": True,
        "Init": True,
        "IpcMode": "private",
        "Privileged": False,
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
    }


def _limits(spec: ComputerSpec) -> dict[str, Any]:
    memory = spec.memory_mb * MIB
    # A single file may grow a little past the quota, so that the look at the end sees it was passed.
    largest_file = (spec.disk_mb + max(16, spec.disk_mb // 8)) * MIB
    return {
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": round(spec.cpus * 1e9),
        "PidsLimit": spec.pids,
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": _OPEN_FILES, "Hard": _OPEN_FILES},
            {"Name": "fsize", "Soft": largest_file, "Hard": largest_file},
        ],
    }


def _tmp_mib(spec: ComputerSpec) -> int:
    """What lies there counts as the computer's memory, so it may only take a part of it."""
    return max(1, min(_TMP_MAX_MIB, spec.memory_mb // _TMP_SHARE))


def _work_mount(volume: str | None, labels: Mapping[str, str]) -> dict[str, Any]:
    mount: dict[str, Any] = {"Type": "volume", "Target": WORK, "VolumeOptions": {"Labels": dict(labels)}}
    if volume:
        mount["Source"] = volume
        mount["VolumeOptions"]["NoCopy"] = True
    return mount
