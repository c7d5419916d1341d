"""Taking result and artifacts out of a computer under caps: what is kept, what is refused, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from worker.computer.contract import Artifact, Collected, CollectLimits
from worker.computer.names import artifact_name_fault, printable

_CHUNK_BYTES = 1024 * 1024

Read = Callable[[int], bytes]


class Harvest:
    """Collects files one by one; host names are our own numbers, so no name from inside reaches the host's disk."""

    def __init__(self, destination: Path, limits: CollectLimits) -> None:
        self._destination = destination
        self._limits = limits
        self._artifacts: list[Artifact] = []
        self._refused: list[str] = []
        self._unlisted = 0
        self._total = 0
        self._result: bytes | None = None
        destination.mkdir(parents=True, exist_ok=True)

    @property
    def full(self) -> bool:
        return len(self._artifacts) >= self._limits.max_files

    def refuse(self, name: str, reason: str) -> None:
        """Refusals are told by name up to the number of files allowed, then only counted."""
        if len(self._refused) < self._limits.max_files:
            self._refused.append(f"{printable(name)}: {reason}")
        else:
            self._unlisted += 1

    def wants(self, name: str, size: int) -> bool:
        """Whether a regular file of this name and size is taken; refuses it with the reason otherwise."""
        reason = self._fault(name, size)
        if reason is not None:
            self.refuse(name, reason)
        return reason is None

    def _fault(self, name: str, size: int) -> str | None:
        limits = self._limits
        if self.full:
            return f"there are more than {limits.max_files} files"
        if size > limits.max_file_bytes:
            return f"it has {size} bytes, more than {limits.max_file_bytes}"
        if self._total + size > limits.max_total_bytes:
            return f"all files together have more than {limits.max_total_bytes} bytes"
        return artifact_name_fault(name)

    def take(self, name: str, size: int, read: Read) -> None:
        """Copies at most `size` bytes; a file that became shorter meanwhile is taken as it is."""
        path = self._destination / f"{len(self._artifacts) + 1:05d}"
        try:
            got, digest = _copy(path, size, read)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._total += got
        self._artifacts.append(Artifact(name, path, got, digest))

    def take_result(self, name: str, size: int, read: Read) -> None:
        if size > self._limits.max_result_bytes:
            self.refuse(name, f"it has {size} bytes, more than {self._limits.max_result_bytes}")
            return
        parts: list[bytes] = []
        left = size
        while left and (chunk := read(left)):
            parts.append(chunk)
            left -= len(chunk)
        self._result = b"".join(parts)

    def collected(self) -> Collected:
        refused = self._refused + ([f"and {self._unlisted} more"] if self._unlisted else [])
        return Collected(self._result, tuple(self._artifacts), tuple(refused))


def _copy(path: Path, size: int, read: Read) -> tuple[int, str]:
    digest = hashlib.sha256()
    left = size
    with path.open("xb") as file:
        while left and (chunk := read(min(left, _CHUNK_BYTES))):
            file.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
    return size - left, digest.hexdigest()
