"""One child of the supervisor: started so that it cannot outlive us, ended with everything it started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 4096
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. Secrets come in the environment or in files: the arguments are for everybody to see."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Program:
    """One of our programs. `make` is asked for the command at each start: a port or a token may have changed."""

    name: str
    make: Callable[[], Command]
    log: Path
    stop_seconds: float
    """How long it has between SIGTERM and SIGKILL."""
    final_codes: frozenset[int] = frozenset()
    """Exit codes after which starting it again would be no use."""


class Child:
    """A running program, in a session and process group of its own."""

    def __init__(self, program: Program, *, inherit: Sequence[int] = ()) -> None:
        self.program = program
        command = program.make()
        program.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(command.argv),
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=tuple(inherit),
                preexec_fn=Tie(os.getpid()),  # noqa: PLW1509 - the supervisor has one thread
            )
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Tell the program itself; it tells those it started."""
        if self.code is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever is left of its group, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Tie:
    """Runs in the child before its program does: the kernel tells it when we die, however we die."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != self._parent:
            # We died before the kernel knew that it matters.
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def last_words(log: Path, lines: int = 12) -> str:
    """The end of a log, for people who ask what happened."""
    try:
        with log.open("rb") as source:
            source.seek(0, os.SEEK_END)
            source.seek(max(0, source.tell() - _TAIL_BYTES))
            text = source.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
