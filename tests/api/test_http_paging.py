"""Pages of lists as the stores read them."""

from __future__ import annotations

import pytest
from sqlalchemy import Select, event, select

from coordinator.domains.identity.models import principals
from coordinator.domains.identity.rights import Role
from coordinator.store import paging
from coordinator.store.database import Database
from coordinator.store.paging import Page, PageRequest, fetch_page
from shared.clock import FrozenClock
from tests.factories.people import make_person

BY_NAME: Select[tuple[str]] = select(principals.c.name).order_by(principals.c.name)


@pytest.fixture
def people(database: Database) -> list[str]:
    names = [f"p{number:02}" for number in range(12)]
    for name in names:
        make_person(database, name=name, role=Role.VIEWER)
    return names


def fetched(database: Database, *, limit: int, offset: int = 0, statement: Select[tuple[str]] = BY_NAME) -> Page[str]:
    with database.read() as tx:
        page = fetch_page(tx, statement, PageRequest(limit=limit, offset=offset))
    return Page([row.name for row in page.items], page.total)


def statements_of(database: Database, *, limit: int, offset: int = 0) -> int:
    """How many statements a page takes, that of the transaction left out."""
    seen: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        fetched(database, limit=limit, offset=offset)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return len([statement for statement in seen if statement.startswith("SELECT")])


@pytest.mark.parametrize(("limit", "offset"), [(5, 0), (5, 5), (5, 10), (12, 0), (20, 0), (5, 12), (5, 400)])
def test_a_page_is_its_part_of_the_list_with_the_length_of_the_whole(
    database: Database, people: list[str], limit: int, offset: int
) -> None:
    page = fetched(database, limit=limit, offset=offset)
    assert list(page.items) == people[offset : offset + limit]
    assert page.total == 12


def test_an_empty_list_is_empty(database: Database) -> None:
    assert fetched(database, limit=5) == Page([], 0)


def test_filters_count_too(database: Database, people: list[str]) -> None:
    page = fetched(database, limit=2, statement=BY_NAME.where(principals.c.name < "p05"))
    assert (list(page.items), page.total) == (["p00", "p01"], 5)


@pytest.mark.parametrize(("limit", "offset", "statements"), [(20, 0, 1), (5, 10, 1), (5, 5, 2), (5, 400, 2)])
def test_a_count_is_asked_only_when_the_page_does_not_tell(
    database: Database, people: list[str], limit: int, offset: int, statements: int
) -> None:
    assert statements_of(database, limit=limit, offset=offset) == statements


def test_the_length_of_a_long_list_is_remembered_for_a_while(
    database: Database, people: list[str], clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "EXACT_UP_TO", 6)
    monkeypatch.setattr(paging, "_counted", {})
    assert fetched(database, limit=5).total == 12
    make_person(database, name="p99", role=Role.VIEWER)
    assert fetched(database, limit=5).total == 12
    assert fetched(database, limit=5, statement=BY_NAME.where(principals.c.name > "p00")).total == 12
    clock.advance(paging.REMEMBERED_FOR.total_seconds())
    assert fetched(database, limit=5).total == 13


def test_what_was_remembered_never_hides_what_is_shown(
    database: Database, people: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "EXACT_UP_TO", 6)
    monkeypatch.setattr(paging, "_counted", {})
    fetched(database, limit=5)
    for number in range(20, 30):
        make_person(database, name=f"p{number}", role=Role.VIEWER)
    assert fetched(database, limit=5, offset=15).total == 20
