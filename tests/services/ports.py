"""Loopback ports that nobody else will be given while this process lives."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _FALLBACK_HIGHEST = 20_000, 32_000
_claims: list[IO[bytes]] = []


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on, claimed until this process ends.

    It lies below the kernel's ephemeral range: a port out of that range could become some outgoing connection's
    own between now and the server's start. The claim is a lock on a file, so parallel test processes cannot draw
    the same number, and it falls with the process.
    """
    candidates = random.Random().sample(range(_LOWEST, _highest()), k=500)
    for port in candidates:
        if _claim(port):
            if _is_free(host, port):
                return port
            _claims.pop().close()
    raise RuntimeError(f"no free port below {_highest()}")


def _highest() -> int:
    try:
        return int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        return _FALLBACK_HIGHEST


def _claim(port: int) -> bool:
    directory = Path(tempfile.gettempdir()) / f"longshore-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    handle = (directory / str(port)).open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return False
    _claims.append(handle)
    return True


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
