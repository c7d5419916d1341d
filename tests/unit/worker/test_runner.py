"""From a ticket to a report, and how many computers there are meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from shared.contracts.node import Grant, JobSpec, Outcome, Report
from shared.errors import Unavailable
from shared.queue.consumer import AttemptFailed, TicketRefused
from shared.queue.tickets import RunTicket
from worker.attempts import Attempt, Attempts, Stop
from worker.computer.contract import ComputerError, ComputerSpec, DriverUnavailable
from worker.jobs.computers import Computers
from worker.jobs.ending import Ending
from worker.jobs.runner import Runner
from worker.uplink import OnGrant, OnVerdict, Verdict

SUCCESS = Ending(Outcome.succeeded, result="x")


class Computer:
    """Remembers when it was removed."""

    def __init__(self, driver: Driver, spec: ComputerSpec) -> None:
        self.spec = spec
        self.killed = threading.Event()
        self._driver = driver

    def kill_all(self) -> None:
        self.killed.set()

    def destroy(self) -> None:
        if self._driver.failures:
            self._driver.failures -= 1
            raise DriverUnavailable("the daemon is away")
        assert self._driver.may_remove.wait(10)
        self._driver.living.remove(self.spec.id)
        self._driver.log.append(f"removed {self.spec.id}")


class Driver:
    """Makes computers that do nothing."""

    name = "fake"

    def __init__(self) -> None:
        self.living: list[str] = []
        self.most = 0
        self.log: list[str] = []
        self.may_remove = threading.Event()
        self.may_remove.set()
        self.failures = 0
        self.reaped: list[Collection[str]] = []

    def create(self, spec: ComputerSpec) -> Any:
        self.living.append(spec.id)
        self.most = max(self.most, len(self.living))
        return Computer(self, spec)

    def reap(self, keep: Collection[str]) -> Sequence[str]:
        self.reaped.append(set(keep))
        if self.failures:
            raise ComputerError("not now")
        return ()

    def close(self) -> None:
        self.log.append("closed")


class Line:
    """An uplink that grants everything and remembers what it was told."""

    def __init__(self, log: list[str], changed: threading.Condition) -> None:
        self.log = log
        self._changed = changed
        self.reports: dict[str, Report] = {}
        self.kept: list[str] = []
        self.forgotten: list[str] = []
        self.refused: str | None = None
        self.verdict = Verdict.accepted
        self.spec: dict[str, Any] = {}
        self.deadline: float | None = None

    def claim(self, attempt_id: str) -> Grant:
        if self.refused:
            return Grant(attempt_id, refused=self.refused)
        spec = JobSpec("task", "agent", "test").to_json() | {"new": 1} | self.spec
        return Grant(attempt_id, token="t", job_id="j", number=2, spec=spec, deadline_in_seconds=self.deadline)

    def claim_then(self, attempt_id: str, on_grant: OnGrant) -> None:
        on_grant(self.claim(attempt_id))

    def keep(self, report: Report) -> None:
        self.kept.append(report.attempt_id)

    def report(self, report: Report) -> Verdict:
        with self._changed:
            self.log.append(f"reported {report.attempt_id}")
            self.reports[report.attempt_id] = report
            self._changed.notify_all()
        return self.verdict

    def hand_in(self, report: Report, on_verdict: OnVerdict | None = None) -> None:
        verdict = self.report(report)
        if on_verdict is not None:
            on_verdict(verdict)

    def forget(self, attempt_id: str) -> None:
        self.forgotten.append(attempt_id)


class Runtime:
    """Runs whatever the test says, in a computer."""

    is_instant = False

    def __init__(self, computers: Computers, changed: threading.Condition) -> None:
        self.computers = computers
        self.begun: set[str] = set()
        self.cleared: list[str] = []
        self._changed = changed
        self.body: Callable[[Attempt], Ending] = lambda _attempt: SUCCESS

    def run(self, attempt: Attempt) -> Ending:
        with self._changed:
            self.begun.add(attempt.id)
            self._changed.notify_all()
        self.computers.rent(attempt, ComputerSpec(id=attempt.id))
        return self.body(attempt)

    def clear(self, attempt: Attempt) -> None:
        self.cleared.append(attempt.id)


class Node:
    """The runner with everything around it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.driver = Driver()
        self.computers = Computers(self.driver, slots=2)  # type: ignore[arg-type]
        self.attempts = Attempts()
        self.line = Line(self.driver.log, self.changed)
        self.runtime = Runtime(self.computers, self.changed)
        self.pool = ThreadPoolExecutor(20)
        self.is_heard = True
        self.runner = Runner(
            line=self.line,
            attempts=self.attempts,
            computers=self.computers,
            runtimes={"test": self.runtime},
            events=lambda: None,
            is_heard=lambda: self.is_heard,
        )

    def run(self, attempt: str) -> None:
        self.runner.run(RunTicket(attempt, "j", 2, "n"), "shown")

    def begin(self, attempt: str) -> Future[None]:
        return self.pool.submit(self.run, attempt)


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.driver.may_remove.set()
    made.pool.shutdown()
    made.computers.close()


def until_stopped(attempt: Attempt) -> Ending:
    assert attempt.stopping.wait(10)
    return Ending(Outcome.failed, "exit_nonzero")


def held(node: Node, attempt: str) -> Attempt:
    """The attempt, once its runtime has it."""
    with node.changed:
        assert node.changed.wait_for(lambda: attempt in node.runtime.begun, 10)
    found = node.attempts.find(attempt)
    assert found is not None
    return found


def test_the_report_goes_out_before_the_computer_is_cleared_away(node: Node) -> None:
    node.run("a1")
    node.computers.close()
    assert node.driver.log[:2] == ["reported a1", "removed a1"]
    assert node.line.reports["a1"].result == "x"


def test_a_refused_claim_starts_nothing(node: Node) -> None:
    node.line.refused = "stale_attempt"
    with pytest.raises(TicketRefused):
        node.run("a1")
    assert (node.driver.log, len(node.attempts)) == ([], 0)


def test_an_attempt_that_is_in_hand_is_not_claimed_again(node: Node) -> None:
    node.runtime.body = until_stopped
    running = node.begin("a1")
    attempt = held(node, "a1")
    with pytest.raises(TicketRefused):
        node.run("a1")
    attempt.stop(Stop.cancel, grace_seconds=0)
    with pytest.raises(AttemptFailed):
        running.result(10)


def test_no_more_computers_run_than_there_are_slots_and_twice_as_many_exist_at_most(node: Node) -> None:
    # Each runs only together with another, so that slots are really used side by side.
    pairs = threading.Barrier(2)
    at_once: list[int] = []
    count = 0
    lock = threading.Lock()

    def body(_attempt: Attempt) -> Ending:
        nonlocal count
        with lock:
            count += 1
            at_once.append(count)
        pairs.wait(10)
        with lock:
            count -= 1
        return SUCCESS

    node.runtime.body = body
    for future in [node.begin(f"a{number}") for number in range(16)]:
        future.result(20)
    assert max(at_once) == 2
    assert node.driver.most <= 4


def test_the_next_job_does_not_wait_for_the_removal_of_the_last(node: Node) -> None:
    node.driver.may_remove.clear()
    for attempt in ("a1", "a2"):
        node.run(attempt)
    node.begin("a3")
    with node.changed:
        assert node.changed.wait_for(lambda: "a3" in node.line.reports, 10)
    assert "removed a1" not in node.driver.log
    node.driver.may_remove.set()


@pytest.mark.parametrize(
    ("reason", "outcome"), [(Stop.cancel, "cancelled"), (Stop.hand_back, "returned"), (Stop.fence, "lost")]
)
def test_what_was_stopped_is_told_once_its_computer_is_gone(node: Node, reason: Stop, outcome: str) -> None:
    node.runtime.body = until_stopped
    running = node.begin("a1")
    held(node, "a1").stop(reason, grace_seconds=0)
    with pytest.raises(AttemptFailed):
        running.result(10)
    assert node.driver.log == ["removed a1", "reported a1"]
    assert node.line.reports["a1"].outcome == outcome


def test_an_exclusive_job_is_told_once_its_computer_is_gone_and_its_result_was_safe_before_that(node: Node) -> None:
    node.line.spec = {"is_exclusive": True}
    node.run("a1")
    assert node.driver.log == ["removed a1", "reported a1"]
    assert node.line.kept == ["a1"]
    assert node.line.reports["a1"].outcome == "succeeded"


def test_a_job_whose_deadline_is_over_is_ended_without_anybodys_word_and_is_not_tried_again(node: Node) -> None:
    node.line.deadline = 0.05
    node.runtime.body = until_stopped
    with pytest.raises(AttemptFailed):
        node.run("a1")
    report = node.line.reports["a1"]
    assert (report.outcome, report.reason_code) == ("failed", "deadline_exceeded")
    assert report.error is not None
    assert report.error["retryable"] is False
    assert node.driver.log == ["removed a1", "reported a1"]


def test_one_that_waits_for_a_slot_ends_at_its_deadline_too(node: Node) -> None:
    node.runtime.body = until_stopped
    running = [node.begin(name) for name in ("a1", "a2")]
    for name in ("a1", "a2"):
        held(node, name)
    node.line.deadline = 0.05
    with pytest.raises(AttemptFailed):
        node.run("a3")
    assert node.line.reports["a3"].reason_code == "deadline_exceeded"
    for name, future in zip(("a1", "a2"), running, strict=True):
        held(node, name).stop(Stop.cancel, grace_seconds=0)
        with pytest.raises(AttemptFailed):
            future.result(10)


def test_what_an_attempt_printed_is_kept_until_its_report_was_answered(node: Node) -> None:
    node.run("a1")
    node.line.verdict = Verdict.unsent
    node.run("a2")
    assert node.runtime.cleared == ["a1"]


def test_a_driver_that_is_away_is_waited_for_before_it_is_said_that_the_computer_is_gone(node: Node) -> None:
    node.driver.failures = 2
    node.runtime.body = until_stopped
    running = node.begin("a1")
    held(node, "a1").stop(Stop.cancel, grace_seconds=0)
    with pytest.raises(AttemptFailed):
        running.result(10)
    assert node.driver.log == ["removed a1", "reported a1"]


def test_of_an_attempt_that_is_not_ours_nothing_is_said(node: Node) -> None:
    node.runtime.body = until_stopped
    running = node.begin("a1")
    held(node, "a1").stop(Stop.kill, grace_seconds=0)
    with pytest.raises(AttemptFailed):
        running.result(10)
    assert (node.line.reports, node.line.forgotten) == ({}, ["a1"])
    assert node.driver.living == []


def test_a_job_that_succeeded_before_the_node_stopped_has_succeeded_and_a_cancelled_one_is_cancelled(
    node: Node,
) -> None:
    def end_well(attempt: Attempt) -> Ending:
        assert attempt.stopping.wait(10)
        return SUCCESS

    node.runtime.body = end_well
    handed_back, cancelled = node.begin("a1"), node.begin("a2")
    held(node, "a1").stop(Stop.hand_back, grace_seconds=0)
    held(node, "a2").stop(Stop.cancel, grace_seconds=0)
    handed_back.result(10)
    with pytest.raises(AttemptFailed):
        cancelled.result(10)
    assert [node.line.reports[name].outcome for name in ("a1", "a2")] == ["succeeded", "cancelled"]


def test_one_that_waits_for_a_slot_can_be_stopped(node: Node) -> None:
    node.runtime.body = until_stopped
    running = [node.begin(name) for name in ("a1", "a2")]
    first = [held(node, name) for name in ("a1", "a2")]
    waiting = node.begin("a3")
    held(node, "a3").stop(Stop.cancel, grace_seconds=0)
    node.computers.wake()
    with pytest.raises(AttemptFailed):
        waiting.result(10)
    assert node.line.reports["a3"].outcome == "cancelled"
    for attempt in first:
        attempt.stop(Stop.cancel, grace_seconds=0)
    for future in running:
        with pytest.raises(AttemptFailed):
            future.result(10)


def test_a_shorter_grace_than_the_jobs_own_ends_in_a_kill(node: Node) -> None:
    seen = threading.Event()

    def body(attempt: Attempt) -> Ending:
        computer: Any = node.computers._rented[attempt.id]
        assert computer.killed.wait(10)
        seen.set()
        return Ending(Outcome.failed, "exit_nonzero")

    node.runtime.body = body
    running = node.begin("a1")
    held(node, "a1").stop(Stop.fence, grace_seconds=0.01)
    with pytest.raises(AttemptFailed):
        running.result(10)
    assert seen.is_set()


def test_a_stronger_reason_wins_and_a_weaker_one_changes_nothing() -> None:
    attempt = Attempt(attempt_id="a", job_id="j", number=1, token="t", spec=JobSpec("task", "agent", "test"))
    for reason in (Stop.hand_back, Stop.kill, Stop.cancel):
        attempt.stop(reason, grace_seconds=5)
    assert attempt.stop_reason is Stop.kill


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (RuntimeError("a fault of ours"), "lost", "node_error"),
        (Unavailable("away"), "lost", "unavailable"),
    ],
)
def test_whatever_goes_wrong_there_is_a_report_and_a_free_slot(
    node: Node, error: Exception, outcome: str, reason: str
) -> None:
    def body(_attempt: Attempt) -> Ending:
        raise error

    node.runtime.body = body
    with pytest.raises(AttemptFailed):
        node.run("a1")
    assert (node.line.reports["a1"].outcome, node.line.reports["a1"].reason_code) == (outcome, reason)
    assert (node.computers.used, len(node.attempts)) == (0, 0)


def test_a_result_is_on_the_disk_while_its_last_log_lines_wait(node: Node) -> None:
    class Slow:
        asked = 0

        def finish(self, timeout: float) -> bool:
            self.asked += 1
            assert (self.asked == 1) == (not node.line.kept)
            assert not node.line.reports
            return self.asked == 3

    def body(attempt: Attempt) -> Ending:
        attempt.lines = Slow()
        return SUCCESS

    node.runtime.body = body
    node.run("a1")
    assert node.line.kept == ["a1"]
    assert node.line.reports["a1"].outcome == "succeeded"


def test_a_claim_under_way_when_the_node_stops_is_handed_back(node: Node) -> None:
    node.attempts.stop_new(Stop.hand_back)
    node.runtime.body = until_stopped
    with pytest.raises(AttemptFailed):
        node.run("a1")
    assert node.line.reports["a1"].outcome == "returned"


def test_a_light_ticket_keeps_no_thread_waiting(node: Node) -> None:
    go_on = threading.Event()

    def wait(attempt: Attempt) -> Ending:
        assert go_on.wait(10)
        return SUCCESS

    node.runtime.body = wait
    node.runner.run(RunTicket("a1", "j", 1, "n", takes_slot=False), "shown")
    assert held(node, "a1").phase == "running"
    go_on.set()
    assert node.attempts.wait_empty(10)
    assert node.line.reports["a1"].outcome == "succeeded"


def test_a_light_ticket_that_is_refused_leaves_nothing_in_hand(node: Node) -> None:
    node.line.refused = "stale_attempt"
    node.runner.run(RunTicket("a1", "j", 1, "n", takes_slot=False), "shown")
    assert node.attempts.wait_empty(0)


def test_a_light_ticket_of_an_unknown_runtime_is_told(node: Node) -> None:
    node.runner._runtimes = {}
    node.runner.run(RunTicket("a1", "j", 1, "n", takes_slot=False), "shown")
    assert node.line.reports["a1"].reason_code == "runtime_unknown"


def test_the_reaper_spares_what_is_in_use(node: Node) -> None:
    node.runtime.body = until_stopped
    running = node.begin("a1")
    attempt = held(node, "a1")
    node.computers.reap({"claimed"})
    assert node.driver.reaped == [{"claimed", "a1"}]
    attempt.stop(Stop.cancel, grace_seconds=0)
    with pytest.raises(AttemptFailed):
        running.result(10)
