"""The home of one `coordinator up`: nobody else lives there while it runs, its children included."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shared.errors import Conflict


class House:
    """The lock on a home. Children hold it with us: it falls when the last process is gone, however it went."""

    def __init__(self, home: Path) -> None:
        self._path = home / "up.lock"
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """What children inherit."""
        if self._descriptor is None:
            raise RuntimeError("the home is not locked")
        return self._descriptor

    def try_lock(self) -> bool:
        """Take the home unless somebody has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def owner(self) -> int | None:
        """The process id of the `coordinator up` that has the home; None when only what it left behind still runs."""
        text = self._path.read_text().strip() if self._path.exists() else ""
        if not text.isdigit():
            return None
        pid = int(text)
        return pid if _is_alive(pid) else None

    def refuse(self) -> Conflict:
        """Why the home cannot be had."""
        pid = self.owner()
        if pid is not None:
            return Conflict(f"{self._path.parent} is in use by `coordinator up`, process {pid}; give another --home")
        return Conflict(f"processes that an earlier `coordinator up` left in {self._path.parent} still run")

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
