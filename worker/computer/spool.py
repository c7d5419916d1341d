"""What a command printed, on the disk before anybody looks at it, so that a later daemon can begin where this one fell.

The bytes move from the stream to the file inside the kernel, through a pipe whose ends outlive the process as the
stream itself does. At whatever instant a process is killed, each byte is in the stream, in the pipe or in the file:
never in two of them, and never only in a memory that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

_STEP_BYTES = 64 * 1024
"""As much as a pipe takes without being asked to grow."""


class Spool:
    """One file and its pipe. When the disk or the kernel do not play along, it is given up and reading goes on."""

    def __init__(
        self, path: Path, *, pipe: tuple[int, int] | None = None, on_broken: Callable[[OSError], None]
    ) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.lseek(self._file, 0, os.SEEK_END)
        self._out, self._in = pipe or os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._on_broken = on_broken
        self._is_over = False

    @property
    def pipe(self) -> tuple[int, int]:
        """Its ends for reading and writing: what has to be held beside the stream."""
        return self._out, self._in

    def pull(self, stream: int) -> bytes:
        """What the stream has now, stored; empty at its end. Raises BlockingIOError when there is nothing yet."""
        if self._is_over:
            return os.read(stream, _STEP_BYTES)
        try:
            moved = os.splice(stream, self._in, _STEP_BYTES, flags=os.SPLICE_F_NONBLOCK)
        except (BlockingIOError, ConnectionError):
            raise
        except OSError as error:
            self._break(error)
            return os.read(stream, _STEP_BYTES)
        return self._store(moved)

    def replay(self) -> Iterator[bytes]:
        """Everything so far, with what the process before us had left in the pipe."""
        self._store_rest()
        at = 0
        while at < self._size:
            data = os.pread(self._file, _STEP_BYTES, at)
            at += len(data)
            yield data

    def stop(self) -> None:
        """Nobody will ask for what comes from now on."""
        self._is_over = True

    def close(self) -> None:
        for descriptor in (self._file, self._out, self._in):
            os.close(descriptor)

    def _store(self, count: int) -> bytes:
        start, lost = self._size, b""
        try:
            while self._size < start + count:
                self._size += os.splice(self._out, self._file, start + count - self._size)
        except OSError as error:
            lost = os.read(self._out, start + count - self._size)
            self._break(error)
        return os.pread(self._file, self._size - start, start) + lost

    def _store_rest(self) -> None:
        try:
            while moved := os.splice(self._out, self._file, _STEP_BYTES, flags=os.SPLICE_F_NONBLOCK):
                self._size += moved
        except BlockingIOError:
            return

    def _break(self, error: OSError) -> None:
        self._is_over = True
        self._on_broken(error)
