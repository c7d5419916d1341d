"""The output of one command: passed on as it comes, counted, and kept at the end of each stream."""

from __future__ import annotations

from collections import deque

from worker.computer.contract import OnOutput

STDOUT = "stdout"
STDERR = "stderr"


class Tail:
    """The last `limit` bytes of a stream, whatever went through it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._seen = 0

    def add(self, chunk: bytes) -> None:
        self._seen += len(chunk)
        self._held += len(chunk)
        self._chunks.append(chunk)
        while self._held - len(self._chunks[0]) >= self._limit:
            self._held -= len(self._chunks.popleft())
            if not self._chunks:
                break

    def value(self) -> bytes:
        whole = b"".join(self._chunks)
        return whole[max(0, len(whole) - self._limit) :]

    @property
    def dropped(self) -> bool:
        return self._seen > self._limit


class Output:
    """Both streams of a command; `flooded` once more than `max_bytes` came."""

    def __init__(self, *, on_output: OnOutput | None, max_bytes: int, keep_bytes: int) -> None:
        self._on_output = on_output
        self._left = max_bytes
        self._tails = {STDOUT: Tail(keep_bytes), STDERR: Tail(keep_bytes)}
        self.flooded = False

    def add(self, stream: str, chunk: bytes) -> None:
        """Takes what still fits; after the flood began everything is dropped, so a reader can go on draining."""
        taken = chunk[: self._left]
        self.flooded = self.flooded or len(taken) < len(chunk)
        self._left -= len(taken)
        if not taken:
            return
        self._tails[stream].add(taken)
        if self._on_output is not None:
            self._on_output(stream, taken)

    def kept(self, stream: str) -> bytes:
        return self._tails[stream].value()

    @property
    def truncated(self) -> bool:
        return self.flooded or any(tail.dropped for tail in self._tails.values())
