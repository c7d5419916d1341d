"""The audit trail's chain on SQLite and PostgreSQL: append-only, sealed in order, and broken where somebody meddled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from coordinator.domains.identity import audit, audit_store
from coordinator.domains.identity.audit import SYSTEM, Head, Who
from coordinator.domains.identity.audit_chain import START
from coordinator.domains.queue import leadership
from coordinator.store.database import Database
from coordinator.upkeep.sealing import seal_trail
from shared.clock import FrozenClock
from tests.factories.trail import ADA, hash_by_the_book, seal_all, tamper, trail_of, verified, write_rows
from tests.services.databases import PostgresSite

DAY = timedelta(days=1).total_seconds()
INSERT = "INSERT INTO audit_trail (id, at, actor_kind, action, outcome, unrecorded, sequence, hash)"
MADE_UP = "SELECT 'made-up', at, actor_kind, action, outcome, unrecorded"
ANCHOR = "INSERT INTO audit_anchors (sequence, hash, at) SELECT sequence, hash, at FROM audit_trail"


@pytest.fixture
def sealed(database: Database) -> Head:
    """Seven rows, sealed; the head."""
    write_rows(database, 7)
    return seal_all(database)


# ---- sealing


def test_rows_are_sealed_in_order_and_the_chain_is_whole(database: Database) -> None:
    write_rows(database, 3)
    assert [row["sequence"] for row in trail_of(database)] == [None, None, None]

    first = seal_all(database)
    write_rows(database, 2)
    second = seal_all(database)

    assert [row["sequence"] for row in trail_of(database)] == [1, 2, 3, 4, 5]
    assert (first.sequence, second.sequence) == (3, 5)
    assert verified(database) is None


def test_a_hash_is_what_the_documentation_says(database: Database) -> None:
    awkward = 'quotes " and \\ backslashes, tabs\t, ünïcödé 🚢, \u2028 and \x7f'
    with database.write() as tx:
        audit.record(tx, ADA, "fleet.paused", before={"note": awkward, "n": 1.5}, message=awkward)
    write_rows(database, 2)
    seal_all(database)

    with database.read() as tx:
        rows = [dict(row) for row in tx.conn.execute(text("SELECT * FROM audit_trail ORDER BY sequence")).mappings()]
    previous = "0" * 64
    for row in rows:
        assert row["hash"] == hash_by_the_book(previous, row)
        previous = row["hash"]


def test_nothing_new_seals_nothing(database: Database, sealed: Head) -> None:
    assert seal_all(database) == sealed


def test_an_empty_trail_is_whole(database: Database) -> None:
    assert seal_all(database) == START
    assert verified(database, START) is None


def test_a_batch_is_a_batch(database: Database) -> None:
    write_rows(database, 5)

    with database.write() as tx:
        assert audit.seal(tx, limit=2)[0] == 2
        assert audit.seal(tx, limit=2)[0] == 2
        assert audit.seal(tx, limit=2)[0] == 1

    assert verified(database) is None


def test_the_next_leader_goes_on_where_the_last_one_stopped(database: Database, clock: FrozenClock) -> None:
    for holder in ("one", "two", "three"):
        with database.write() as tx:
            term = leadership.campaign(tx, holder=holder, seconds=10)
        assert term is not None
        write_rows(database, 2)
        with database.write() as tx:
            leadership.require(tx, term)
            seal_trail(tx)
        clock.advance(11)

    assert [row["sequence"] for row in trail_of(database)] == [1, 2, 3, 4, 5, 6]
    assert verified(database) is None


def test_a_row_that_is_committed_late_gets_a_late_place(postgres_site: PostgresSite) -> None:
    postgres_site.reset()
    database = postgres_site.database
    with database.write() as late:
        audit.record(late, ADA, "worker.approved", resource_id="late")
        write_rows(database, 2)
        assert seal_all(database).sequence == 2

    assert seal_all(database).sequence == 3
    by_id = [(row["resource_id"], row["sequence"]) for row in trail_of(database)]
    assert by_id == [("late", 3), ("w0", 1), ("w1", 2)]
    assert verified(database) is None


def test_two_who_seal_at_once_do_not_both_succeed(postgres_site: PostgresSite) -> None:
    """Only a leader seals; should two ever believe that they lead, the second finds its rows taken."""
    postgres_site.reset()
    database = postgres_site.database
    write_rows(database, 2)
    with database.write() as slow:
        rows = audit_store.unsealed(slow, 10)
        seal_all(database)
        places = [(row.id, Head(number, "f" * 64)) for number, row in enumerate(rows, 10)]
        assert audit_store.set_places(slow, places) == 0
    assert verified(database) is None


# ---- append-only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_trail SET message = 'never mind' WHERE sequence = 3",
        "UPDATE audit_trail SET actor_name = 'bob' WHERE sequence IS NULL",
        "UPDATE audit_trail SET hash = 'f', sequence = 99 WHERE sequence = 3",
        "DELETE FROM audit_trail WHERE sequence = 3",
        "DELETE FROM audit_trail WHERE sequence IS NULL",
        "INSERT INTO audit_anchors (sequence, hash, at) VALUES (3, 'made up', '2026-01-01')",
        f"{INSERT} VALUES ('x', '2026-01-01', 'user', 'a.b', 'done', 0, 100, 'f')",
    ],
)
def test_the_database_itself_refuses_to_change_what_was_written(
    database: Database, sealed: Head, statement: str
) -> None:
    write_rows(database, 1)
    before = trail_of(database)

    with pytest.raises(DBAPIError, match="append-only"), database.write() as tx:
        tx.conn.execute(text(statement))

    assert trail_of(database) == before


def test_postgresql_refuses_to_empty_the_trail(postgres_site: PostgresSite) -> None:
    postgres_site.reset()
    with pytest.raises(DBAPIError, match="append-only"), postgres_site.database.write() as tx:
        tx.conn.execute(text("TRUNCATE audit_trail"))


def test_an_anchor_opens_the_door_no_further_than_it_says(database: Database, sealed: Head) -> None:
    with database.write() as tx:
        tx.conn.execute(text(f"{ANCHOR} WHERE sequence = 2"))
    with pytest.raises(DBAPIError, match="append-only"), database.write() as tx:
        tx.conn.execute(text("DELETE FROM audit_trail WHERE sequence <= 3"))
    with pytest.raises(DBAPIError, match="append-only"), database.write() as tx:
        tx.conn.execute(text("DELETE FROM audit_anchors"))


# ---- tampering


@pytest.mark.parametrize(
    ("statements", "place"),
    [
        pytest.param(["UPDATE audit_trail SET message = 'x' WHERE sequence = 4"], "row 4 ", id="a changed message"),
        pytest.param(["UPDATE audit_trail SET actor_id = NULL WHERE sequence = 1"], "row 1 ", id="a changed actor"),
        pytest.param(
            ["UPDATE audit_trail SET at = '2020-01-01 00:00:00.000000' WHERE sequence = 5"], "row 5 ", id="another time"
        ),
        pytest.param(["UPDATE audit_trail SET \"after\" = '{}' WHERE sequence = 2"], "row 2 ", id="changed details"),
        pytest.param(["UPDATE audit_trail SET unrecorded = 9 WHERE sequence = 2"], "row 2 ", id="a changed number"),
        pytest.param(["UPDATE audit_trail SET hash = 'f00' WHERE sequence = 7"], "row 7 ", id="another hash"),
        pytest.param(["DELETE FROM audit_trail WHERE sequence = 4"], "row 4 is missing", id="a removed row"),
        pytest.param(["DELETE FROM audit_trail WHERE sequence = 1"], "row 1 is missing", id="the first row removed"),
        pytest.param(
            [
                "DELETE FROM audit_trail WHERE sequence = 4",
                "UPDATE audit_trail SET sequence = sequence - 1 WHERE sequence = 5",
            ],
            "row 4 ",
            id="a removed row, the next in its place",
        ),
        pytest.param(
            [
                "UPDATE audit_trail SET sequence = 99 WHERE sequence = 3",
                "UPDATE audit_trail SET sequence = 3 WHERE sequence = 4",
                "UPDATE audit_trail SET sequence = 4 WHERE sequence = 99",
            ],
            "row 3 ",
            id="two rows in another order",
        ),
        pytest.param(
            [f"{INSERT} {MADE_UP}, 8, hash FROM audit_trail WHERE sequence = 7"],
            "row 8 ",
            id="a made-up row at the end",
        ),
        pytest.param(
            [
                "UPDATE audit_trail SET sequence = 8 WHERE sequence = 7",
                f"{INSERT} {MADE_UP}, 7, hash FROM audit_trail WHERE sequence = 8",
            ],
            "row 7 ",
            id="a made-up row in between",
        ),
        pytest.param(
            [
                f"{ANCHOR} WHERE sequence = 3",
                "DELETE FROM audit_trail WHERE sequence <= 3",
            ],
            "no row tells that retention removed them",
            id="the beginning removed as if by retention",
        ),
    ],
)
def test_meddling_shows(database: Database, statements: list[str], place: str) -> None:
    write_rows(database, 7)
    seal_all(database)

    tamper(database, *statements)

    problem = verified(database)
    assert problem is not None
    assert place in problem


def test_a_trail_cut_at_its_end_shows_against_an_exported_head(database: Database) -> None:
    write_rows(database, 7)
    exported = seal_all(database)

    tamper(database, "DELETE FROM audit_trail WHERE sequence > 5")

    assert verified(database) is None
    assert verified(database, exported) == "the trail ends at 5, before 7: rows were removed from its end"


def test_a_trail_rewritten_as_a_whole_shows_against_an_exported_head(database: Database) -> None:
    write_rows(database, 4)
    exported = seal_all(database)

    tamper(
        database,
        "UPDATE audit_trail SET actor_name = 'bob' WHERE sequence = 2",
        "UPDATE audit_trail SET sequence = NULL, hash = NULL",
    )
    seal_all(database)

    assert verified(database) is None
    assert "row 4 is not the one of the exported head" in (verified(database, exported) or "")


def test_a_trail_that_grew_still_leads_through_an_exported_head(database: Database, sealed: Head) -> None:
    write_rows(database, 5)
    seal_all(database)

    assert verified(database, sealed) is None


# ---- retention


def _prune(database: Database, days: float, **options: Any) -> int:
    with database.write() as tx:
        return audit.prune(tx, days=days, **options)


@pytest.fixture
def old_and_new(database: Database, clock: FrozenClock) -> Head:
    """Four rows of long ago and three of now, sealed; the head."""
    write_rows(database, 4)
    clock.advance(40 * DAY)
    write_rows(database, 3)
    return seal_all(database)


def test_what_is_too_old_goes_and_the_rest_can_be_verified(database: Database, old_and_new: Head) -> None:
    assert _prune(database, 30) == 4
    head = seal_all(database)

    assert [row["sequence"] for row in trail_of(database)] == [5, 6, 7, 8]
    assert verified(database) is None
    assert verified(database, old_and_new) is None
    assert verified(database, head) is None


def test_the_trail_tells_what_was_removed_from_it(database: Database, old_and_new: Head) -> None:
    gone = trail_of(database, sequence=4)[0]
    _prune(database, 30)

    (row,) = trail_of(database, action="audit.pruned")
    assert (row["actor_kind"], row["outcome"]) == ("system", "done")
    assert (row["after"]["sequence"], row["after"]["hash"], row["after"]["rows"]) == (4, gone["hash"], 4)
    assert verified(database) is None, "also before that row is sealed"


def test_a_head_from_before_the_removed_rows_can_no_longer_be_held_against(
    database: Database, old_and_new: Head
) -> None:
    early = Head(2, trail_of(database, sequence=2)[0]["hash"])
    last_gone = Head(4, trail_of(database, sequence=4)[0]["hash"])
    _prune(database, 30)

    assert "row 2 was removed by retention" in (verified(database, early) or "")
    assert verified(database, last_gone) is None
    assert "row 4, the last one that was removed" in (verified(database, Head(4, "f" * 64)) or "")


def test_zero_days_keep_everything(database: Database, old_and_new: Head) -> None:
    assert _prune(database, 0) == 0
    assert len(trail_of(database)) == 7


def test_rows_leave_in_batches_and_once_a_day(database: Database, clock: FrozenClock, old_and_new: Head) -> None:
    assert _prune(database, 30, limit=3) == 3
    assert _prune(database, 30, limit=3) == 1
    assert _prune(database, 30, limit=3) == 0
    seal_all(database)
    clock.advance(30 * DAY + 60)
    assert _prune(database, 30) == 0, "within the day that rows may stay longer"
    clock.advance(DAY)
    assert _prune(database, 30) == 5
    seal_all(database)
    assert verified(database) is None


def test_a_row_without_a_place_stays_whatever_its_age(database: Database, clock: FrozenClock) -> None:
    write_rows(database, 2)
    clock.advance(400 * DAY)

    assert _prune(database, 30) == 0
    assert len(trail_of(database)) == 2


def test_everything_may_go_and_the_chain_goes_on(database: Database, clock: FrozenClock, sealed: Head) -> None:
    clock.advance(400 * DAY)
    assert _prune(database, 30) == 7

    assert seal_all(database).sequence == 8
    assert verified(database, sealed) is None


# ---- writing


def test_a_row_is_committed_with_its_act_or_not_at_all(database: Database) -> None:
    def act() -> None:
        with database.write() as tx:
            audit.record(tx, ADA, "worker.approved", resource_id="w")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        act()

    assert trail_of(database) == []


def test_an_action_that_is_not_in_the_catalogue_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="catalogue"), database.write() as tx:
        audit.record(tx, SYSTEM, "worker.aproved")


def test_texts_that_a_database_would_refuse_are_written_all_the_same(database: Database) -> None:
    who = Who("anonymous", name="n\0" + "x" * 400, address="a" * 300, request_id="r")
    with database.write() as tx:
        audit.record(tx, who, "request.refused", resource_id="\ud800\0", message="\0" * 3000)

    (row,) = trail_of(database)
    assert (len(row["actor_name"]), len(row["address"]), row["resource_id"]) == (255, 64, "?\ufffd")


def test_a_use_is_told_once_for_each_credential_place_and_day(database: Database, clock: FrozenClock) -> None:
    def use(credential: str, place: str) -> bool:
        with database.write() as tx:
            return audit.record_use(tx, Who("node", id="n", credential_id=credential, address=place), place=place)

    assert [use("c", "192.0.2.1"), use("c", "192.0.2.1"), use("c", "192.0.2.2"), use("d", "192.0.2.1")] == [
        True,
        False,
        True,
        True,
    ]
    clock.advance(DAY)
    assert use("c", "192.0.2.1")
    assert len(trail_of(database, action="key.used")) == 4


def test_uses_of_past_days_are_forgotten(database: Database, clock: FrozenClock) -> None:
    who = Who("node", id="n", credential_id="c")
    with database.write() as tx:
        audit.record_use(tx, who, place="p")
    clock.advance(3 * DAY)

    assert _prune(database, 0) == 1


def test_an_audited_act_costs_one_statement_more(database: Database) -> None:
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    with database.write() as tx:
        event.listen(database.engine, "before_cursor_execute", note)
        audit.record(tx, ADA, "worker.approved", resource_id="w", before={"a": 1}, after={"a": 2})
        event.remove(database.engine, "before_cursor_execute", note)

    assert [statement.partition(" (")[0] for statement in seen] == ["INSERT INTO audit_trail"]
