"""Limits: counted in Redis and in memory alike, all of them or none, and told truthfully."""

from __future__ import annotations

import random
from typing import Any, Protocol

import pytest
import redis as redis_library

from coordinator.config import Settings
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.limiting_memory import GREATEST_COUNT, MemoryCounter
from coordinator.http.limiting_redis import PREFIX, RedisCounter
from coordinator.http.limiting_rules import Kind, Limit, Verdict, of_caller, of_door, refusing, standing_of
from coordinator.signal_line import SignalLine

NOW = 1_800_000_000.0


class Counter(Protocol):
    """What both kinds of counter are."""

    def count(self, limits: Any, *, lease: str, now: float) -> list[Verdict] | None: ...

    def release(self, limits: Any, *, lease: str) -> None: ...


@pytest.fixture(params=["memory", "redis"])
def counter(request: pytest.FixtureRequest) -> Counter:
    if request.param == "memory":
        return MemoryCounter()
    return RedisCounter(SignalLine(request.getfixturevalue("redis")))


def window(most: int, seconds: float = 60.0, key: str = "w") -> Limit:
    return Limit(key, Kind.WINDOW, most, seconds, "too many")


def bucket(most: int, seconds: float, key: str = "b") -> Limit:
    return Limit(key, Kind.BUCKET, most, seconds, "too fast")


def lease(most: int, seconds: float = 300.0, key: str = "l") -> Limit:
    return Limit(key, Kind.LEASE, most, seconds, "too wide")


def ask(counter: Counter, *limits: Limit, now: float = NOW, id_: str = "x") -> list[Verdict]:
    verdicts = counter.count(limits, lease=id_, now=now)
    assert verdicts is not None
    return verdicts


class TestWindow:
    def test_exactly_as_many_fit_as_it_says(self, counter: Counter) -> None:
        verdicts = [ask(counter, window(3))[0] for _ in range(5)]
        assert [one.wait == 0 for one in verdicts] == [True, True, True, False, False]
        assert [one.remaining for one in verdicts] == [2, 1, 0, 0, 0]

    def test_it_lets_in_again_after_the_time_it_told_and_not_before(self, counter: Counter) -> None:
        for _ in range(3):
            ask(counter, window(3), now=NOW + 10)
        wait = ask(counter, window(3), now=NOW + 10)[0].wait
        assert ask(counter, window(3), now=NOW + 10 + wait - 0.1)[0].wait > 0
        assert ask(counter, window(3), now=NOW + 10 + wait + 0.001)[0].wait == 0

    def test_the_turn_of_a_window_does_not_double_what_fits(self, counter: Counter) -> None:
        for _ in range(10):
            ask(counter, window(10), now=NOW + 59.9)
        fitting = sum(ask(counter, window(10), now=NOW + 60.1)[0].wait == 0 for _ in range(10))
        assert fitting == 0

    def test_after_two_windows_everything_is_forgotten(self, counter: Counter) -> None:
        for _ in range(3):
            ask(counter, window(3))
        assert ask(counter, window(3), now=NOW + 120)[0] == Verdict(2, 0.0, NOW + 180)

    def test_a_clock_that_is_set_back_forgets_nothing(self, counter: Counter) -> None:
        for _ in range(3):
            ask(counter, window(3))
        assert ask(counter, window(3), now=NOW - 3600)[0].wait > 0


class TestBucket:
    def test_a_burst_fits_and_then_one_at_a_time(self, counter: Counter) -> None:
        assert [ask(counter, bucket(3, 4.0))[0].wait for _ in range(4)] == [0, 0, 0, pytest.approx(4.0)]
        assert ask(counter, bucket(3, 4.0), now=NOW + 4)[0].wait == 0
        assert ask(counter, bucket(3, 4.0), now=NOW + 4)[0].wait == pytest.approx(4.0)


class TestLease:
    def test_a_place_is_free_again_when_it_is_given_back(self, counter: Counter) -> None:
        assert ask(counter, lease(2), id_="a")[0].wait == 0
        assert ask(counter, lease(2), id_="b")[0].wait == 0
        assert ask(counter, lease(2), id_="c")[0].wait > 0
        counter.release([lease(2)], lease="a")
        assert ask(counter, lease(2), id_="c")[0].wait == 0

    def test_a_place_that_nobody_gives_back_runs_out(self, counter: Counter) -> None:
        ask(counter, lease(1), id_="a")
        assert ask(counter, lease(1), id_="b", now=NOW + 299)[0].wait > 0
        assert ask(counter, lease(1), id_="b", now=NOW + 301)[0].wait == 0


def test_a_request_that_one_limit_refuses_is_counted_against_none(counter: Counter) -> None:
    ask(counter, lease(1), id_="a")
    for _ in range(5):
        assert ask(counter, window(2), lease(1), id_="b")[1].wait > 0
    assert ask(counter, window(2))[0].remaining == 1


@pytest.mark.parametrize("seed", range(5))
def test_redis_and_memory_decide_alike(redis: redis_library.Redis, seed: int) -> None:
    chance = random.Random(seed)
    limits = [window(20, 60), window(200, 3600, "hour"), bucket(7, 3.6), lease(4)]
    shared, alone = RedisCounter(SignalLine(redis)), MemoryCounter()
    now, open_now = NOW, list[str]()
    for number in range(300):
        now += chance.choice((0.0, 0.1, 1.0, 5.0, 40.0)) * chance.random()
        if open_now and chance.random() < 0.6:
            done = open_now.pop(chance.randrange(len(open_now)))
            shared.release(limits, lease=done)
            alone.release(limits, lease=done)
        wanted = chance.sample(limits, chance.randint(1, 4))
        ours, theirs = ask(alone, *wanted, now=now, id_=str(number)), ask(shared, *wanted, now=now, id_=str(number))
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine.remaining, mine.wait, mine.reset) == pytest.approx(
                (other.remaining, other.wait, other.reset), abs=1e-4
            ), (seed, number)
        if not any(one.wait for one in ours) and any(limit.kind is Kind.LEASE for limit in wanted):
            open_now.append(str(number))


def test_what_redis_holds_runs_out_by_itself(redis: redis_library.Redis) -> None:
    ask(RedisCounter(SignalLine(redis)), window(3), bucket(3, 1), lease(3))
    left = {key: int(redis.pttl(PREFIX + key)) for key in ("w", "b", "l")}
    assert all(0 < one <= 300_000 for one in left.values()), left


def test_memory_does_not_grow_with_the_number_of_callers() -> None:
    counter = MemoryCounter()
    for number in range(GREATEST_COUNT + 10):
        ask(counter, window(3, key=f"k{number}"))
    assert len(counter._held) <= GREATEST_COUNT


SETTINGS = Settings(rate_user_per_minute=0)


def actor(plan: str = "enterprise", kind: str = ActorKind.USER, **facts: Any) -> Actor:
    return Actor(id="u", kind=kind, name="u", plan=plan, credential_id="c", facts=facts)


class TestWhoIsCounted:
    def test_without_a_plan_and_a_setting_nobody_is(self) -> None:
        assert of_caller(actor(), SETTINGS) == ()

    def test_nodes_never_are(self) -> None:
        node = actor("free", ActorKind.NODE)
        assert of_caller(node, Settings(rate_user_per_minute=1)) == ()

    @pytest.mark.parametrize(("plan", "numbers"), [("free", (1000, 50, 10)), ("pro", (10_000, 500, 50))])
    def test_plans_are_what_was_published(self, plan: str, numbers: tuple[int, ...]) -> None:
        assert tuple(limit.most for limit in of_caller(actor(plan), SETTINGS)) == numbers

    def test_a_misspelt_plan_is_the_smallest(self) -> None:
        assert [limit.most for limit in of_caller(actor("enterprize"), SETTINGS)] == [1000, 50, 10]

    def test_keys_share_what_their_owner_has(self) -> None:
        assert of_caller(actor("free", ActorKind.API_KEY), SETTINGS) == of_caller(actor("free"), SETTINGS)

    def test_a_key_with_a_plan_of_its_own_is_counted_beside_its_owner(self) -> None:
        limits = of_caller(actor("free", ActorKind.API_KEY, owners_plan="pro"), SETTINGS)
        assert [(limit.key, limit.most) for limit in limits if limit.key.startswith("hour")] == [
            ("hour:user:u", 10_000),
            ("hour:key:c", 1000),
        ]
        alone = of_caller(actor("free", ActorKind.API_KEY, owners_plan="enterprise"), SETTINGS)
        assert {limit.key.partition(":")[2] for limit in alone} == {"key:c"}

    def test_addresses_of_one_ipv6_network_are_one(self) -> None:
        assert of_door("login", "2001:db8::1", SETTINGS) == of_door("login", "2001:db8::ffff", SETTINGS)

    def test_zero_is_no_limit(self) -> None:
        assert of_door("login", "192.0.2.1", Settings(rate_login_per_minute=0)) == ()


def test_the_limit_that_refuses_for_longest_is_told() -> None:
    limits = [window(10), bucket(5, 60.0), lease(2)]
    verdicts = [Verdict(3, 0.0, 100.0), Verdict(0, 41.2, 200.0), Verdict(0, 1.0, 0.0)]
    assert refusing(limits, verdicts) == (limits[1], 42)
    told = standing_of(limits, verdicts)
    assert (told.most, told.remaining, told.reset) == (5, 0, 200.0)
