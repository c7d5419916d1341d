"""How an attempt ended, as a value: pure decisions from what was seen to what is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.contracts.node import Outcome, Report
from shared.errors import LongshoreError
from worker.attempts import Attempt, Stop
from worker.computer.contract import (
    ComputerError,
    ComputerLost,
    DriverUnavailable,
    ExecEnd,
    ExecResult,
    ImageMissing,
    IsolationTooWeak,
    LimitTooHigh,
)

_BROKEN: Mapping[type[ComputerError], tuple[Outcome, str]] = {
    ComputerLost: (Outcome.lost, "computer_lost"),
    DriverUnavailable: (Outcome.lost, "driver_unavailable"),
    ImageMissing: (Outcome.lost, "image_missing"),
    IsolationTooWeak: (Outcome.failed, "isolation_too_weak"),
    LimitTooHigh: (Outcome.failed, "limit_too_high"),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What becomes a report."""

    outcome: Outcome
    reason_code: str | None = None
    error: Mapping[str, Any] | None = None
    exit_code: int | None = None
    result: Any = None
    usage: Mapping[str, Any] | None = None

    def report(self, attempt: Attempt) -> Report:
        return Report(
            attempt_id=attempt.id,
            token=attempt.token,
            outcome=str(self.outcome),
            exit_code=self.exit_code,
            reason_code=self.reason_code,
            error=dict(self.error) if self.error else None,
            result=self.result,
            usage=dict(self.usage) if self.usage else None,
            computer=dict(attempt.computer) if attempt.computer else None,
        )


def failed(reason_code: str, message: str, *, retryable: bool, exit_code: int | None = None) -> Ending:
    """The job's own fault."""
    error = {"code": reason_code.upper(), "message": message, "retryable": retryable}
    return Ending(Outcome.failed, reason_code, error, exit_code)


def lost(reason_code: str, message: str) -> Ending:
    """Ours: it may run again elsewhere."""
    return Ending(Outcome.lost, reason_code, {"code": reason_code.upper(), "message": message, "retryable": True})


def of_exec(told: ExecResult, *, timeout_seconds: float, memory_mb: int) -> Ending | None:
    """How a command's end is told; None when it ended well."""
    if told.oom:
        return failed(
            "out_of_memory",
            f"the command was ended because it used more than its {memory_mb} MiB of memory",
            retryable=True,
            exit_code=told.exit_code,
        )
    if told.end is ExecEnd.exited:
        if told.exit_code == 0:
            return None
        message = f"the command ended with exit code {told.exit_code}"
        return failed("exit_nonzero", message, retryable=True, exit_code=told.exit_code)
    if told.end is ExecEnd.timeout:
        message = f"the command ran longer than its {timeout_seconds:g} s"
        return failed("timeout", message, retryable=True, exit_code=told.exit_code)
    if told.end is ExecEnd.output_limit:
        return failed("output_limit", "the command printed more than it may", retryable=False, exit_code=told.exit_code)
    if told.end is ExecEnd.disk_limit:
        message = "the command stored more than its disk quota"
        return failed("disk_limit", message, retryable=False, exit_code=told.exit_code)
    return lost("computer_lost", "the computer was lost while the command ran")


def of_error(error: LongshoreError) -> Ending:
    """How an error on the way is told."""
    for kind, (outcome, reason_code) in _BROKEN.items():
        if isinstance(error, kind):
            told = {"code": error.code, "message": error.message, "retryable": outcome is Outcome.lost}
            return Ending(outcome, reason_code, told)
    if isinstance(error, ComputerError):
        return lost("computer_error", error.message)
    told = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return Ending(Outcome.failed if error.status < 500 else Outcome.lost, error.code.lower(), told)


def of_stop(reason: Stop) -> Ending:
    """How an attempt that was told to stop is told, once its computer is gone."""
    if reason is Stop.cancel:
        return Ending(Outcome.cancelled, "cancelled")
    if reason is Stop.deadline:
        return failed("deadline_exceeded", "the job's deadline was over before it had ended", retryable=False)
    if reason is Stop.hand_back:
        return Ending(Outcome.returned, "node_stopping")
    return lost("node_fenced", "the node ended it because it could not reach the coordinator")
