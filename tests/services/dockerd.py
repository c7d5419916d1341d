"""A private Docker daemon with the computer image in it; gone, with every container it ran, when the tests are gone.

The daemon lives in a mount namespace of its own, so its mounts vanish with it; with a bridge also in a network
namespace, so that neither the bridge nor its firewall rules ever are on the machine. Its containers are not its
children, and SIGKILL of the tests would leave them running: a clean-up process, which carries no mark of the tests and
holds the other end of a pipe, ends them through their control group and removes the directory.
"""

from __future__ import annotations

import atexit
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.services import processes

IMAGE = "longshore-computer"
ROOT = Path(__file__).parents[2]
_GROUPS = Path("/sys/fs/cgroup")
_MARK = "LONGSHORE_TEST_DOCKERD"
_READY_SECONDS = 60
_IMAGE_SECONDS = 600
_STOP_SECONDS = 30
_ROUNDS = 200


class DockerMissing(RuntimeError):
    """This machine cannot run a daemon of its own; the text says what is missing."""


def what_is_missing() -> str | None:
    """One reason why no private daemon can run here, or None."""
    for program in ("dockerd", "containerd", "runc", "docker", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if os.geteuid() != 0:
        return "a private Docker daemon needs root"
    return None


@dataclass
class DockerDaemon:
    """One daemon at a socket in a directory of its own.

    With `bridge` its containers can have a network, which leads nowhere but to each other.
    """

    bridge: bool = False
    image: str | None = IMAGE
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="longshore-dockerd-")))

    def __post_init__(self) -> None:
        missing = what_is_missing()
        if missing is not None:
            self.directory.rmdir()
            raise DockerMissing(missing)
        self._group = f"longshore-test-{uuid.uuid4().hex[:12]}"
        self._cleaner = _start_cleaner(self.directory, self._group)
        try:
            self._child = self._start()
            if self.image is not None:
                load_image(self.socket_url, self.image)
        except BaseException:
            self.stop()
            raise

    @property
    def socket_url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def kill(self) -> None:
        """End the daemon alone, at once; its containers die with the connection to it or live on, as they may."""
        self._child.process.kill()
        self._child.process.wait()

    def restart(self) -> None:
        """Start again over the same images and containers."""
        self._end_daemon()
        self._child = self._start()

    def stop(self) -> None:
        """When it returns no process, container, mount or file of this daemon is left."""
        if self._cleaner.stdin is None or self._cleaner.stdin.closed:
            return
        self._end_daemon()
        _dismiss(self._cleaner)

    def __enter__(self) -> DockerDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _socket(self) -> Path:
        return self.directory / "docker.sock"

    def _start(self) -> processes.Child:
        environment = {**os.environ, _MARK: str(self.directory)}
        namespaces = ["unshare", "--mount", *(["--net"] if self.bridge else [])]
        child = processes.start([*namespaces, *self._command()], log=self._log, env=environment)
        child.wait_until(self._answers, what="an answer of dockerd", seconds=_READY_SECONDS)
        return child

    def _command(self) -> list[str]:
        return [
            "dockerd",
            f"--host={self.socket_url}",
            f"--data-root={self.directory / 'data'}",
            f"--exec-root={self.directory / 'exec'}",
            f"--pidfile={self.directory / 'docker.pid'}",
            f"--cgroup-parent=/{self._group}",
            "--shutdown-timeout=1",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            *([] if self.bridge else ["--bridge=none", "--iptables=false", "--ip6tables=false"]),
        ]

    @property
    def _log(self) -> Path:
        return self.directory / "dockerd.log"

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self._socket))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                response = http.client.HTTPResponse(connection)
                response.begin()
                return response.status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _end_daemon(self) -> None:
        child = getattr(self, "_child", None)
        if child is None:
            return
        if child.is_running:
            child.send(signal.SIGTERM)
            try:
                child.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
        child.kill()


def load_image(socket_url: str, image: str = IMAGE) -> None:
    """Give the daemon the computer image; seconds when the root file system is in the cache already."""
    done = subprocess.run(
        [str(ROOT / "scripts" / "computer-image")],
        env={**os.environ, "DOCKER_HOST": socket_url, "LONGSHORE_COMPUTER_IMAGE": image},
        capture_output=True,
        text=True,
        timeout=_IMAGE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise DockerMissing(f"the computer image could not be made: {done.stderr[-2000:]}")


# ---- the clean-up process


def _start_cleaner(directory: Path, group: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != processes.MARK}
    cleaner = subprocess.Popen(
        [sys.executable, "-m", "tests.services.dockerd", str(directory), group],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    atexit.register(_dismiss, cleaner)
    return cleaner


def _dismiss(cleaner: subprocess.Popen[bytes]) -> None:
    if cleaner.stdin is not None and not cleaner.stdin.closed:
        cleaner.stdin.close()
    cleaner.wait(_STOP_SECONDS)


def _clean_up(directory: Path, group: str) -> None:
    """Wait for the pipe to close; then first the daemons, which would start things again, then what they ran."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.read()
    for _ in range(_ROUNDS):
        found = _daemons(directory) or _contained(group)
        if not found:
            break
        for process in found:
            process.kill()
        psutil.wait_procs(found, timeout=1)
    _remove_groups(group)
    shutil.rmtree(directory, ignore_errors=True)


def _daemons(directory: Path) -> list[psutil.Process]:
    """dockerd, its containerd and the shims: all inherit the environment that dockerd was started with."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == str(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _contained(group: str) -> list[psutil.Process]:
    listings = [listing for top in _group_folders(group) for listing in top.rglob("cgroup.procs")]
    pids = {int(pid) for listing in listings for pid in listing.read_text().split()}
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def _group_folders(group: str) -> list[Path]:
    """One on control groups version 2, one for each controller on version 1."""
    return [*_GROUPS.glob(group), *_GROUPS.glob(f"*/{group}")]


def _remove_groups(group: str) -> None:
    for top in _group_folders(group):
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        top.rmdir()


if __name__ == "__main__":
    _clean_up(Path(sys.argv[1]), sys.argv[2])
