"""What running a command means in every computer: environment, caps, quota, memory kills and the final answer."""

from __future__ import annotations

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO

from shared.errors import Invalid
from worker.computer.contract import (
    Adopted,
    ComputerLost,
    ComputerSpec,
    ExecEnd,
    ExecResult,
    InputFile,
    IsolationReport,
    Lifeline,
    OnOutput,
)
from worker.computer.disk import DiskWatch
from worker.computer.output import STDERR, STDOUT, Output
from worker.computer.supervise import Entry, Outcome, OutputSource, Started, Terms, supervise

MARKER = "COMPUTER_EXEC"
"""In the environment of every command, with a fresh value each; finds all that the command started."""

_KILLED = 137


class CommandComputer(ABC):
    """A computer whose driver says how work enters, what the disk holds and what the kernel killed."""

    def __init__(self, spec: ComputerSpec, isolation: IsolationReport, work_dir: str) -> None:
        self.spec = spec
        self.isolation = isolation
        self.work_dir = work_dir

    # -- what a driver adds

    @abstractmethod
    def _entry(self) -> Entry: ...

    @abstractmethod
    def _base_environment(self) -> dict[str, str]: ...

    @abstractmethod
    def _disk_used(self) -> int | None: ...

    @abstractmethod
    def _oom_kills_before(self) -> int | None:
        """How many memory kills there were so far, if that is known without cost."""

    @abstractmethod
    def _oom_kills_after(self, *, suspicious: bool) -> int | None:
        """The same once the command ended; a driver may spend more on the answer when it looks like one."""

    @abstractmethod
    def _after_stop(self) -> None:
        """Called when we ended a command: returns once the killed processes no longer count against the limits."""

    @abstractmethod
    def put_files(self, files: Sequence[InputFile]) -> None: ...

    # -- the contract

    def put(self, path: str, source: BinaryIO | bytes, *, size: int | None = None, mode: int = 0o644) -> None:
        self.put_files([InputFile(path, source, size, mode)])

    def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float | None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        cancel: threading.Event | None = None,
        grace_seconds: float = 0.0,
        max_output_bytes: int = 16 * 1024 * 1024,
        keep_output_bytes: int = 256 * 1024,
        lifeline: Lifeline | None = None,
    ) -> ExecResult:
        check_argv(argv)
        environment = self._environment(env or {})
        output = Output(on_output=on_output, max_bytes=max_output_bytes, keep_bytes=keep_output_bytes)
        oom_before = self._oom_kills_before()
        started = self._start(argv, environment, with_stdin=stdin is not None, lifeline=lifeline)
        if lifeline is not None:
            started.outputs = [_stored(source, lifeline, output) for source in started.outputs]
        return self._watch(started, output, Terms(timeout_seconds, cancel, grace_seconds), oom_before, stdin)

    def resume(
        self,
        adopted: Adopted,
        *,
        timeout_seconds: float | None,
        on_output: OnOutput | None = None,
        cancel: threading.Event | None = None,
        grace_seconds: float = 0.0,
        max_output_bytes: int = 16 * 1024 * 1024,
        keep_output_bytes: int = 256 * 1024,
    ) -> ExecResult:
        output = Output(on_output=on_output, max_bytes=max_output_bytes, keep_bytes=keep_output_bytes)
        started = self._started_before(adopted)
        try:
            (source,) = started.outputs
            for data in adopted.lifeline.replay():
                for stream, chunk in source.decode(data):
                    output.add(stream, chunk)
            started.outputs = [_stored(source, adopted.lifeline, output)]
            # One that ended by itself while nobody watched ended in time, whatever the clock says now.
            limit = timeout_seconds if started.exit_code() in (None, _KILLED) else None
        except BaseException:
            started.close()
            raise
        terms = Terms(limit, cancel, grace_seconds, began=adopted.began)
        return self._watch(started, output, terms, 0, None)

    def _watch(
        self, started: Started, output: Output, terms: Terms, oom_before: int | None, stdin: bytes | None
    ) -> ExecResult:
        with DiskWatch(self._disk_used, self.spec.disk_mb * 1024 * 1024) as watch:
            outcome = supervise(started, output, replace(terms, over_quota=watch.over), stdin)
            watch.look()
        if outcome.end is not ExecEnd.exited:
            self._after_stop()
        end = ExecEnd.disk_limit if watch.over.is_set() and outcome.end is ExecEnd.exited else outcome.end
        return _result(outcome, end, output, oom=self._had_oom(oom_before, outcome))

    def _start(
        self, argv: Sequence[str], environment: Mapping[str, str], *, with_stdin: bool, lifeline: Lifeline | None
    ) -> Started:
        """A driver that adopts also ties the command to its lifeline."""
        return self._entry().start(argv, environment, with_stdin=with_stdin)

    def _started_before(self, adopted: Adopted) -> Started:
        raise ComputerLost("commands of this driver end with the process that started them", computer=self.spec.id)

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        for name, value in extra.items():
            check_variable(name, value)
        return {**self._base_environment(), **extra, "WORK": self.work_dir, MARKER: str(uuid.uuid4())}

    def _had_oom(self, before: int | None, outcome: Outcome) -> bool:
        suspicious = outcome.exit_code == _KILLED and outcome.end is ExecEnd.exited
        after = self._oom_kills_after(suspicious=suspicious)
        return after is not None and after > (before or 0)


def _stored(source: OutputSource, lifeline: Lifeline, output: Output) -> OutputSource:
    """The same source, read by way of the lifeline until a flood begins: what comes then is thrown away."""

    def read(fd: int) -> bytes:
        if output.flooded:
            lifeline.stop()
        return lifeline.pull(fd)

    return replace(source, read=read)


def check_argv(argv: Sequence[str]) -> None:
    if not argv or not argv[0]:
        raise Invalid("a command needs at least one word", field="argv", reason="it is empty")
    if any("\0" in word for word in argv):
        raise Invalid("a command may not contain a NUL", field="argv", reason="it contains a NUL")


def check_variable(name: str, value: str) -> None:
    if not name or "=" in name or "\0" in name or "\0" in value:
        raise Invalid(f"{name[:100]!r} cannot be an environment variable", field="env", reason="bad name or value")


def _result(outcome: Outcome, end: ExecEnd, output: Output, *, oom: bool) -> ExecResult:
    return ExecResult(
        end=end,
        exit_code=outcome.exit_code,
        oom=oom,
        duration_ms=outcome.duration_ms,
        stdout=output.kept(STDOUT),
        stderr=output.kept(STDERR),
        truncated=output.truncated,
    )
