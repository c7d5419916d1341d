"""From the bytes that a command prints to lines that can be stored and shown."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LEVELS = {"stdout": "info", "stderr": "warning"}
"""Much that is well is told on stderr, so it is no error; yet it should stand out."""

MAX_LINE = 16 * 1024
"""Characters. A longer line goes on in the next one."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_CONTROL = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code != 0x09}

Sink = Callable[[str, str], None]
"""Takes (stream, line)."""


class LineSplitter:
    """Cuts the two streams of one command into lines. A carriage return alone ends a line too: progress displays."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._streams = {name: _Stream() for name in LEVELS}

    def feed(self, stream: str, chunk: bytes) -> None:
        for line in self._streams[stream].feed(chunk):
            self._sink(stream, line)

    def finish(self) -> None:
        """The command is over: what stands on an unfinished line is a line."""
        for name, stream in self._streams.items():
            for line in stream.finish():
                self._sink(name, line)


class _Stream:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> Iterator[str]:
        return self._cut(self._decoder.decode(chunk))

    def finish(self) -> Iterator[str]:
        yield from self._cut(self._decoder.decode(b"", final=True))
        if self._rest:
            rest, self._rest = self._rest, ""
            yield clean(rest.rstrip("\r"))

    def _cut(self, text: str) -> Iterator[str]:
        self._rest += text
        *lines, rest = self._rest.split("\n")
        # A carriage return at the very end may be the first half of a line's end.
        done, mark, begun = rest.rpartition("\r")
        if mark and begun:
            lines.append(done)
            rest = begun
        if len(rest) > MAX_LINE:
            lines.append(rest)
            rest = ""
        self._rest = rest
        for line in lines:
            for part in line.rstrip("\r").split("\r"):
                yield from _pieces(clean(part))


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(len(line), 1), MAX_LINE):
        yield line[start : start + MAX_LINE]


def clean(line: str) -> str:
    """The line without terminal escapes and control characters."""
    return _ESCAPES.sub("", line).translate(_CONTROL)


@dataclass(slots=True)
class Budget:
    """How much of a job's output is kept as log lines."""

    max_bytes: int
    used: int = 0
    is_spent: bool = False

    def take(self, line: str) -> bool:
        """Whether the line still fits; the first that does not spends the budget."""
        if self.is_spent:
            return False
        self.used += len(line.encode(errors="replace")) + 1
        self.is_spent = self.used > self.max_bytes
        return not self.is_spent
