"""How a command line becomes a sandboxed one: pure functions from what is known of the machine to words for exec.

Three ways. As root: a private mount of the work directory, then uid 1000, then bubblewrap, so that neither
bubblewrap nor the job ever has the host's root rights. As anyone else: bubblewrap. Without bubblewrap: nothing
around the command but limits. The job's environment goes to bubblewrap through a descriptor: on the way in nothing
of it (LD_PRELOAD, secrets) touches a process that has more rights than the job, or shows in a process list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.computer.contract import WORK, ComputerSpec, Network

JOB_UID = 1000
TMP = "/tmp"  # noqa: S108 - inside the sandbox, a file system of its own
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_MIB = 1024 * 1024
_DOOR = "/mnt"
_OPEN_FILES = 4096
_ULIMIT_BLOCK = 512
_WITH_SIZES = (0, 7)
_WITH_DISABLE_USERNS = (0, 8)
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_READ_ONLY_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime")
_FOR_NETWORK = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/ca-certificates",
)
PASSWD = b"root:x:0:0:root:/:/bin/sh\nagent:x:1000:1000:agent:/work:/bin/sh\n"
GROUP = b"root:x:0:\nagent:x:1000:\n"

_ENTER = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; '
_MOUNT = f'mount --bind "$1" {_DOOR} || exit 125; shift; '
_RUN = 'exec "$@"'


class Way(StrEnum):
    """How much of a sandbox there is."""

    bwrap_as_root = "bwrap_as_root"
    bwrap = "bwrap"
    bare = "bare"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a probe found out about this machine."""

    way: Way
    bwrap_version: tuple[int, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """Top-level directories that are links on this machine, such as /bin → usr/bin."""
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Open descriptors that the sandbox reads or writes; numbers as the child sees them."""

    status: int
    passwd: int
    group: int
    seccomp: int | None = None


def bwrap_version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def machine_layout() -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Which of the old top-level directories are links, and which are directories of their own."""
    paths = [Path(name) for name in _MERGED]
    links = tuple((str(path.readlink()), str(path)) for path in paths if path.is_symlink())
    return links, tuple(str(path) for path in paths if path.is_dir() and not path.is_symlink())


def outer_command(tools: Tools, *, doors: Sequence[str], work: str, inner: Sequence[str]) -> list[str]:
    """What the worker starts: enters the control groups, drops its rights, becomes `inner`."""
    if tools.way is not Way.bwrap_as_root:
        return ["sh", "-c", _ENTER + _RUN, "sh", *doors, "--", *inner]
    drop = ["setpriv", f"--reuid={JOB_UID}", f"--regid={JOB_UID}", "--clear-groups", "--no-new-privs"]
    script = _ENTER + _MOUNT + _RUN
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        *doors,
        "--",
        work,
        *drop,
        *inner,
    ]


def bwrap_words(tools: Tools, spec: ComputerSpec, *, work: str, env: Mapping[str, str], fds: Descriptors) -> list[str]:
    """The options that bubblewrap reads from its --args descriptor."""
    source = _DOOR if tools.way is Way.bwrap_as_root else work
    return [
        *_namespaces(tools, spec),
        *_root(tools, spec, fds),
        *("--bind", source, WORK, "--remount-ro", "/", "--chdir", WORK),
        *("--json-status-fd", str(fds.status)),
        *(("--seccomp", str(fds.seccomp)) if fds.seccomp is not None else ()),
        "--clearenv",
        *(word for name, value in env.items() for word in ("--setenv", name, value)),
    ]  # fmt: skip


def _namespaces(tools: Tools, spec: ComputerSpec) -> list[str]:
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if spec.network is Network.none:
        words.append("--unshare-net")
    if tools.bwrap_version >= _WITH_DISABLE_USERNS:
        words.append("--disable-userns")
    words += ["--uid", str(JOB_UID), "--gid", str(JOB_UID), "--hostname", "computer"]
    return [*words, "--die-with-parent", "--new-session", "--cap-drop", "ALL"]


def _root(tools: Tools, spec: ComputerSpec, fds: Descriptors) -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for target, link in tools.links:
        words += ["--symlink", target, link]
    for path in (*tools.folders, *_READ_ONLY_ETC, *(_FOR_NETWORK if spec.network is Network.open else ())):
        words += ["--ro-bind-try", path, path]
    words += ["--ro-bind-data", str(fds.passwd), "/etc/passwd", "--ro-bind-data", str(fds.group), "/etc/group"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    if tools.bwrap_version >= _WITH_SIZES:
        words += ["--size", str(max(1, spec.memory_mb // 4) * _MIB)]
    return [*words, "--tmpfs", TMP]


def limited(argv: Sequence[str], spec: ComputerSpec, *, grouped: bool, count_processes: bool) -> list[str]:
    """Limits that a process carries itself. A shell sets them: it is there everywhere and costs a millisecond."""
    blocks = (spec.disk_mb + max(16, spec.disk_mb // 8)) * _MIB // _ULIMIT_BLOCK
    lines = ["ulimit -c 0", f"ulimit -n {_OPEN_FILES}", f"ulimit -f {blocks}"]
    if not grouped:
        lines.append(f"ulimit -v {spec.memory_mb * 1024}")
        if count_processes:
            # One letter in dash, another in bash.
            lines.append(f"{{ ulimit -u {spec.pids} || ulimit -p {spec.pids}; }} 2>/dev/null")
    return ["sh", "-c", "; ".join([*lines, _RUN]), "sh", *argv]


def packed(words: Sequence[str]) -> bytes:
    return b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)
