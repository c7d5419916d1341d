"""Rules of the queue layer, each of which can be turned off: without any of them the model must find a violation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

from sqlalchemy import select

from coordinator.dispatcher import Dispatcher
from coordinator.domains.queue import decisions, leadership, moves, tokens
from coordinator.domains.queue import sync as sync_module
from coordinator.domains.queue.models import attempts, leaders
from coordinator.domains.queue.states import AttemptState, JobState
from tests.faults.model.focus import Focus
from tests.faults.model.schedule import Playhouse

Mutation = Callable[[Playhouse], AbstractContextManager[None]]
"""Turns a rule off for as long as the block lasts."""

LIVE = (AttemptState.dispatched, AttemptState.running)


@contextmanager
def without_fence(_: Playhouse) -> Iterator[None]:
    """A report counts whatever became of its attempt meanwhile."""

    def report(attempt: Any, job: Any, told: Any, **known: Any) -> Any:
        current = attempt.with_(state=AttemptState.running)
        waiting = job.with_(state=JobState.running, current_attempt_id=attempt.id)
        verdict = judged(current, waiting, told, **known)
        return _on_what_was(verdict, decisions.Accepted, job, attempt)

    judged = decisions.report
    with patch.object(decisions, "report", report), _without_lifecycles():
        yield


@contextmanager
def without_tokens(_: Playhouse) -> Iterator[None]:
    """A report counts whoever sends it."""

    def report(attempt: Any, job: Any, told: Any, **known: Any) -> Any:
        return judged(
            attempt, job, replace(told, token_hash=attempt.token_hash), **(known | {"node_id": attempt.node_id})
        )

    judged = decisions.report
    with patch.object(decisions, "report", report):
        yield


@contextmanager
def without_claim_guard(_: Playhouse) -> Iterator[None]:
    """Whoever asks gets the attempt, as long as it is not over."""

    def claim(attempt: Any, job: Any, by: Any, **known: Any) -> Any:
        if attempt.state not in LIVE:
            return decide(attempt, job, by, **known)
        fresh = attempt.with_(state=AttemptState.dispatched)
        waiting = job.with_(state=JobState.dispatched, current_attempt_id=attempt.id)
        return _on_what_was(decide(fresh, waiting, by, **known), decisions.Granted, job, attempt)

    decide = decisions.claim
    with patch.object(decisions, "claim", claim), _without_lifecycles():
        yield


@contextmanager
def without_nonces(_: Playhouse) -> Iterator[None]:
    """Each claim gets a token of its own, so that one asked again is a stranger's."""
    asked = iter(range(1_000_000_000))

    def token(key: bytes, *, attempt_id: str, epoch: str, nonce: str) -> str:
        return made(key, attempt_id=attempt_id, epoch=epoch, nonce=f"{nonce} {next(asked)}")

    made = tokens.attempt_token
    with patch("coordinator.domains.queue.sync.attempt_token", token):
        yield


@contextmanager
def without_leader_epoch(_: Playhouse) -> Iterator[None]:
    """Who led once writes on as a leader."""

    def require(tx: Any, term: Any, *, also: tuple[Any, ...] = ()) -> Any:
        return tx.conn.execute(select(leaders.c.epoch, *also), {"now": tx.now}).first()

    with patch.object(leadership, "require", require):
        yield


@contextmanager
def without_one_live_index(house: Playhouse) -> Iterator[None]:
    """The database itself does not mind a second live attempt."""
    one_live = next(index for index in attempts.indexes if index.name == "ix_attempts_one_live")
    with house.without_index(one_live):
        yield


@contextmanager
def without_row_locks(_: Playhouse) -> Iterator[None]:
    """Claims and reports are decided on rows that others may change meanwhile."""
    # Guards of the rows would still refuse the second writer, but with an error where there has to be an answer.
    unlocked = sync_module._LOCK_PAIRS._generate()
    unlocked._for_update_arg = None
    with patch.object(sync_module, "_LOCK_PAIRS", unlocked):
        yield


@contextmanager
def without_hold_on_the_lead(_: Playhouse) -> Iterator[None]:
    """Who leads looks once, and may be deposed before it has written."""

    def held(also: Any) -> Any:
        unlocked = hold(also)._generate()
        unlocked._for_update_arg = None
        return unlocked

    hold = leadership._held
    with patch.object(leadership, "_held", held):
        yield


def without_duty(*names: str) -> Mutation:
    """The leader leaves these repairs undone; all of them when none is named."""

    @contextmanager
    def mutation(_: Playhouse) -> Iterator[None]:
        def duties(self: Dispatcher, term: Any) -> list[Any]:
            return [_idle if not names or _name_of(duty) in names else duty for duty in every(self, term)]

        every = Dispatcher._duties
        with patch.object(Dispatcher, "_duties", duties):
            yield

    return mutation


MUTATIONS: dict[str, Mutation] = {
    "reports are not fenced": without_fence,
    "tokens are not looked at": without_tokens,
    "claims are not compared and set": without_claim_guard,
    "a claim asked again is a new one": without_nonces,
    "leaders do not look at their epoch": without_leader_epoch,
    "no index forbids a second live attempt": without_one_live_index,
    "nothing is repaired": without_duty(),
    "tickets are not sent again": without_duty("sweep"),
    "unclaimed attempts are not taken back": without_duty("expire_unclaimed"),
    "leases do not run out": without_duty("lose_expired"),
    "deadlines do not expire": without_duty("expire_overdue"),
}


_CALM = {"is killed": 0.2, "is paused": 0.2, "cut off": 0.2, "deaf": 0.2, "drain": 0.2, "broker is": 0.3}
"""Where nodes come and go there are few requests left that could meet."""


class Overlapping(NamedTuple):
    """What is seen only where transactions overlap, and with which odds soon."""

    mutation: Mutation
    focus: Focus


OVERLAPPING: dict[str, Overlapping] = {
    "rows are not locked": Overlapping(
        without_row_locks,
        # A request that came twice is decided beside itself.
        Focus(_CALM | {"is sent twice": 20.0, "is lost": 0.3, "a client has work": 3.0}, hanging="sync "),
    ),
    "the lead is not held": Overlapping(
        without_hold_on_the_lead,
        # A term runs out, and somebody else leads, while the old leader is about to commit.
        Focus(_CALM | {"time passes": 3.0, "leads or campaigns": 4.0, "places": 3.0}, hanging=r"lead \w+ \w+"),
    ),
}


def _on_what_was(verdict: Any, kind: type[Any], job: Any, attempt: Any) -> Any:
    """The same verdict, its move made from what is really there: the guards of the rows let it through."""
    if not isinstance(verdict, kind) or getattr(verdict, "move", None) is None:
        return verdict
    return replace(verdict, move=replace(verdict.move, before=job, attempt_before=attempt))


def _without_lifecycles() -> AbstractContextManager[Any]:
    stack = ExitStack()
    stack.enter_context(patch.object(moves, "_require_allowed", lambda _move: None))
    return stack


def _idle(_tx: Any) -> int:
    return 0


def _name_of(duty: Any) -> str:
    return str(getattr(duty, "func", duty).__name__)
