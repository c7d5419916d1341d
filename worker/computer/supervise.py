"""Watching one command until it ended: output, input, deadline, cancel, quota; the same loop for every driver.

A driver only says how work enters a computer (`Entry`) and how what was started is read and ended (`Started`).
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.computer.contract import ComputerError, ExecEnd
from worker.computer.output import Output

_READ_BYTES = 256 * 1024
_TICK_SECONDS = 0.1
_IDLE_SECONDS = 30.0
_KILL_PATIENCE_SECONDS = 10.0

Decode = Callable[[bytes], Iterable[tuple[str, bytes]]]
"""Turns what was read from one descriptor into (stream, chunk) pairs."""


def _read_some(fd: int) -> bytes:
    return os.read(fd, _READ_BYTES)


@dataclass(frozen=True, slots=True)
class OutputSource:
    fd: int
    decode: Decode
    read: Callable[[int], bytes] = _read_some
    """Takes what is there from the descriptor; raises BlockingIOError when that is nothing."""


class Started(Protocol):
    """A command under way in a computer."""

    outputs: Sequence[OutputSource]
    stdin: int | None
    exit_fd: int | None
    """Readable once the command itself ended, where the driver can tell it apart from the end of its output."""

    def end_input(self) -> None: ...

    def exit_code(self) -> int | None:
        """None while it still runs. May raise ComputerLost."""

    def settle(self) -> None:
        """The command itself ended: end what it left behind, where the driver does not let it live on."""

    def terminate(self) -> None:
        """Ask everything that the command started to stop."""

    def kill(self) -> None:
        """End everything that the command started; must not wait for the output to be read."""

    def kill_hard(self) -> None:
        """The last resort when `kill` did not show an effect."""

    def close(self) -> None: ...


class Entry(Protocol):
    """How work enters a computer."""

    def start(self, argv: Sequence[str], env: Mapping[str, str], *, with_stdin: bool) -> Started: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """When a command is ended by us."""

    timeout_seconds: float | None
    cancel: threading.Event | None = None
    grace_seconds: float = 0.0
    over_quota: threading.Event | None = None
    began: float | None = None
    """When the command began (monotonic clock), if that was before anybody here watched it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    end: ExecEnd
    exit_code: int | None
    duration_ms: int


def supervise(started: Started, output: Output, terms: Terms, stdin: bytes | None = None) -> Outcome:
    """Runs the loop to the end; whatever happens, nothing of the command is left running and all is closed."""
    try:
        return _Supervision(started, output, terms, stdin).run()
    except BaseException:
        started.kill()
        raise
    finally:
        started.close()


class _Supervision:
    def __init__(self, started: Started, output: Output, terms: Terms, stdin: bytes | None) -> None:
        self._started = started
        self._output = output
        self._terms = terms
        self._input = memoryview(stdin or b"")
        self._selector = selectors.DefaultSelector()
        self._begin = time.monotonic() if terms.began is None else terms.began
        self._open_outputs = 0
        self._end = ExecEnd.exited
        self._killed = False
        self._tried_all = False
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._pause = 0.002

    def run(self) -> Outcome:
        with self._selector:
            self._register()
            code = self._until_ended()
        if self._output.flooded and self._end is ExecEnd.exited:
            self._end = ExecEnd.output_limit
        if self._end is not ExecEnd.exited and not self._killed:
            self._started.kill()
        return Outcome(self._end, code, round((time.monotonic() - self._begin) * 1000))

    def _register(self) -> None:
        for source in self._started.outputs:
            self._selector.register(source.fd, selectors.EVENT_READ, source)
            self._open_outputs += 1
        if self._started.exit_fd is not None:
            self._selector.register(self._started.exit_fd, selectors.EVENT_READ)
        if self._started.stdin is not None:
            if self._input:
                os.set_blocking(self._started.stdin, False)
                self._selector.register(self._started.stdin, selectors.EVENT_WRITE)
            else:
                self._started.end_input()

    def _until_ended(self) -> int | None:
        while True:
            if not self._open_outputs:
                code = self._started.exit_code()
                if code is not None:
                    return code
            for key, events in self._selector.select(self._wait_seconds()):
                self._serve(key, events)
            self._judge(time.monotonic())

    def _wait_seconds(self) -> float:
        """Until the next thing that no descriptor would tell us about."""
        times = [_IDLE_SECONDS]
        if not self._open_outputs:
            self._pause = min(self._pause * 2, _TICK_SECONDS)
            times.append(self._pause)
        if self._terms.cancel is not None or self._terms.over_quota is not None:
            times.append(_TICK_SECONDS)
        now = time.monotonic()
        if self._terms.timeout_seconds is not None and self._end is ExecEnd.exited:
            times.append(self._begin + self._terms.timeout_seconds - now)
        times += [moment - now for moment in (self._kill_at, self._give_up_at) if moment is not None]
        return max(0.0, min(times))

    # -- descriptors

    def _serve(self, key: selectors.SelectorKey, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._write(key.fd)
        elif key.data is None:
            self._selector.unregister(key.fd)
            self._started.settle()
        else:
            self._read(key.data)

    def _read(self, source: OutputSource) -> None:
        try:
            chunk = source.read(source.fd)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._selector.unregister(source.fd)
            self._open_outputs -= 1
            return
        for stream, part in source.decode(chunk):
            self._output.add(stream, part)

    def _write(self, fd: int) -> None:
        try:
            self._input = self._input[os.write(fd, self._input[:_READ_BYTES]) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionError):
            self._input = memoryview(b"")
        if not self._input:
            self._selector.unregister(fd)
            self._started.end_input()

    # -- decisions

    def _judge(self, now: float) -> None:
        if self._end is ExecEnd.exited:
            reason = self._reason_to_stop(now)
            if reason is not None:
                self._stop(reason, now)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill(now)
        elif self._give_up_at is not None and now >= self._give_up_at:
            self._last_resort(now)

    def _reason_to_stop(self, now: float) -> ExecEnd | None:
        if self._output.flooded:
            return ExecEnd.output_limit
        if self._terms.over_quota is not None and self._terms.over_quota.is_set():
            return ExecEnd.disk_limit
        if self._terms.cancel is not None and self._terms.cancel.is_set():
            return ExecEnd.cancelled
        if self._terms.timeout_seconds is not None and now >= self._begin + self._terms.timeout_seconds:
            return ExecEnd.timeout
        return None

    def _stop(self, reason: ExecEnd, now: float) -> None:
        self._end = reason
        grace = self._terms.grace_seconds if reason is ExecEnd.cancelled else 0.0
        self._kill_at = now + grace
        if grace > 0:
            self._started.terminate()

    def _kill(self, now: float) -> None:
        self._kill_at = None
        self._killed = True
        self._give_up_at = now + _KILL_PATIENCE_SECONDS
        self._started.kill()

    def _last_resort(self, now: float) -> None:
        if self._tried_all:
            raise ComputerError("a command could not be ended", end=self._end.value)
        self._tried_all = True
        self._give_up_at = now + _KILL_PATIENCE_SECONDS
        self._started.kill_hard()
