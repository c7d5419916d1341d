"""A flood of refusals costs the audit trail a few rows, and none of them is forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.http.refusals import (
    COUNTED_ADDRESSES,
    OTHERS,
    PER_ACTOR,
    PER_ADDRESS,
    PER_PROCESS,
    TOLD_AT_ONCE,
    RefusalBudget,
    place_of,
)
from shared.clock import FrozenClock

Refuse = Callable[..., int | None]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def budget() -> RefusalBudget:
    return RefusalBudget()


@pytest.fixture
def refuse(budget: RefusalBudget, clock: FrozenClock) -> Refuse:
    def one(address: str = "192.0.2.1", actor: str | None = None) -> int | None:
        return budget.spend(address=address, actor=actor, now=clock.now())

    return one


def test_a_few_refusals_each_get_a_row(refuse: Refuse) -> None:
    assert [refuse() for _ in range(PER_ADDRESS)] == [0] * PER_ADDRESS


def test_an_address_gets_so_many_rows_in_a_window_and_no_more(refuse: Refuse) -> None:
    told = [refuse() for _ in range(1000)]
    assert sum(each is not None for each in told) == PER_ADDRESS


def test_the_next_row_of_an_address_tells_how_many_had_none(refuse: Refuse, clock: FrozenClock) -> None:
    for _ in range(PER_ADDRESS + 7):
        refuse()
    clock.advance(60)

    assert refuse("192.0.2.99") == 0
    assert refuse() == 7
    assert refuse() == 0


def test_an_actor_gets_so_many_rows_wherever_it_comes_from(refuse: Refuse) -> None:
    told = [refuse(f"192.0.2.{number}", "ada") for number in range(100)]
    assert sum(each is not None for each in told) == PER_ACTOR
    assert refuse("192.0.2.200", "bob") == 0


def test_a_process_writes_so_many_rows_whoever_floods_it(refuse: Refuse) -> None:
    told = [refuse(f"10.{number >> 8}.{number & 255}.1") for number in range(5000)]
    assert sum(each is not None for each in told) == PER_PROCESS


def test_no_refusal_is_forgotten_however_many_addresses_they_come_from(refuse: Refuse, budget: RefusalBudget) -> None:
    many = COUNTED_ADDRESSES + PER_PROCESS + 500
    written = [refuse(f"10.{number >> 8}.{number & 255}.1") for number in range(many)]
    told = budget.settle()

    assert sum(each is not None for each in written) + sum(count for _, count in told) == many
    assert len(told) == TOLD_AT_ONCE + 1
    assert OTHERS in dict(told)
    assert budget.settle() == []


def test_what_is_remembered_does_not_grow_with_the_flood(refuse: Refuse, budget: RefusalBudget) -> None:
    for number in range(COUNTED_ADDRESSES * 3):
        refuse(f"10.{number >> 8}.{number & 255}.1", f"actor {number}")
    assert len(budget._left_out) == COUNTED_ADDRESSES + 1
    assert len(budget._by_actor) <= PER_PROCESS


def test_what_could_not_be_written_is_told_later(refuse: Refuse, budget: RefusalBudget) -> None:
    refuse()
    budget.give_back(address="192.0.2.1", count=3)

    assert budget.is_owing
    assert refuse() == 3


def test_a_clock_that_is_set_back_does_not_close_the_window_for_long(refuse: Refuse, clock: FrozenClock) -> None:
    for _ in range(PER_ADDRESS + 1):
        refuse()
    clock.advance(-86400)

    assert refuse() == 1


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("a unix socket", "a unix socket"),
    ],
)
def test_a_host_with_a_network_of_addresses_counts_as_one(address: str, place: str) -> None:
    assert place_of(address) == place
