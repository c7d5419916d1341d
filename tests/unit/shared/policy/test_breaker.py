"""When a breaker opens, is tried and closes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy.breaker import (
    BREAKER,
    BUCKETS,
    Breaker,
    BreakerState,
    Charge,
    Thresholds,
    charge,
    force,
    half_open,
    recovery_seconds,
    reset,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NUMBERS = Thresholds(failure_threshold=3, window_seconds=120, recovery_timeout_seconds=60, success_threshold=2)
CAP = 600.0
DRAWS = st.floats(0, 1, exclude_max=True)


def fresh(**facts: object) -> Breaker:
    return Breaker("llm:openai/gpt", NUMBERS, **facts)  # type: ignore[arg-type]


def failed(breaker: Breaker, *, recent: int = 1, attempt: str = "a", now: datetime = NOW, draw: float = 0.0) -> Breaker:
    told = Charge(breaker.name, attempt, {"message": "429 from the provider"})
    return charge(breaker, told, recent=recent, now=now, draw=draw, cap_seconds=CAP)


def worked(breaker: Breaker, *, attempt: str = "a", now: datetime = NOW) -> Breaker:
    return charge(breaker, Charge(breaker.name, attempt), recent=0, now=now, draw=0.0, cap_seconds=CAP)


def opened() -> Breaker:
    return failed(fresh(), recent=3)


def tried(breaker: Breaker, attempt: str = "probe") -> Breaker:
    """The breaker with its recovery time over and a probe on its way."""
    assert breaker.probe_from is not None
    found = half_open(breaker, breaker.probe_from)
    assert found is not None
    return found.with_(probe_attempt_id=attempt)


def test_it_opens_with_the_failure_that_reaches_the_threshold_and_not_before() -> None:
    assert failed(fresh(), recent=2).state is BreakerState.closed
    now = failed(fresh(), recent=3)
    assert (now.state, now.opened_at, now.probe_from) == (BreakerState.open, NOW, NOW + timedelta(seconds=60))
    assert now.cause == "3 failures within 120 s, the last one: 429 from the provider"


def test_successes_never_open_it() -> None:
    assert worked(fresh(total_failures=99)).state is BreakerState.closed


def test_open_it_counts_and_stays_as_it_is() -> None:
    later = failed(worked(opened()), recent=99, now=NOW + timedelta(seconds=5))
    assert (later.state, later.probe_from, later.total_failures) == (BreakerState.open, opened().probe_from, 2)


def test_it_is_half_open_when_the_recovery_time_is_over_and_not_before() -> None:
    assert half_open(opened(), NOW + timedelta(seconds=59)) is None
    now = half_open(opened(), NOW + timedelta(seconds=60))
    assert now is not None
    assert (now.state, now.probe_attempt_id) == (BreakerState.half_open, None)


def test_it_closes_after_as_many_probes_as_it_asks_for() -> None:
    once = worked(tried(opened()), attempt="probe")
    assert (once.state, once.probes_succeeded, once.probe_attempt_id) == (BreakerState.half_open, 1, None)
    twice = worked(once.with_(probe_attempt_id="another"), attempt="another")
    assert (twice.state, twice.opened_at, twice.probe_from) == (BreakerState.closed, None, None)
    assert twice.cause == "it worked 2 times in a row"


def test_only_the_probe_speaks_for_it_while_it_is_half_open() -> None:
    now = worked(tried(opened(), "probe"), attempt="one that began before")
    assert (now.probes_succeeded, now.probe_attempt_id) == (0, "probe")


def test_any_failure_while_half_open_opens_it_for_twice_as_long() -> None:
    moment = NOW + timedelta(seconds=60)
    again = failed(worked(tried(opened()), attempt="probe"), now=moment)
    assert (again.state, again.times_reopened, again.probes_succeeded) == (BreakerState.open, 1, 0)
    assert again.probe_from == moment + timedelta(seconds=120)
    third = failed(tried(again), now=moment)
    assert third.probe_from == moment + timedelta(seconds=240)


def test_having_closed_it_begins_with_the_first_recovery_time_again() -> None:
    again = failed(tried(opened()), attempt="probe")
    closed = again
    for _ in range(2):
        closed = worked(
            tried(closed) if closed.state is BreakerState.open else closed.with_(probe_attempt_id="probe"),
            attempt="probe",
        )
    assert (closed.state, closed.times_reopened) == (BreakerState.closed, 0)
    assert failed(closed, recent=3).probe_from == NOW + timedelta(seconds=60)


@pytest.mark.parametrize("state", [BreakerState.open, BreakerState.closed])
def test_what_was_forced_stays_whatever_happens(state: BreakerState) -> None:
    forced = force(fresh(), state, cause="by hand", now=NOW)
    after = failed(worked(worked(forced)), recent=99)
    assert (after.state, after.forced, after.cause) == (state, True, "by hand")
    assert half_open(after, NOW + timedelta(days=365)) is None
    assert (after.total_successes, after.total_failures) == (2, 1)


def test_forcing_open_what_is_open_keeps_the_moment_since_when() -> None:
    assert force(opened(), BreakerState.open, cause="", now=NOW + timedelta(hours=1)).opened_at == NOW


def test_a_reset_clears_everything_but_the_numbers() -> None:
    found = reset(force(failed(opened()), BreakerState.open, cause="", now=NOW), cause="by hand")
    assert found == Breaker(found.name, NUMBERS, cause="by hand")


@given(times=st.integers(0, 1000), draw=DRAWS, first=st.floats(0.001, 86400))
def test_the_wait_doubles_with_a_little_jitter_up_to_the_cap(times: int, draw: float, first: float) -> None:
    numbers = Thresholds(recovery_timeout_seconds=first)
    wait = recovery_seconds(numbers, times, draw=draw, cap_seconds=CAP)
    longest = max(CAP, first)
    assert min(longest, first * 2**times) <= wait <= longest
    assert times > 0 or wait == first


@given(window=st.floats(0.1, 86400), offset=st.floats(0, 86400), age=st.floats(0, 2), start=st.floats(0, 2**31))
def test_a_failure_counts_for_nine_tenths_of_the_window_at_least_and_never_longer_than_the_window(
    window: float, offset: float, age: float, start: float
) -> None:
    numbers = Thresholds(window_seconds=window)
    then = datetime.fromtimestamp(start + offset, UTC)
    now = then + timedelta(seconds=age * window)
    counts = numbers.bucket(then) >= numbers.oldest_bucket(now)
    passed = (now - then).total_seconds() / window
    if passed < 1 - 1 / BUCKETS - 1e-3:
        assert counts
    if passed > 1 + 1e-3:
        assert not counts


_STEPS = st.lists(st.tuples(st.sampled_from(["fail", "work", "probe", "wait"]), st.floats(0, 300)), max_size=60)


@given(steps=_STEPS, draw=DRAWS)
def test_whatever_happens_its_moves_are_allowed_and_its_row_makes_sense(
    steps: list[tuple[str, float]], draw: float
) -> None:
    breaker, now, recent = fresh(), NOW, 0
    for what, seconds in steps:
        before, now = breaker, now + timedelta(seconds=seconds)
        if what == "fail":
            recent += 1
            breaker = failed(breaker, recent=recent, now=now, draw=draw)
        elif what == "work":
            breaker = worked(breaker, now=now)
        elif what == "probe" and breaker.state is BreakerState.half_open:
            breaker = worked(breaker.with_(probe_attempt_id="p"), attempt="p", now=now)
        else:
            breaker = half_open(breaker, now) or breaker
        if before.state is not breaker.state:
            recent = 0
            BREAKER.require(before.state, breaker.state)
        assert (breaker.opened_at is None) == (breaker.state is BreakerState.closed)
        assert breaker.probes_succeeded < NUMBERS.success_threshold
        if breaker.state is BreakerState.open:
            assert breaker.probe_from is not None
            assert timedelta(seconds=60) <= breaker.probe_from - breaker.opened_at <= timedelta(seconds=CAP)  # type: ignore[operator]


@pytest.mark.parametrize(("good", "bad", "rate"), [(0, 0, 100.0), (3, 1, 75.0), (0, 2, 0.0), (1, 2, 33.33)])
def test_the_success_rate_is_a_percentage(good: int, bad: int, rate: float) -> None:
    assert fresh(total_successes=good, total_failures=bad).success_rate == rate
