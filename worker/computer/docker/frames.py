"""The stream of a Docker exec without a terminal: frames of eight bytes head (stream, length) and a body."""

from __future__ import annotations

from collections.abc import Iterator

from worker.computer.output import STDERR, STDOUT

_HEAD = 8
_STREAMS = {1: STDOUT, 2: STDERR}


class FrameDecoder:
    """Cuts what was read anywhere into (stream, chunk) pairs; bodies are passed on as they come, never held."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._stream = STDOUT
        self._left = 0

    def __call__(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        at = 0
        while at < len(data):
            if self._left:
                chunk = data[at : at + self._left]
                self._left -= len(chunk)
                at += len(chunk)
                yield self._stream, chunk
            else:
                missing = _HEAD - len(self._head)
                self._head += data[at : at + missing]
                at += min(missing, len(data) - at)
                if len(self._head) == _HEAD:
                    self._begin_body()

    def _begin_body(self) -> None:
        self._stream = _STREAMS.get(self._head[0], STDOUT)
        self._left = int.from_bytes(self._head[4:8], "big")
        self._head.clear()
