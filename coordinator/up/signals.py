"""Signals as messages: blocked, and taken one by one where we wait, so that none interrupts anything."""

from __future__ import annotations

import signal
from types import TracebackType
from typing import Self

STOP = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Signals:
    """Takes the signals of this process for as long as it is open. Only the main thread may use it."""

    def __init__(self) -> None:
        # Whoever started us with nohup wants us to outlive the terminal.
        ignored = {number for number in STOP if signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGINT}
        self._numbers = (STOP - ignored) | {signal.SIGCHLD}
        self._before: set[signal.Signals | int] = set()

    def __enter__(self) -> Self:
        self._before = set(signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # What came too late to matter must not kill us now that it can.
        while self.next(0.0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def next(self, seconds: float) -> int | None:
        """The next signal within so many seconds; None when there is none."""
        found = signal.sigtimedwait(self._numbers, max(0.0, seconds))
        return None if found is None else found.si_signo
