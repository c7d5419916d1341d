"""From a ticket to an accepted report: claim, run by the runtime that the job names, report, clear away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import structlog

from shared.contracts.node import Grant, JobSpec, Outcome, Report
from shared.errors import LongshoreError
from shared.queue.consumer import AttemptFailed, TicketRefused
from shared.queue.events import TaskEvents
from shared.queue.tickets import RunTicket
from worker.attempts import Attempt, Attempts, Stop, Stopped
from worker.jobs.computers import Computers
from worker.jobs.ending import Ending, lost, of_error, of_stop
from worker.uplink import OnGrant, OnVerdict, Verdict

_LINES_AT_ONCE = 0.25
_LINES_STEP = 1.0
_LINES_WHEN_STOPPED = 2.0
_LINES_PATIENCE = 30.0
"""Seconds for which a report waits for the last log lines, beside the time that the coordinator is away."""

log = structlog.get_logger(__name__)


class Runtime(Protocol):
    """How one kind of job is run. May raise Stopped and our errors; leaves its computer to the runner."""

    is_instant: bool
    """Whether `run` computes a moment and waits for nothing."""

    def run(self, attempt: Attempt) -> Ending: ...

    def clear(self, attempt: Attempt) -> None:
        """The attempt is reported, or not ours any more: nothing of it needs to be kept."""


Run = Callable[[Attempt], Ending]
Onlookers = Callable[[], TaskEvents | None]


class Line(Protocol):
    """What the runner needs of the uplink."""

    def claim(self, attempt_id: str) -> Grant: ...

    def claim_then(self, attempt_id: str, on_grant: OnGrant) -> None: ...

    def keep(self, report: Report) -> None: ...

    def report(self, report: Report) -> Verdict: ...

    def hand_in(self, report: Report, on_verdict: OnVerdict | None = None) -> object: ...

    def forget(self, attempt_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Taken:
    """A ticket that was taken from the queue."""

    ticket: RunTicket
    shown: str
    received_at: float
    events: TaskEvents | None


class Runner:
    """Runs one ticket on the calling thread. The report goes out before the computer is cleared away, except where it
    says that the computer is gone: `cancelled`, `returned` and a fenced `lost` wait for that."""

    def __init__(
        self,
        *,
        line: Line,
        attempts: Attempts,
        computers: Computers,
        runtimes: Mapping[str, Runtime],
        events: Callable[[], TaskEvents | None],
        is_heard: Callable[[], bool],
        threads: int = 1,
    ) -> None:
        self._line = line
        self._attempts = attempts
        self._computers = computers
        self._runtimes = runtimes
        self._events = events
        self._is_heard = is_heard
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="light")

    def run(self, ticket: RunTicket, shown: str) -> None:
        """Raises TicketRefused when the attempt is not ours to run, AttemptFailed when it did not succeed.

        A light ticket is only begun here. Handing a thread the answer to its claim costs more than an instant job.
        """
        if not self._attempts.expect(ticket.attempt):
            raise TicketRefused("it is in hand already")
        taken = _Taken(ticket, shown, time.time(), self._events())
        if not ticket.takes_slot:
            self._line.claim_then(ticket.attempt, lambda grant: self._go_on(taken, grant))
            return
        attempt = self._granted(taken, self._line.claim(ticket.attempt))
        if attempt is None:
            raise TicketRefused("the claim was refused")
        self._hold(attempt, lambda: taken.events, self._runtime_of(attempt))

    def resume(self, attempt: Attempt, run: Run) -> None:
        """Go on with an attempt that an earlier daemon began; its slot is reserved. Returns at once."""
        attempt.watch_deadline(self._on_deadline)
        # Who looks on gets to know the broker only later, so they are asked for at the end.
        words = (attempt, self._events, run)
        threading.Thread(target=self._hold_quietly, args=words, name="resumed", daemon=True).start()

    def close(self) -> None:
        """Wait for the light jobs that were not instant."""
        self._pool.shutdown(wait=True)

    def _go_on(self, taken: _Taken, grant: Grant) -> None:
        attempt = self._granted(taken, grant)
        if attempt is None:
            return
        runtime = self._runtimes.get(attempt.spec.runtime)
        if runtime is None or runtime.is_instant:
            self._hold_quietly(attempt, lambda: taken.events, self._runtime_of(attempt))
        else:
            self._pool.submit(self._hold_quietly, attempt, lambda: taken.events, self._runtime_of(attempt))

    def _hold_quietly(self, attempt: Attempt, events: Onlookers, run: Run) -> None:
        # No Celery task waits for this end any more; everybody who wants to know has been told.
        with contextlib.suppress(AttemptFailed):
            self._hold(attempt, events, run)

    def _granted(self, taken: _Taken, grant: Grant) -> Attempt | None:
        """The attempt, now in hand; None when it was refused."""
        ticket, events = taken.ticket, taken.events
        spec = _spec(grant)
        if grant.refused is not None or grant.token is None or spec is None:
            log.info("claim_refused", attempt=ticket.attempt, reason=grant.refused)
            self._attempts.remove(ticket.attempt)
            if events is not None:
                events.rejected(ticket.attempt, args=taken.shown)
            return None
        attempt = Attempt(
            attempt_id=ticket.attempt,
            job_id=grant.job_id or ticket.job,
            number=grant.number or ticket.number,
            token=grant.token,
            spec=spec,
            deadline=_moment(grant.deadline_in_seconds),
        )
        self._attempts.add(attempt)
        attempt.watch_deadline(self._on_deadline)
        if events is not None:
            events.started(attempt.id, args=taken.shown, received_at=taken.received_at)
        return attempt

    def _on_deadline(self, attempt: Attempt) -> None:
        attempt.stop(Stop.deadline, grace_seconds=attempt.spec.cancel_grace_seconds)
        self._computers.wake()

    def _hold(self, attempt: Attempt, events: Onlookers, run: Run) -> None:
        ending = self._run(attempt, run)
        if self._computers.holds(attempt) or attempt.stop_reason is not None:
            verdict = self._finish(attempt, ending)
            self._let_go(attempt, ending, verdict, events)
        else:
            # Nothing is left to clear away, so nobody needs to wait for the answer: waiting costs as much as the rest.
            attempt.phase = "reporting"
            self._line.hand_in(ending.report(attempt), lambda told: self._let_go(attempt, ending, told, events))
            verdict = Verdict.accepted
        if ending.outcome is not Outcome.succeeded or verdict is Verdict.stale:
            raise AttemptFailed(_described(ending, verdict))

    def _let_go(self, attempt: Attempt, ending: Ending, verdict: Verdict, events: Onlookers) -> None:
        runtime = self._runtimes.get(attempt.spec.runtime)
        if runtime is not None and verdict is not Verdict.unsent:
            runtime.clear(attempt)
        self._attempts.remove(attempt.id)
        self._tell(attempt, ending, verdict, events())

    def _run(self, attempt: Attempt, run: Run) -> Ending:
        """The attempt's end, whatever happens. What is not foreseen is ours, not the job's."""
        attempt.phase = "running"
        try:
            ending = run(attempt)
        except Stopped:
            ending = of_stop(attempt.stop_reason or Stop.kill)
        except LongshoreError as error:
            log.warning("attempt_broken", attempt=attempt.id, job=attempt.job_id, code=error.code, error=error.message)
            ending = of_error(error)
        except Exception as error:
            # The edge: an attempt ends with a report whatever we did wrong.
            log.exception("attempt_crashed", attempt=attempt.id, job=attempt.job_id)
            ending = lost("node_error", f"the node failed: {type(error).__name__}")
        return _stopped_or(ending, attempt.stop_reason)

    def _runtime_of(self, attempt: Attempt) -> Run:
        name = attempt.spec.runtime

        def unknown(_attempt: Attempt) -> Ending:
            raise _UnknownRuntime(f"this node cannot run {name!r}; it knows {', '.join(sorted(self._runtimes))}")

        runtime = self._runtimes.get(name)
        return unknown if runtime is None else runtime.run

    def _finish(self, attempt: Attempt, ending: Ending) -> Verdict:
        try:
            return self._report(attempt, ending)
        finally:
            self._computers.clear_away(attempt)

    def _report(self, attempt: Attempt, ending: Ending) -> Verdict:
        report = ending.report(attempt)
        attempt.phase = "removing"
        if attempt.stop_reason is not None:
            self._computers.remove(attempt)
        elif attempt.spec.is_exclusive:
            # Its result would go with this process otherwise: nobody could fetch it a second time.
            self._line.keep(report)
            self._computers.remove(attempt)
        attempt.phase = "reporting"
        if attempt.stop_reason is Stop.kill:
            self._line.forget(attempt.id)
            return Verdict.stale
        self._send_lines_first(attempt, report)
        return self._line.report(report)

    def _send_lines_first(self, attempt: Attempt, report: Report) -> None:
        """After the report nobody takes log lines of this attempt, so they go first; the report waits on the disk."""
        if attempt.lines is None or attempt.lines.finish(_LINES_AT_ONCE):
            return
        self._line.keep(report)
        self.send_last_lines(attempt)

    def send_last_lines(self, attempt: Attempt) -> None:
        """Give the lines that are not sent yet some time; they get no other."""
        if attempt.lines is None:
            return
        patience = _LINES_WHEN_STOPPED if attempt.stopping.is_set() else _LINES_PATIENCE
        while patience > 0 and not attempt.lines.finish(_LINES_STEP):
            # While the coordinator is away the report could not get through either.
            if self._is_heard() or attempt.stopping.is_set():
                patience -= _LINES_STEP

    def _tell(self, attempt: Attempt, ending: Ending, verdict: Verdict, events: TaskEvents | None) -> None:
        runtime = time.monotonic() - attempt.since
        if ending.outcome is not Outcome.succeeded or verdict is not Verdict.accepted:
            log.info(
                "attempt_ended",
                attempt=attempt.id,
                job=attempt.job_id,
                outcome=str(ending.outcome),
                reason=ending.reason_code,
                verdict=str(verdict),
                seconds=round(runtime, 3),
            )
        if events is None:
            return
        if ending.outcome is Outcome.succeeded and verdict is not Verdict.stale:
            events.succeeded(attempt.id, runtime=runtime)
        elif ending.outcome is Outcome.cancelled:
            events.revoked(attempt.id)
        else:
            events.failed(attempt.id, exception=_described(ending, verdict), runtime=runtime)


def _stopped_or(ending: Ending, reason: Stop | None) -> Ending:
    """A job that succeeded before our own wish to stop reached it has succeeded; other people's wishes count first."""
    if reason is None or (ending.outcome is Outcome.succeeded and reason in (Stop.hand_back, Stop.fence)):
        return ending
    return of_stop(reason)


def _moment(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _spec(grant: Grant) -> JobSpec | None:
    try:
        return None if grant.spec is None else JobSpec.from_json(grant.spec)
    except TypeError as error:
        # A field that every protocol version had is missing. The claim stands, so its lease will end it.
        log.error("spec_not_understood", attempt=grant.attempt_id, error=str(error))
        return None


class _UnknownRuntime(LongshoreError):
    """A newer coordinator names a runtime that this node does not have."""

    code, status = "RUNTIME_UNKNOWN", 422


def _described(ending: Ending, verdict: Verdict) -> str:
    if verdict is Verdict.stale:
        return "the coordinator had given it up"
    message = str((ending.error or {}).get("message", ""))
    return f"{ending.outcome}: {message or ending.reason_code or ''}"
