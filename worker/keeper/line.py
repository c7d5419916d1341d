"""The daemon's side of the keeper: find the one that is there, start one, and tell it what to hold."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import structlog

from worker.home import HomeError
from worker.keeper import wire

_PATIENCE_SECONDS = 150.0
"""A keeper that clears computers away answers once its call to the container runtime has come back."""
_SEND_SECONDS = 5.0
_END_SECONDS = 2.0
_PAUSE_SECONDS = 0.02

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """A stream that the keeper held for us; the descriptors are ours now."""

    handle: Mapping[str, Any]
    descriptors: tuple[int, ...]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Found:
    """The keeper of an earlier daemon, and what it holds; `until` is on the monotonic clock."""

    line: KeeperLine
    kept: Mapping[str, Kept]
    until: float | None


class KeeperLine:
    """The connection to the keeper. Losing it costs what it is for, and nothing else."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock = sock
        self._pid = pid
        self._lock = threading.Lock()
        self._is_lost = False
        sock.settimeout(_SEND_SECONDS)

    def hold(self, attempt: str, handle: Mapping[str, Any], descriptors: Sequence[int]) -> bool:
        return self._tell({"op": wire.HOLD, "attempt": attempt, "handle": dict(handle)}, descriptors)

    def drop(self, attempt: str) -> None:
        self._tell({"op": wire.DROP, "attempt": attempt})

    def renew(self, until: float) -> None:
        """The coordinator leaves our work to us until then (monotonic clock)."""
        self._tell({"op": wire.RENEW, "until": until})

    def dismiss(self) -> None:
        """There is nothing to hold any more; when this returns the keeper is gone."""
        if self._tell({"op": wire.BYE}):
            self._wait_gone()
        self._sock.close()

    def _tell(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> bool:
        with self._lock:
            if self._is_lost:
                return False
            try:
                wire.send(self._sock, message, descriptors)
            except OSError as error:
                self._is_lost = True
                log.error("keeper_lost", error=str(error), means="what runs now would not outlive this daemon")
        return not self._is_lost

    def _wait_gone(self) -> None:
        self._sock.settimeout(_END_SECONDS)
        try:
            while wire.receive(self._sock) is not None:
                pass
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            return  # An earlier daemon's child: whoever inherited it takes care of it.
        except OSError as error:
            log.warning("keeper_stays", error=str(error))


class KeeperPlace:
    """Where the keeper of a home is found or started. There is one at a time: it holds a lock."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock: int | None = None

    def find(self) -> Found | None:
        """The keeper that is there. None when there is none; then no other can come before `start` or `leave`."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while (found := self._ask()) is None and not self._try_lock():
            if time.monotonic() > give_up:
                raise HomeError(f"the keeper of {self._home} does not answer; see {self._home / wire.LOG}")
            time.sleep(_PAUSE_SECONDS)
        return found

    def start(self, *, sweep: Mapping[str, Any]) -> KeeperLine:
        """A keeper of our own; `sweep` says whose computers it clears away if we die and nobody comes."""
        assert self._lock is not None, "find comes first"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self._listen() as listener, theirs:
            passed = (listener.fileno(), theirs.fileno(), self._lock)
            argv = [sys.executable, "-m", "worker.keeper", *map(str, passed), str(self._home), json.dumps(dict(sweep))]
            with _log_file(self._home / wire.LOG) as told:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=told,
                    pass_fds=passed,
                    start_new_session=True,
                )
        process.returncode = 0  # It outlives us; nobody polls it through this object.
        self.leave()
        return KeeperLine(ours, process.pid)

    def leave(self) -> None:
        """No keeper is wanted here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _ask(self) -> Found | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(_PATIENCE_SECONDS)
        try:
            with wire.address(self._home) as path:
                sock.connect(path)
            wire.send(sock, {"op": wire.TAKE})
            return _received(sock)
        except (ConnectionError, FileNotFoundError):
            return None
        except TimeoutError as error:
            raise HomeError(f"the keeper of {self._home} does not answer; see {self._home / wire.LOG}") from error

    def _try_lock(self) -> bool:
        descriptor = os.open(self._home / wire.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _listen(self) -> socket.socket:
        (self._home / wire.SOCKET).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with wire.address(self._home) as path:
            listener.bind(path)
        (self._home / wire.SOCKET).chmod(0o600)
        listener.listen(8)
        return listener


def _received(sock: socket.socket) -> Found | None:
    kept: dict[str, Kept] = {}
    while (packet := wire.receive(sock)) is not None:
        message, descriptors = packet
        if message["op"] == wire.DONE:
            return Found(KeeperLine(sock, message["pid"]), kept, message["until"])
        kept[message["attempt"]] = Kept(message["handle"], tuple(descriptors))
    # It ended while it told us: then it has given up what it held.
    for item in kept.values():
        item.close()
    sock.close()
    return None


def _log_file(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")
