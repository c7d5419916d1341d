"""The queue layer keeps its promises in every schedule, and loses them as soon as one of its rules is turned off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.model.mutations import MUTATIONS
from tests.faults.model.schedule import Playhouse
from tests.faults.model.world import Told
from tests.services.databases import PostgresSite, SqliteSite

SCHEDULES = 10
OVERLAPPING_SCHEDULES = 3
MOST_FOR_A_MUTATION = 40
KEPT_BY_THE_DATABASE = {
    "claims are not compared and set",
    "leaders do not look at their epoch",
    "no index forbids a second live attempt",
    "reports are not fenced",
}
"""Rules that lie in what the database guards; what the others decide does not know which database it is."""


@pytest.fixture(scope="module")
def sqlite_house(sqlite_site: SqliteSite) -> Iterator[Playhouse]:
    house = Playhouse(sqlite_site)
    yield house
    house.close()


@pytest.fixture(scope="module")
def postgres_house(postgres_site: PostgresSite) -> Iterator[Playhouse]:
    house = Playhouse(postgres_site)
    yield house
    house.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest) -> Playhouse:
    name = {"sqlite": "sqlite_house", "postgresql": "postgres_house"}[request.param]
    found: Playhouse = request.getfixturevalue(name)
    return found


def told(what: Told) -> str:
    """What to look at when a schedule went wrong, and how to play it again."""
    again = f"python -m tests.faults.model --start {what.seed} --seeds 1 --trace"
    return "\n".join([*what.trace, *map(str, what.violations), f"seed {what.seed}: {again}"])


def test_no_schedule_breaks_a_promise(house: Playhouse) -> None:
    for seed in range(SCHEDULES):
        what = house.play(seed)
        assert not what.violations, told(what)


def test_no_schedule_of_transactions_that_overlap_breaks_a_promise(postgres_house: Playhouse) -> None:
    for seed in range(OVERLAPPING_SCHEDULES):
        what = postgres_house.play(seed, overlaps=True)
        assert not what.violations, told(what)


def test_a_seed_is_a_schedule(sqlite_house: Playhouse) -> None:
    assert sqlite_house.play(7).trace == sqlite_house.play(7).trace


def test_a_seed_is_a_schedule_of_transactions_that_overlap(postgres_house: Playhouse) -> None:
    assert postgres_house.play(7, overlaps=True).trace == postgres_house.play(7, overlaps=True).trace


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_one_of_its_rules_a_promise_is_broken(sqlite_house: Playhouse, name: str) -> None:
    _require_red(sqlite_house, name)


@pytest.mark.parametrize("name", sorted(KEPT_BY_THE_DATABASE))
def test_without_a_guard_of_rows_a_promise_is_broken_on_postgresql_too(postgres_house: Playhouse, name: str) -> None:
    _require_red(postgres_house, name)


def _require_red(house: Playhouse, name: str) -> None:
    with MUTATIONS[name](house):
        found = [violation for seed in _until_red(house) for violation in seed.violations]

    assert found, f"{MOST_FOR_A_MUTATION} schedules were played, and nobody noticed that {name}"


def _until_red(house: Playhouse) -> Iterator[Told]:
    for seed in range(MOST_FOR_A_MUTATION):
        what = house.play(seed)
        yield what
        if what.violations:
            return
