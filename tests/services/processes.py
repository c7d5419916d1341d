"""Child processes of the tests: started with a log, awaited by a signal of readiness, never outliving the tests.

Every child and all it starts carry a mark in their environment. A watch process, one per test process, holds the
other end of a pipe: when the tests end, even by SIGKILL, the pipe closes, and the watch kills whatever has the mark
and removes the scratch directories it was told of.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar

import psutil

MARK = "LONGSHORE_TEST_PROCESS"
"""The environment variable; its value names the test process that is to blame, and which of its children."""

T = TypeVar("T")

_OWN_MARK = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
_numbers = count(1)
_POLL_SECONDS = 0.01
_LOG_TAIL = 4000
_watch: subprocess.Popen[bytes] | None = None
_started: list[subprocess.Popen[bytes]] = []


class ChildFailed(AssertionError):
    """A child ended or stayed silent when it should have become ready; the text ends with its log."""


class Child:
    """A started program. Its output is in `log`; `stop` ends it and everything it started."""

    def __init__(self, argv: Sequence[str], process: subprocess.Popen[bytes], *, log: Path, mark: str) -> None:
        self.argv = tuple(argv)
        self.process = process
        self.log = log
        self._mark = mark

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, probe: Callable[[], T | None], *, what: str, seconds: float = 30) -> T:
        """The first true answer of `probe`; fails at once when the child ends, with what it printed."""

        def probe_while_running() -> T | None:
            was_running = self.is_running
            answer = probe()
            if not answer and not was_running:
                raise ChildFailed(self._failure(f"ended with {self.process.returncode} before {what}"))
            return answer

        try:
            return wait_until(probe_while_running, what=what, seconds=seconds)
        except TimeoutError as silence:
            raise ChildFailed(self._failure(str(silence))) from None

    def wait_for_text(self, text: str, *, seconds: float = 30) -> None:
        """Return once the child has printed `text`."""
        self.wait_until(lambda: text in self.output(), what=f"{text!r} in its output", seconds=seconds)

    def wait(self, *, seconds: float = 30) -> int:
        """The exit code, once the child ends by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ChildFailed(self._failure(f"still running after {seconds} s")) from None

    def send(self, number: int) -> None:
        """Send a signal to the child alone."""
        self.process.send_signal(number)

    def send_all(self, number: int) -> None:
        """Send a signal to the child and to all it started."""
        self.send(number)
        for process in self._family():
            # A member may end by itself between being found and being signalled.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self, *, number: int = signal.SIGTERM, seconds: float = 10) -> int:
        """Ask the child to end, then make sure of it and of all it started; returns its exit code."""
        family = self._family()
        if self.is_running:
            self.process.send_signal(number)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        _kill([*family, *self._family()])
        return code

    def kill(self) -> None:
        """End the child and all it started at once, as a power cut would."""
        family = self._family()
        self.process.kill()
        _kill([*family, *self._family()])
        self.process.wait()

    def _family(self) -> list[psutil.Process]:
        """All it started: by descent, and by the mark for those that have left the tree."""
        # Once it has been waited for, its number may be somebody else's: numbers come round again within minutes.
        try:
            children = psutil.Process(self.pid).children(recursive=True) if self.is_running else []
        except psutil.NoSuchProcess:
            children = []
        marked = [process for process in _marked(self._mark) if process.pid != self.pid]
        return [*children, *marked]

    def _failure(self, what: str) -> str:
        return f"{' '.join(self.argv[:3])} …: {what}\n{self.output()[-_LOG_TAIL:]}"


def wait_until(probe: Callable[[], T | None], *, what: str, seconds: float = 30) -> T:
    """The first true answer of `probe`: the one place where tests wait by asking again."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} after {seconds} s")
        time.sleep(_POLL_SECONDS)
    return answer


def start(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
    death_signal: str = "KILL",
) -> Child:
    """Start a program that gets `death_signal` when the calling thread ends, and whose output goes to `log`.

    Call it from the main thread: the kernel ties the signal to the thread that started the child.
    `user` is whom root runs it as; others run it as themselves.
    """
    _ensure_watch()
    mark = f"{_OWN_MARK}.{next(_numbers)}"
    environment = {**(os.environ if env is None else env), MARK: mark}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*_prefix(user, death_signal), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
    _started.append(process)
    return Child(argv, process, log=log, mark=mark)


def scratch_directory(name: str, *, below: Path | None = None) -> Path:
    """A directory that other users may enter, removed when this test process is gone."""
    path = Path(tempfile.mkdtemp(prefix=f"longshore-{name}-", dir=below))
    path.chmod(0o711)
    pipe = _ensure_watch().stdin
    assert pipe is not None
    pipe.write(f"{path}\n".encode())
    pipe.flush()
    return path


def as_user(user: str | None) -> list[str]:
    """The command prefix with which root becomes `user`; nothing for everybody else."""
    if user is None or os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]


def leftovers() -> list[psutil.Process]:
    """Processes that this test process started, directly or not, and that still run."""
    return _marked(_OWN_MARK + ".")


def kill_leftovers() -> list[str]:
    """Kill what still runs and tell what it was."""
    found = leftovers()
    told = [_describe(process) for process in found]
    _kill(found)
    for child in _started:
        child.wait(10)
    return told


def _prefix(user: str | None, death_signal: str) -> list[str]:
    # setpriv replaces itself by the program, so the pid is the program's own. Where it is missing the watch remains.
    if shutil.which("setpriv") is None:
        return as_user(user)
    return [*(as_user(user) or ["setpriv"]), f"--pdeathsig={death_signal}"]


def _marked(mark: str) -> list[psutil.Process]:
    """Living processes with this mark; one that ends in a dot means all children of that test process."""
    found = []
    for process in psutil.process_iter():
        shown = _mark_of(process)
        if shown == mark or (mark.endswith(".") and shown.startswith(mark)):
            found.append(process)
    return found


def _mark_of(process: psutil.Process) -> str:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return str(process.environ().get(MARK, ""))
    except (psutil.Error, OSError):
        return ""


def _kill(processes: Iterable[psutil.Process]) -> None:
    doomed = list({process.pid: process for process in processes}.values())
    for process in doomed:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(doomed, timeout=10)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process.pid)


def _ensure_watch() -> subprocess.Popen[bytes]:
    global _watch
    if _watch is None or _watch.poll() is not None:
        _watch = subprocess.Popen(
            [sys.executable, "-m", "tests.services.processes", _OWN_MARK + "."],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        atexit.register(_dismiss, _watch)
    return _watch


def _dismiss(watch: subprocess.Popen[bytes]) -> None:
    """Let the watch do its work and wait for it, so that the end of the tests means that nothing is left."""
    if watch.stdin is not None:
        watch.stdin.close()
    watch.wait(30)


def _watch_over(mark: str) -> None:
    """Wait for the tests' end of the pipe to close, then kill what carries the mark until nothing does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    directories = sys.stdin.read().splitlines()
    while found := _marked(mark):
        _kill(found)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _watch_over(sys.argv[1])
