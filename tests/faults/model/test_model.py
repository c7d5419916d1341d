"""The queue layer keeps its promises in every schedule, and loses them as soon as one of its rules is turned off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.model.mutations import MUTATIONS
from tests.faults.model.schedule import Playhouse
from tests.faults.model.world import Told
from tests.services.databases import DatabaseSite

SCHEDULES = 12
MOST_FOR_A_MUTATION = 60


@pytest.fixture(scope="module")
def _houses() -> Iterator[dict[int, Playhouse]]:
    made: dict[int, Playhouse] = {}
    yield made
    for house in made.values():
        house.close()


@pytest.fixture
def house(database_site: DatabaseSite, _houses: dict[int, Playhouse]) -> Playhouse:
    if id(database_site) not in _houses:
        _houses[id(database_site)] = Playhouse(database_site)
    return _houses[id(database_site)]


def told(what: Told) -> str:
    """What to look at when a schedule went wrong, and how to play it again."""
    again = f"python -m tests.faults.model --start {what.seed} --seeds 1 --trace"
    return "\n".join([*what.trace, *map(str, what.violations), f"seed {what.seed}: {again}"])


def test_no_schedule_breaks_a_promise(house: Playhouse) -> None:
    for seed in range(SCHEDULES):
        what = house.play(seed)
        assert not what.violations, told(what)


def test_a_seed_is_a_schedule(house: Playhouse) -> None:
    assert house.play(7).trace == house.play(7).trace


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_one_of_its_rules_a_promise_is_broken(house: Playhouse, name: str) -> None:
    with MUTATIONS[name](house):
        found = [violation for seed in _until_red(house) for violation in seed.violations]

    assert found, f"{MOST_FOR_A_MUTATION} schedules were played, and nobody noticed that {name}"


def _until_red(house: Playhouse) -> Iterator[Told]:
    for seed in range(MOST_FOR_A_MUTATION):
        what = house.play(seed)
        yield what
        if what.violations:
            return
