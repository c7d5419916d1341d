"""How work enters a sandbox: one process tree for each command."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.computer.contract import ComputerError, ComputerLost, ComputerSpec, Usage
from worker.computer.output import STDERR, STDOUT
from worker.computer.process import hosting, sandbox
from worker.computer.process.groups import Group
from worker.computer.process.hosting import ProcessId
from worker.computer.process.sandbox import Descriptors, Tools, Way
from worker.computer.process.seccomp import filter_program
from worker.computer.running import MARKER
from worker.computer.supervise import OutputSource

COMPUTER_VARIABLE = "COMPUTER_ID"
"""In the environment of whatever a computer is made of, so that a reaper finds what a dead worker left. Inside a
sandbox it is not: bubblewrap clears what it was given itself."""

_SIGNAL_BASE = 128
_STATUS_PATIENCE_SECONDS = 10.0
_LAST_WORDS_BYTES = 300
_MAKERS = ("bwrap:", "mount:", "setpriv:", "sh:", "unshare:")
"""How the complaints begin of those who make a sandbox, before a command of the job is there."""
_KILLED = 137


@dataclass(slots=True)
class Spent:
    """What the ended commands of a computer used, where no control group counts it."""

    cpu_ms: int = 0
    peak_memory_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, cpu_seconds: float, peak_kib: int) -> None:
        with self.lock:
            self.cpu_ms += round(cpu_seconds * 1000)
            self.peak_memory_bytes = max(self.peak_memory_bytes, peak_kib * 1024)

    def usage(self) -> Usage:
        return Usage(self.cpu_ms, self.peak_memory_bytes)


class ProcessEntry:
    """Starts commands of one computer and keeps a record of what runs, for a reaper after a crash."""

    def __init__(self, tools: Tools, spec: ComputerSpec, *, work: Path, records: Path, group: Group | None) -> None:
        self._tools = tools
        self._spec = spec
        self._work = work
        self._records = records
        self._lock = threading.Lock()
        self._live: set[StartedProcess] = set()
        self._closed = False
        self.group = group
        self.spent = Spent()

    def start(self, argv: Sequence[str], env: Mapping[str, str], *, with_stdin: bool) -> StartedProcess:
        with self._lock:
            if self._closed:
                raise ComputerLost("the computer is gone", computer=self._spec.id)
            started = self._begin(argv, env, with_stdin)
            self._live.add(started)
        try:
            started.find_init()
        except BaseException:
            started.kill()
            started.close()
            raise
        return started

    def end_all(self, *, close: bool = False) -> None:
        """Kills every command under way and waits until each is dead; with `close` nothing starts any more."""
        with self._lock:
            self._closed = self._closed or close
            live = list(self._live)
        for started in live:
            started.kill()
        for started in live:
            started.wait_dead()

    def _begin(self, argv: Sequence[str], env: Mapping[str, str], with_stdin: bool) -> StartedProcess:
        try:
            return self._start(argv, env, with_stdin)
        except OSError as error:
            if not self._work.is_dir():
                raise ComputerLost("the computer's directory is gone", computer=self._spec.id) from error
            raise ComputerError(f"the command could not be started: {error}", computer=self._spec.id) from error

    def _start(self, argv: Sequence[str], env: Mapping[str, str], with_stdin: bool) -> StartedProcess:
        marker = env.get(MARKER, "")
        if self._tools.way is Way.bare:
            child = self._popen(self._bare(argv), with_stdin, env=dict(env), cwd=self._work)
            return StartedProcess(self, child, marker, status=None)
        return self._start_bwrap(argv, env, with_stdin, marker)

    def _bare(self, argv: Sequence[str]) -> list[str]:
        grouped = self.group is not None
        inner = sandbox.limited(argv, self._spec, grouped=grouped, count_processes=False)
        return sandbox.outer_command(self._tools, doors=self._doors(), work="", inner=inner)

    def _start_bwrap(
        self, argv: Sequence[str], env: Mapping[str, str], with_stdin: bool, marker: str
    ) -> StartedProcess:
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        program = filter_program()
        opened = [_held(data) for data in (sandbox.PASSWD, sandbox.GROUP, program) if data is not None]
        try:
            fds = Descriptors(status_write, *opened)
            words = sandbox.bwrap_words(self._tools, self._spec, work=str(self._work), env=env, fds=fds)
            opened.append(_held(sandbox.packed(words)))
            inner = ["bwrap", "--args", str(opened[-1]), "--", *self._limited(argv)]
            command = sandbox.outer_command(self._tools, doors=self._doors(), work=str(self._work), inner=inner)
            # A worker that dies here leaves what nothing else names: no record is written, and bubblewrap's first
            # process asks to die with its parent only once it was told to go on.
            fixed = {"PATH": sandbox.PATH, MARKER: marker, COMPUTER_VARIABLE: self._spec.id}
            child = self._popen(command, with_stdin, env=fixed, pass_fds=[status_write, *opened])
        except BaseException:
            os.close(status_read)
            raise
        finally:
            for fd in (status_write, *opened):
                os.close(fd)
        return StartedProcess(self, child, marker, status=status_read)

    def _limited(self, argv: Sequence[str]) -> list[str]:
        return sandbox.limited(argv, self._spec, grouped=self.group is not None, count_processes=True)

    def _doors(self) -> Sequence[str]:
        return self.group.doors if self.group is not None else ()

    def _popen(
        self,
        command: Sequence[str],
        with_stdin: bool,
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        pass_fds: Iterable[int] = (),
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd or "/",
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )

    def is_alone(self, started: StartedProcess) -> bool:
        with self._lock:
            return self._live <= {started}

    def memory_killed(self) -> bool:
        return self.group is not None and bool(self.group.counters.oom_kills())

    # -- the records

    def wrote_down(self, marker: str, processes: Sequence[ProcessId]) -> None:
        rows = [[process.pid, process.started] for process in processes]
        with contextlib.suppress(FileNotFoundError):
            (self._records / marker).write_text(json.dumps(rows))

    def ended(self, started: StartedProcess, marker: str) -> None:
        with self._lock:
            self._live.discard(started)
        (self._records / marker).unlink(missing_ok=True)


class StartedProcess:
    """One command under way: our child, and inside a sandbox the init of its process namespace."""

    def __init__(self, entry: ProcessEntry, child: subprocess.Popen[bytes], marker: str, *, status: int | None) -> None:
        self._entry = entry
        self._child = child
        self._marker = marker
        self._status = status
        self._status_text = b""
        self._init: ProcessId | None = None
        self._init_fd: int | None = None
        self._lock = threading.Lock()
        self._code: int | None = None
        assert child.stdout is not None
        assert child.stderr is not None
        self._killed = False
        self._last_words = b""
        self.exit_fd: int | None = os.pidfd_open(child.pid)
        self.stdin = child.stdin.fileno() if child.stdin is not None else None
        self.outputs: Sequence[OutputSource] = [
            OutputSource(child.stdout.fileno(), _stdout),
            OutputSource(child.stderr.fileno(), self._stderr),
        ]

    def _stderr(self, data: bytes) -> list[tuple[str, bytes]]:
        self._last_words = (self._last_words + data)[-_LAST_WORDS_BYTES:]
        return [(STDERR, data)]

    def find_init(self) -> None:
        """Bubblewrap tells the sandbox's init; when it is dead, so is every process of the sandbox."""
        if self._status is not None:
            self._read_first_line(self._status)
            self._pin_init(_child_pid(self._status_text))
        known = [hosting.process_id(self._child.pid), self._init]
        self._entry.wrote_down(self._marker, [process for process in known if process is not None])

    def _read_first_line(self, status: int) -> None:
        """It comes in pieces. The end instead of a line means that bubblewrap failed, and its exit code tells."""
        while b"\n" not in self._status_text:
            if not select.select([status], [], [], _STATUS_PATIENCE_SECONDS)[0]:
                raise ComputerError("bubblewrap did not start")
            piece = os.read(status, 65536)
            if not piece:
                return
            self._status_text += piece

    def _pin_init(self, pid: int | None) -> None:
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._init_fd = os.pidfd_open(pid)
            self._init = hosting.process_id(pid)

    # -- what the loop asks

    def end_input(self) -> None:
        if self._child.stdin is not None:
            self._child.stdin.close()
        self.stdin = None

    def exit_code(self) -> int | None:
        code = self._reap(os.WNOHANG)
        if code is None or not self._init_dead(0):
            return None
        if self._status is not None and not self._killed:
            return self._told_code(self._status, code)
        return code

    def settle(self) -> None:
        """The command is over; what it left in the background is not part of any later one."""
        if self._status is None:
            self._sweep()

    def terminate(self) -> None:
        if self._init is not None:
            for process in hosting.descendants(self._init.pid):
                hosting.send(process, signal.SIGTERM)
        elif self._status is None:
            for process in hosting.with_variable(MARKER, self._marker):
                hosting.send(process, signal.SIGTERM)

    def kill(self) -> None:
        self._killed = True
        if self._init_fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
        with self._lock:
            # Not through Popen: it would reap the child and lose what the child used.
            if self._code is None:
                os.kill(self._child.pid, signal.SIGKILL)
        if self._status is None:
            self._sweep()

    def kill_hard(self) -> None:
        if self._entry.group is not None:
            self._entry.group.kill()

    def wait_dead(self) -> None:
        """For whoever kills from another thread than the one that runs the command."""
        if self.exit_fd is not None:
            with contextlib.suppress(OSError):
                select.select([self.exit_fd], [], [], _STATUS_PATIENCE_SECONDS)
        self._init_dead(_STATUS_PATIENCE_SECONDS)

    def close(self) -> None:
        for file in (self._child.stdin, self._child.stdout, self._child.stderr):
            if file is not None:
                file.close()
        self._reap(0)
        self._entry.ended(self, self._marker)
        for fd in (self._status, self.exit_fd, self._init_fd):
            if fd is not None:
                os.close(fd)
        self._status = self.exit_fd = self._init_fd = None

    # -- inside

    def _reap(self, options: int) -> int | None:
        with self._lock:
            if self._code is None:
                pid, status, used = os.wait4(self._child.pid, options)
                if pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = self._child.returncode = code if code >= 0 else _SIGNAL_BASE - code
                    self._entry.spent.add(used.ru_utime + used.ru_stime, used.ru_maxrss)
            return self._code

    def _init_dead(self, patience: float) -> bool:
        if self._init_fd is None:
            return True
        return bool(select.select([self._init_fd], [], [], patience)[0])

    def _told_code(self, status: int, code: int) -> int:
        """Bubblewrap tells the command's own exit code; without that line it failed before the command began."""
        while chunk := os.read(status, 65536):
            self._status_text += chunk
        if code == 0 or code >= _SIGNAL_BASE or b'"exit-code"' in self._status_text:
            return code
        if self._entry.memory_killed():
            return _KILLED
        words = self._last_words.decode("utf-8", "replace").strip()
        if any(line.startswith(_MAKERS) for line in words.splitlines()):
            raise ComputerError(f"the sandbox could not be made: {words}")
        raise ComputerLost(f"the sandbox was ended from outside (exit code {code})")

    def _sweep(self) -> None:
        if self._entry.is_alone(self) and self._entry.group is not None:
            self._entry.group.kill()
        with self._lock:
            if self._code is None:
                hosting.signal_group(self._child.pid, signal.SIGKILL)
        hosting.sweep(lambda: hosting.with_variable(MARKER, self._marker))


def _stdout(data: bytes) -> list[tuple[str, bytes]]:
    return [(STDOUT, data)]


def _held(data: bytes) -> int:
    """The data behind a descriptor, ready to be read from its beginning."""
    fd = os.memfd_create("longshore")
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _child_pid(status: bytes) -> int | None:
    for line in status.splitlines():
        with contextlib.suppress(ValueError):
            return int(json.loads(line).get("child-pid", 0)) or None
    return None
