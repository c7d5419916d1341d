"""The queue layer keeps its promises in every schedule, and loses them as soon as one of its rules is turned off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.model.focus import EVEN, Focus
from tests.faults.model.mutations import MUTATIONS, OVERLAPPING
from tests.faults.model.schedule import Playhouse
from tests.faults.model.world import Told
from tests.services.databases import PostgresSite, SqliteSite

OVERLAPPING_SCHEDULES = 3
MOST_FOR_A_MUTATION = 40
KEPT_BY_THE_DATABASE = {"leaders do not look at their epoch", "no index forbids a second live attempt"}
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


def told(what: Told) -> str:
    """What to look at when a schedule went wrong, and how to play it again."""
    again = f"python -m tests.faults.model --start {what.seed} --seeds 1 --trace (and --overlap, if they did)"
    return "\n".join([*what.trace, *map(str, what.violations), f"seed {what.seed}: {again}"])


@pytest.fixture(scope="module")
def overlapping(postgres_house: Playhouse) -> list[Told]:
    """Schedules of transactions that overlap; only PostgreSQL lets them."""
    return [postgres_house.play(seed, overlaps=True) for seed in range(OVERLAPPING_SCHEDULES)]


@pytest.mark.parametrize(("database", "schedules"), [("sqlite", 12), ("postgresql", 6)], ids=["sqlite", "postgresql"])
def test_no_schedule_breaks_a_promise(request: pytest.FixtureRequest, database: str, schedules: int) -> None:
    house: Playhouse = request.getfixturevalue({"sqlite": "sqlite_house", "postgresql": "postgres_house"}[database])
    for seed in range(schedules):
        what = house.play(seed)
        assert not what.violations, told(what)


def test_no_schedule_of_transactions_that_overlap_breaks_a_promise(overlapping: list[Told]) -> None:
    for what in overlapping:
        assert not what.violations, told(what)


def test_a_seed_is_a_schedule(sqlite_house: Playhouse) -> None:
    assert sqlite_house.play(7).trace == sqlite_house.play(7).trace


def test_a_seed_is_a_schedule_of_transactions_that_overlap(postgres_house: Playhouse, overlapping: list[Told]) -> None:
    assert postgres_house.play(overlapping[0].seed, overlaps=True).trace == overlapping[0].trace


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_one_of_its_rules_a_promise_is_broken(sqlite_house: Playhouse, name: str) -> None:
    _until_red(sqlite_house, name)


@pytest.mark.parametrize("name", sorted(KEPT_BY_THE_DATABASE))
def test_without_a_guard_of_rows_a_promise_is_broken_on_postgresql_too(postgres_house: Playhouse, name: str) -> None:
    _until_red(postgres_house, name)


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_lock_is_all_that_keeps_a_promise_where_transactions_overlap(postgres_house: Playhouse, name: str) -> None:
    focus = OVERLAPPING[name].focus
    red = _until_red(postgres_house, name, overlaps=True, focus=focus)

    with_the_lock = postgres_house.play(red.seed, overlaps=True, focus=focus)
    assert not with_the_lock.violations, told(with_the_lock)


def _until_red(house: Playhouse, name: str, *, overlaps: bool = False, focus: Focus = EVEN) -> Told:
    """The first schedule that notices that this rule is off."""
    mutation = MUTATIONS[name] if name in MUTATIONS else OVERLAPPING[name].mutation
    with mutation(house):
        for seed in range(MOST_FOR_A_MUTATION):
            what = house.play(seed, overlaps=overlaps, focus=focus)
            if what.violations:
                return what
    pytest.fail(f"{MOST_FOR_A_MUTATION} schedules were played, and nobody noticed that {name}")
