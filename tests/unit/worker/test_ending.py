"""How what was seen is told."""

from __future__ import annotations

import pytest

from shared.contracts.node import Outcome
from shared.errors import Invalid, LongshoreError, Unavailable
from worker.attempts import Stop
from worker.computer.contract import (
    Collected,
    ComputerError,
    ComputerLost,
    DriverUnavailable,
    ExecEnd,
    ExecResult,
    ImageMissing,
    IsolationTooWeak,
    LimitTooHigh,
)
from worker.jobs.artifacts import read_result
from worker.jobs.ending import of_error, of_exec, of_stop


def exec_result(end: ExecEnd = ExecEnd.exited, exit_code: int | None = 0, *, oom: bool = False) -> ExecResult:
    return ExecResult(end=end, exit_code=exit_code, oom=oom, duration_ms=5)


@pytest.mark.parametrize(
    ("told", "outcome", "reason", "retryable"),
    [
        (exec_result(exit_code=7), Outcome.failed, "exit_nonzero", True),
        (exec_result(exit_code=137, oom=True), Outcome.failed, "out_of_memory", True),
        (exec_result(exit_code=0, oom=True), Outcome.failed, "out_of_memory", True),
        (exec_result(ExecEnd.timeout, None), Outcome.failed, "timeout", True),
        (exec_result(ExecEnd.output_limit, None), Outcome.failed, "output_limit", False),
        (exec_result(ExecEnd.disk_limit, None), Outcome.failed, "disk_limit", False),
        (exec_result(ExecEnd.lost, None), Outcome.lost, "computer_lost", True),
    ],
)
def test_a_command_that_did_not_end_well(told: ExecResult, outcome: Outcome, reason: str, retryable: bool) -> None:
    ending = of_exec(told, timeout_seconds=5, memory_mb=64)
    assert ending is not None
    assert ending.error is not None
    assert (ending.outcome, ending.reason_code, ending.error["retryable"]) == (outcome, reason, retryable)
    assert ending.error["code"] == reason.upper()


def test_a_command_that_ended_well_has_no_bad_ending() -> None:
    assert of_exec(exec_result(), timeout_seconds=5, memory_mb=64) is None


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (ComputerLost("gone"), Outcome.lost, "computer_lost"),
        (DriverUnavailable("down"), Outcome.lost, "driver_unavailable"),
        (ImageMissing("which"), Outcome.lost, "image_missing"),
        (ComputerError("odd"), Outcome.lost, "computer_error"),
        (Unavailable("away"), Outcome.lost, "unavailable"),
        (IsolationTooWeak("weak"), Outcome.failed, "isolation_too_weak"),
        (LimitTooHigh("much"), Outcome.failed, "limit_too_high"),
        (Invalid("bad"), Outcome.failed, "validation_error"),
    ],
)
def test_what_broke_below_a_job_is_not_its_fault_and_what_it_asked_for_is(
    error: LongshoreError, outcome: Outcome, reason: str
) -> None:
    ending = of_error(error)
    assert (ending.outcome, ending.reason_code) == (outcome, reason)


def test_each_reason_to_stop_has_its_own_end() -> None:
    assert [of_stop(reason).outcome for reason in (Stop.cancel, Stop.hand_back, Stop.fence)] == [
        Outcome.cancelled,
        Outcome.returned,
        Outcome.lost,
    ]


def collected(result: bytes | None) -> Collected:
    return Collected(result=result, artifacts=())


def test_a_result_file_wins_over_what_was_printed() -> None:
    assert read_result(collected(b'{"a": [1, null]}'), b"printed").value == {"a": [1, None]}
    assert read_result(collected(b"null"), b"printed").value is None


def test_what_was_printed_loses_one_line_end_and_what_no_database_takes() -> None:
    assert read_result(collected(None), b"a\x00b\xff\n\n").value == "ab\ufffd\n"


@pytest.mark.parametrize("content", [b"", b"{", b"NaN", b'"\\ud800"', b"\xff"])
def test_a_result_file_that_is_no_json_is_a_problem_and_not_a_result(content: bytes) -> None:
    read = read_result(collected(content), b"")
    assert read.value is None
    assert read.problem is not None
