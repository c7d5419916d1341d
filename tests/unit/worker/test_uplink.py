"""How claims and reports reach the coordinator."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.client.errors import Unreachable
from shared.contracts.node import Report, SyncReply
from shared.errors import (
    Conflict,
    Forbidden,
    Invalid,
    LimitReached,
    LongshoreError,
    PayloadTooLarge,
    Unauthenticated,
    Unavailable,
)
from worker.journal import Claimed, Ended, Granted, Journal
from worker.uplink import FAULTS, FULL, MAX_BYTES, Uplink, Verdict


class Coordinator:
    """Grants and accepts everything, after whatever `before` does with the request."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.before: Callable[[dict[str, Any]], None] = lambda _request: None

    def sync(self, body: bytes) -> SyncReply:
        request = json.loads(body)
        self.seen.append(request)
        self.before(request)
        grants = [
            {"attempt_id": item["attempt_id"], "token": "t", "job_id": "j", "spec": {}} for item in request["claims"]
        ]
        return SyncReply(grants=grants, reports={item["attempt_id"]: "accepted" for item in request["reports"]})


class Told:
    """What the uplink told the daemon."""

    def __init__(self) -> None:
        self.void = threading.Event()
        self.refused: list[LongshoreError] = []


@pytest.fixture
def link() -> Coordinator:
    return Coordinator()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.jsonl")
    yield made
    made.close()


@pytest.fixture
def uplink(link: Coordinator, journal: Journal, told: Told) -> Iterator[Uplink]:
    made = Uplink(link, journal, epoch="e1", on_void=told.void.set, on_refused=told.refused.append)
    made.start()
    yield made
    made.close(0)


def report(attempt: str = "a1", **fields: Any) -> Report:
    return Report(**{"attempt_id": attempt, "token": "t", "outcome": "succeeded", **fields})


def ended(attempt: str) -> Ended:
    return Ended(attempt, "t", json.dumps({"attempt_id": attempt}).encode())


def failing(*errors: LongshoreError) -> Callable[[dict[str, Any]], None]:
    left = list(errors)

    def fail(_request: dict[str, Any]) -> None:
        if left:
            raise left.pop(0)

    return fail


def test_a_claim_brings_its_grant(uplink: Uplink, link: Coordinator) -> None:
    assert uplink.claim("a1").token == "t"
    assert link.seen[0]["epoch"] == "e1"


def test_a_claim_is_on_the_disk_before_it_is_asked_for(uplink: Uplink, link: Coordinator, journal: Journal) -> None:
    kept: list[Any] = []
    link.before = lambda _request: kept.extend(journal.left_over())
    uplink.claim("a1")
    assert kept == [Claimed("a1", link.seen[0]["claims"][0]["nonce"])]
    assert journal.left_over() == [Granted("a1", "t", "j")]


def test_a_report_is_on_the_disk_until_it_is_accepted(uplink: Uplink, link: Coordinator, journal: Journal) -> None:
    kept: list[Any] = []
    link.before = lambda _request: kept.extend(journal.left_over())
    assert uplink.report(report()) is Verdict.accepted
    assert [type(entry) for entry in kept] == [Ended]
    assert journal.left_over() == []


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("no"),
        Unavailable("no"),
        LimitReached("no", retry_after_seconds=0.01),
        LongshoreError("no"),
        Conflict("another epoch"),
    ],
)
def test_what_may_pass_is_tried_again_with_the_same_words(
    uplink: Uplink, link: Coordinator, error: LongshoreError
) -> None:
    link.before = failing(error)
    assert uplink.claim("a1").token == "t"
    assert len(link.seen) == 2
    assert link.seen[0] == link.seen[1]


def test_an_unknown_epoch_asks_for_a_heartbeat(uplink: Uplink, link: Coordinator, told: Told) -> None:
    link.before = failing(Conflict("send a heartbeat with this epoch first"))
    uplink.claim("a1")
    assert [error.code for error in told.refused] == ["CONFLICT"]


def test_a_void_credential_ends_everything_and_keeps_the_result(
    uplink: Uplink, link: Coordinator, told: Told, journal: Journal
) -> None:
    link.before = failing(Unauthenticated("removed"))
    assert uplink.report(report()) is Verdict.unsent
    assert told.void.wait(5)
    assert [type(entry) for entry in journal.left_over()] == [Ended]


def test_a_node_that_is_cut_off_has_nothing_to_report(
    uplink: Uplink, link: Coordinator, told: Told, journal: Journal
) -> None:
    link.before = failing(Forbidden("not approved"))
    assert uplink.report(report()) is Verdict.stale
    assert journal.left_over() == []


def test_while_one_request_is_under_way_the_others_gather(uplink: Uplink, link: Coordinator) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold(request: dict[str, Any]) -> None:
        if len(link.seen) == 1:
            entered.set()
            go_on.wait(5)

    link.before = hold
    with ThreadPoolExecutor(FULL + 1) as pool:
        first = pool.submit(uplink.claim, "a0")
        assert entered.wait(5)
        others = [uplink.resend(Ended(f"a{number}", "t", b'{"attempt_id":"a%d"}' % number)) for number in range(FULL)]
        go_on.set()
        assert first.result().token == "t"
        assert {answer.result(5) for answer in others} == {Verdict.accepted}
    assert [len(request["reports"]) for request in link.seen] == [0, FULL]


def test_a_batch_is_no_larger_than_the_coordinator_takes(uplink: Uplink, link: Coordinator) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold(request: dict[str, Any]) -> None:
        if len(link.seen) == 1:
            entered.set()
            go_on.wait(5)

    link.before = hold
    with ThreadPoolExecutor(1) as pool:
        pool.submit(uplink.claim, "a0")
        assert entered.wait(5)
        text = json.dumps({"attempt_id": "big", "result": "x" * (MAX_BYTES // 2)}).encode()
        answers = [uplink.resend(Ended("big", "t", text)) for _ in range(4)]
        go_on.set()
        for answer in answers:
            answer.result(5)
    assert [len(request["reports"]) for request in link.seen] == [0, 1, 1, 1, 1]


def test_a_result_that_the_coordinator_does_not_take_becomes_a_failure_that_says_so(
    uplink: Uplink, link: Coordinator
) -> None:
    link.before = failing(PayloadTooLarge("too big"))
    assert uplink.report(report(result="x" * 100)) is Verdict.accepted
    told = link.seen[-1]["reports"][0]
    assert (told["outcome"], told["reason_code"], told["result"]) == ("failed", "result_refused", None)
    assert told["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_one_bad_item_does_not_take_the_others_with_it(uplink: Uplink, link: Coordinator) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def judge(request: dict[str, Any]) -> None:
        if len(link.seen) == 1:
            entered.set()
            go_on.wait(5)
        if any(item["attempt_id"] == "bad" for item in request["claims"]):
            raise Invalid("what is this")

    link.before = judge
    with ThreadPoolExecutor(4) as pool:
        waits = pool.submit(uplink.claim, "a0")
        assert entered.wait(5)
        bad, good = pool.submit(uplink.claim, "bad"), pool.submit(uplink.claim, "good")
        go_on.set()
        assert bad.result(5).refused == "validation_error"
        assert good.result(5).token == "t"
        assert waits.result(5).token == "t"


def test_an_item_on_which_the_coordinator_fails_again_and_again_lets_others_pass_and_is_kept(
    uplink: Uplink, link: Coordinator
) -> None:
    def fail_on_it(request: dict[str, Any]) -> None:
        if len(link.seen) <= FAULTS * 2 and any(item["attempt_id"] == "ill" for item in request["reports"]):
            raise LongshoreError("internal error")

    link.before = fail_on_it
    with ThreadPoolExecutor(2) as pool:
        ill = pool.submit(uplink.report, report("ill"))
        assert pool.submit(uplink.claim, "well").result(10).token == "t"
        assert ill.result(20) is Verdict.accepted


def test_the_digest_of_a_report_depends_on_what_it_says_alone(uplink: Uplink, link: Coordinator) -> None:
    uplink.report(report(result={"a": 1, "b": 2}, usage={"wall_ms": 1}))
    uplink.report(report(result={"b": 2, "a": 1}, usage={"wall_ms": 2}))
    uplink.report(report(result={"b": 2, "a": 2}))
    digests = [request["reports"][0]["digest"] for request in link.seen]
    assert digests[0] == digests[1] != digests[2]


def test_closing_sends_what_waits_and_takes_no_further_claim(uplink: Uplink, link: Coordinator) -> None:
    answer = uplink.resend(ended("a1"))
    assert uplink.close(5) is True
    assert answer.result(0) is Verdict.accepted
    assert uplink.claim("a2").refused == "node_stopping"


def test_closing_while_the_coordinator_is_away_leaves_the_result_on_the_disk(
    uplink: Uplink, link: Coordinator, journal: Journal
) -> None:
    def away(_request: dict[str, Any]) -> None:
        raise Unreachable("away")

    link.before = away
    answer = uplink.resend(ended("a1"))
    assert uplink.close(0.1) is False
    assert answer.result(0) is Verdict.unsent
    assert uplink.report(report("late")) is Verdict.unsent
    assert [entry.attempt for entry in journal.left_over()] == ["a1", "late"]
