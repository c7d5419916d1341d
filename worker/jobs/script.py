"""Commands and Python scripts: a computer, its inputs, the script, and what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.client.node import NodeFiles
from shared.contracts.node import Outcome
from shared.errors import Invalid
from worker.attempts import Attempt, Stopped
from worker.computer.contract import (
    Collected,
    CollectLimits,
    Computer,
    ComputerSpec,
    DriverUnavailable,
    ExecEnd,
    ExecResult,
    Isolation,
    Network,
)
from worker.computer.output import Output
from worker.jobs.artifacts import hand_in, keep_as_artifact, read_result
from worker.jobs.computers import Computers
from worker.jobs.ending import Ending, failed, of_exec
from worker.jobs.inputs import place_inputs
from worker.jobs.lines import LEVELS, Budget, LineSplitter
from worker.lifelines import Caps, Lifeline, Lifelines, Story
from worker.loglines import AttemptLog, LogShipper

COMMAND = "/bin/sh"
PYTHON = "python3 -u"

_PLACE = (
    'mkdir -p "$WORK/.job" "$WORK/input" "$WORK/artifacts" && cat > "$WORK/.job/script" '
    '&& [ "$(wc -c < "$WORK/.job/script")" -eq "$1" ] '
    '|| {{ echo "the script could not be stored" >&2; exit 126; }}; '
    'exec {interpreter} "$WORK/.job/script" < /dev/null'
)


def starting(interpreter: str, size: int) -> tuple[str, ...]:
    """The command that takes a script of `size` bytes from its stdin and runs it.

    The script is stored before it starts: one call into the computer instead of two, no limit of an argument's length,
    and nothing of the script in the host's list of processes. Its size is told, because a daemon that dies while it
    feeds the script in must not leave the first half of it running.
    """
    return "/bin/sh", "-c", _PLACE.format(interpreter=interpreter), "sh", str(size)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the coordinator takes from a job."""

    max_artifacts: int = 100
    max_artifacts_bytes: int = 500 * 1024 * 1024
    max_file_bytes: int = 100 * 1024 * 1024
    max_result_bytes: int = 1024 * 1024
    max_log_bytes: int = 10 * 1024 * 1024

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Limits:
        """The limits of a heartbeat's reply; what it leaves out stays as it is here."""
        known = {name: int(value) for name, value in told.items() if name in cls.__slots__ and value is not None}
        return cls(**known)

    def collect(self) -> CollectLimits:
        return CollectLimits(
            max_files=self.max_artifacts,
            max_file_bytes=self.max_file_bytes,
            max_total_bytes=self.max_artifacts_bytes,
            max_result_bytes=self.max_result_bytes,
        )


@dataclass(frozen=True, slots=True)
class _Printed:
    """Where the output of a command goes."""

    caps: Caps
    budget: Budget
    splitter: LineSplitter
    lines: AttemptLog


class Script:
    """Runs a job's script with one interpreter."""

    is_instant = False

    def __init__(
        self,
        interpreter: str,
        *,
        computers: Computers,
        files: NodeFiles,
        shipper: LogShipper,
        scratch: Path,
        lifelines: Lifelines,
        limits: Callable[[], Limits],
        max_output_bytes: int,
    ) -> None:
        self._interpreter = interpreter
        self._computers = computers
        self._files = files
        self._shipper = shipper
        self._scratch = scratch
        self._lifelines = lifelines
        self._limits = limits
        self._max_output_bytes = max_output_bytes

    def run(self, attempt: Attempt) -> Ending:
        (self._scratch / attempt.id).mkdir(parents=True)
        attempt.phase = "creating"
        computer = self._computers.rent(attempt, spec_of(attempt, self._computers.driver.name))
        attempt.computer = {
            "driver": self._computers.driver.name,
            "isolation": computer.isolation.kind.name,
            "image": computer.spec.image or self._computers.default_image,
        }
        attempt.check()
        bytes_in = place_inputs(self._files, attempt, computer, self._scratch / attempt.id)
        attempt.check()
        printed = self._listen(attempt, self._caps())
        told = self._exec(
            attempt, computer, printed, self._lifelines.tie(attempt, caps=printed.caps, bytes_in=bytes_in)
        )
        return self._conclude(attempt, computer, told, printed, bytes_in)

    def resume(self, attempt: Attempt, story: Story) -> Ending:
        """Go on where an earlier daemon fell: the command ran on, and what it had printed is read once more."""
        spec = spec_of(attempt, self._computers.driver.name)
        computer = self._computers.adopt(attempt, spec)
        printed = self._listen(attempt, story.caps)
        told = computer.resume(
            self._lifelines.take_up(story).adopted(),
            timeout_seconds=attempt.spec.timeout_seconds,
            on_output=printed.splitter.feed,
            cancel=attempt.stopping,
            grace_seconds=attempt.spec.cancel_grace_seconds,
            max_output_bytes=story.caps.output_bytes,
            keep_output_bytes=story.caps.result_bytes,
        )
        return self._conclude(attempt, computer, told, printed, story.bytes_in)

    def tell_again(self, attempt: Attempt, story: Story) -> None:
        """Send the lines of an attempt whose end is written already; the coordinator leaves out those that it has."""
        printed = self._listen(attempt, story.caps)
        output = Output(on_output=printed.splitter.feed, max_bytes=story.caps.output_bytes, keep_bytes=0)
        for stream, chunk in self._computers.driver.decode(self._lifelines.printed(attempt.id)):
            output.add(stream, chunk)
        printed.splitter.finish()

    def clear(self, attempt: Attempt) -> None:
        self._lifelines.cut(attempt.id)

    def _caps(self) -> Caps:
        limits = self._limits()
        return Caps(self._max_output_bytes, limits.max_result_bytes, limits.max_log_bytes)

    def _listen(self, attempt: Attempt, caps: Caps) -> _Printed:
        attempt.phase = "running"
        attempt.lines = lines = self._shipper.open(attempt)
        budget = Budget(caps.log_bytes)
        return _Printed(caps, budget, LineSplitter(_keeper(lines, budget)), lines)

    def _exec(self, attempt: Attempt, computer: Computer, printed: _Printed, lifeline: Lifeline | None) -> ExecResult:
        script = (attempt.spec.script or "").encode()
        return computer.exec(
            starting(self._interpreter, len(script)),
            timeout_seconds=attempt.spec.timeout_seconds,
            env=environment_of(attempt),
            stdin=script,
            on_output=printed.splitter.feed,
            cancel=attempt.stopping,
            grace_seconds=attempt.spec.cancel_grace_seconds,
            max_output_bytes=printed.caps.output_bytes,
            keep_output_bytes=printed.caps.result_bytes,
            lifeline=lifeline,
        )

    def _conclude(
        self, attempt: Attempt, computer: Computer, told: ExecResult, printed: _Printed, bytes_in: int
    ) -> Ending:
        printed.splitter.finish()
        if told.end is ExecEnd.cancelled:
            raise Stopped
        attempt.phase = "collecting"
        usage = {
            "wall_ms": told.duration_ms,
            "bytes_in": bytes_in,
            "log_bytes": min(printed.budget.used, printed.budget.max_bytes),
            **_used(computer),
        }
        ending, bytes_out = self._collect(attempt, computer, told, printed.lines, self._scratch / attempt.id)
        return replace(ending, usage={**usage, "bytes_out": bytes_out})

    def _collect(
        self, attempt: Attempt, computer: Computer, told: ExecResult, lines: AttemptLog, scratch: Path
    ) -> tuple[Ending, int]:
        """The end, once everything that the job left is handed in: of a failed one too, it helps to see why."""
        bad_end = of_exec(told, timeout_seconds=attempt.spec.timeout_seconds, memory_mb=computer.spec.memory_mb)
        if bad_end is not None and bad_end.outcome is Outcome.lost:
            return bad_end, 0
        out = scratch / "out"
        # An earlier daemon may have fallen in the middle of this.
        shutil.rmtree(out, ignore_errors=True)
        collected = computer.collect(out, self._limits().collect())
        for refusal in collected.refused:
            lines.write("system", "warning", f"not collected: {refusal}")
        bytes_out = hand_in(self._files, attempt, collected.artifacts) + len(collected.result or b"")
        if bad_end is None and collected.result is None and len(told.stdout) >= self._limits().max_result_bytes:
            lines.write("system", "warning", f"the result is the last {len(told.stdout)} bytes of what was printed")
        return bad_end or self._result(attempt, collected, told, scratch), bytes_out

    def _result(self, attempt: Attempt, collected: Collected, told: ExecResult, scratch: Path) -> Ending:
        read = read_result(collected, told.stdout)
        if read.problem is None:
            return Ending(Outcome.succeeded, exit_code=told.exit_code, result=read.value)
        keep_as_artifact(self._files, attempt, collected.result or b"", scratch)
        return failed("result_invalid", read.problem, retryable=True, exit_code=told.exit_code)


def _keeper(lines: AttemptLog, budget: Budget) -> Callable[[str, str], None]:
    """Takes lines until the budget is spent, and says once that it is."""

    def keep(stream: str, line: str) -> None:
        was_spent = budget.is_spent
        if budget.take(line):
            lines.write(stream, LEVELS[stream], line)
        elif not was_spent:
            lines.write("system", "warning", f"truncated: the log is full at {budget.max_bytes} bytes; the job goes on")

    return keep


def environment_of(attempt: Attempt) -> dict[str, str]:
    """What a script finds in its environment; its own names win over the job's."""
    return {
        **attempt.spec.env,
        "JOB_ID": attempt.job_id,
        "ATTEMPT": str(attempt.number),
        "IDEMPOTENCY_KEY": attempt.job_id,
    }


def spec_of(attempt: Attempt, driver: str) -> ComputerSpec:
    """The computer that the job asks for."""
    asked = attempt.spec.computer
    if asked.get("driver") not in (None, "auto", driver):
        raise DriverUnavailable(f"the job asks for {asked['driver']}, this node has {driver}")
    plain = ComputerSpec(id=attempt.id)
    return replace(
        plain,
        image=asked.get("image"),
        min_isolation=_isolation(asked.get("min_isolation")),
        cpus=float(asked.get("cpus") or plain.cpus),
        memory_mb=int(asked.get("memory_mb") or plain.memory_mb),
        pids=int(asked.get("pids") or plain.pids),
        disk_mb=int(asked.get("disk_mb") or plain.disk_mb),
        network=Network(asked.get("network") or "none"),
        labels={"longshore.job": attempt.job_id},
    )


def _isolation(name: str | None) -> Isolation:
    try:
        return Isolation[name or "none"]
    except KeyError:
        raise Invalid(f"there is no isolation {name!r}", field="computer.min_isolation") from None


def _used(computer: Computer) -> dict[str, int | None]:
    usage = computer.usage()
    return {"cpu_ms": usage.cpu_ms, "peak_memory_bytes": usage.peak_memory_bytes}
