"""A Docker daemon that keeps its network when it dies, as one on a real host does."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.services import processes
from tests.services.dockerd import DockerDaemon

GATEWAY = "172.17.0.1"
"""Where containers on the default bridge reach the daemon's side."""
_READY_SECONDS = 60.0
_HOLDER = "holder"


class LastingDaemon(DockerDaemon):
    """Dies and comes back over the same containers and the same bridge, which lies in a network of its own."""

    def __init__(self, *, live_restore: bool) -> None:
        self._live_restore = live_restore
        self._namespace = f"lsd{os.getpid():x}{id(self) & 0xFFFF:x}"
        subprocess.run(["ip", "netns", "add", self._namespace], check=True)
        super().__init__(bridge=True)

    @property
    def network(self) -> Path:
        """The namespace in which its bridge is."""
        return Path("/run/netns") / self._namespace

    def stop(self) -> None:
        super().stop()
        if self.network.exists():
            subprocess.run(["ip", "netns", "delete", self._namespace], check=True)

    def containers(self) -> list[dict[str, Any]]:
        """Every container that belongs to an attempt, running or not."""
        found = _ask(self.socket_url.removeprefix("unix://"), "/containers/json?all=true")
        return [item for item in found if _HOLDER not in item["Labels"].values()]

    def _start(self) -> processes.Child:
        command = ["nsenter", f"--net={self.network}", "unshare", "--mount", *self._command()]
        if self._live_restore:
            command.append("--live-restore")
        environment = {**os.environ, "LONGSHORE_TEST_DOCKERD": str(self.directory)}
        child = processes.start(command, log=self._log, env=environment)
        child.wait_until(self._answers, what="an answer of dockerd", seconds=_READY_SECONDS)
        return child


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _ask(path: str, what: str) -> list[dict[str, Any]]:
    connection = _Connection(path)
    try:
        connection.request("GET", what)
        found: list[dict[str, Any]] = json.load(connection.getresponse())
        return found
    finally:
        connection.close()
