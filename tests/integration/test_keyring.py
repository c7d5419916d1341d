"""Secrets in the database: sealed, opened, sealed anew, with the processes that do it dying and meeting each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from coordinator.domains.identity.models import second_factors
from coordinator.domains.identity.sealed import SEED
from coordinator.domains.vault import rotation
from coordinator.domains.vault.keyring import Keyring, SealBroken, WrongMasterKey
from coordinator.domains.vault.models import data_keys
from coordinator.domains.vault.sealing import Master
from coordinator.resources import Resources
from coordinator.store.database import Database
from tests.factories.people import make_person

OLD, NEW = "the-first-master-key-of-these-tests", "the-second-master-key-of-these-tests"

Run = Callable[..., subprocess.CompletedProcess[str]]


def keyring(master: str = OLD, *old: str) -> Keyring:
    """One without a memory, as another process would have it."""
    return Keyring(Master.of(master), tuple(Master.of(each) for each in old))


def add_seed(database: Database, ring: Keyring, plaintext: bytes) -> str:
    """A second factor with this seed, of a new person; its subject."""
    person = make_person(database).id
    with database.write() as tx:
        sealed = ring.seal(tx, SEED, person, plaintext)
        tx.conn.execute(
            insert(second_factors).values(
                principal_id=person, seed=sealed.text, key_id=sealed.key_id, created_at=tx.now, confirmed_at=tx.now
            )
        )
    return person


def seeds(database: Database, ring: Keyring) -> dict[str, bytes]:
    columns = (second_factors.c.principal_id, second_factors.c.seed, second_factors.c.key_id)
    with database.read() as tx:
        rows = tx.conn.execute(select(*columns)).all()
        return {person: ring.open(tx, SEED, person, text, key_id) for person, text, key_id in rows}


def key_ids(database: Database) -> set[str]:
    """The data keys that sealed something."""
    with database.read() as tx:
        return set(tx.conn.scalars(select(second_factors.c.key_id)))


def rotate(database: Database, ring: Keyring, **options: int) -> int:
    begun = rotation.begin(database, ring)
    return sum(batch.sealed for batch in rotation.seal_anew(database, ring, begun.key, **options))


class TestSealing:
    def test_the_first_secret_makes_a_data_key_and_others_share_it(self, database: Database) -> None:
        people = {add_seed(database, keyring(), b"one"): b"one", add_seed(database, keyring(), b"two"): b"two"}
        assert seeds(database, keyring()) == people
        with database.read() as tx:
            assert len(tx.conn.execute(select(data_keys)).all()) == 1

    def test_a_text_that_was_moved_to_another_row_does_not_open(self, database: Database) -> None:
        mine, other = add_seed(database, keyring(), b"mine"), add_seed(database, keyring(), b"other")
        theirs = select(second_factors.c.seed).where(second_factors.c.principal_id == other).scalar_subquery()
        with database.write() as tx:
            tx.conn.execute(
                update(second_factors).where(second_factors.c.principal_id == mine).values({"seed": theirs})
            )
        with pytest.raises(SealBroken):
            seeds(database, keyring())

    def test_another_master_key_is_told_as_such(self, database: Database) -> None:
        add_seed(database, keyring(), b"one")
        with pytest.raises(WrongMasterKey) as told:
            seeds(database, keyring(NEW))
        assert (told.value.code, told.value.details["reason"]) == ("UNAVAILABLE", "wrong_master_key")
        assert told.value.details["master"] == Master.of(OLD).fingerprint[:12]
        with database.write() as tx, pytest.raises(WrongMasterKey):
            keyring(NEW).seal(tx, SEED, "somebody", b"two")

    def test_an_old_master_key_still_opens(self, database: Database) -> None:
        person = add_seed(database, keyring(), b"one")
        assert seeds(database, keyring(NEW, OLD)) == {person: b"one"}

    def test_a_secret_costs_one_query_once_the_key_is_known(self, resources: Resources) -> None:
        ring = Keyring.of(resources)
        assert ring is Keyring.of(resources)
        with resources.database.write() as tx:
            sealed = ring.seal(tx, SEED, "somebody", b"secret")
        with resources.database.read() as tx:
            tx.conn.close()
            assert ring.open(tx, SEED, "somebody", sealed.text, sealed.key_id) == b"secret"

    def test_many_first_secrets_at_once_leave_one_data_key(self, database: Database) -> None:
        start, done = threading.Barrier(6), []

        def work() -> None:
            ring = keyring()
            start.wait()
            with database.write() as tx:
                done.append(ring.seal(tx, SEED, "somebody", b"secret").key_id)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert (len(done), len(set(done))) == (6, 1)


class TestRotation:
    def test_everything_is_sealed_by_a_new_key(self, database: Database) -> None:
        people = {add_seed(database, keyring(), text): text for text in (b"a", b"b", b"c", b"d", b"e")}
        before = key_ids(database)
        assert rotate(database, keyring(), size=2) == 5
        assert len(key_ids(database)) == 1
        assert key_ids(database).isdisjoint(before)
        assert seeds(database, keyring()) == people

    def test_one_that_was_left_after_a_batch_is_gone_on_with(self, database: Database) -> None:
        people = {add_seed(database, keyring(), text): text for text in (b"a", b"b", b"c", b"d", b"e")}
        begun = rotation.begin(database, keyring())
        assert next(rotation.seal_anew(database, keyring(), begun.key, size=2)).sealed == 2
        assert len(key_ids(database)) == 2
        assert seeds(database, keyring()) == people

        again = rotation.begin(database, keyring())
        assert (again.key.id, again.resumed) == (begun.key.id, True)
        assert sum(done.sealed for done in rotation.seal_anew(database, keyring(), again.key, size=2)) == 3
        assert key_ids(database) == {begun.key.id}
        assert seeds(database, keyring()) == people

    def test_two_at_once_share_one_key_and_lose_nothing(self, database: Database) -> None:
        people = {add_seed(database, keyring(), bytes([n])): bytes([n]) for n in range(12)}
        start, counts, faults = threading.Barrier(2), [], []

        def work() -> None:
            start.wait()
            try:
                counts.append(rotate(database, keyring(), size=1))
            except BaseException as fault:
                faults.append(fault)
                raise

        threads = [threading.Thread(target=work) for _ in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert faults == []
        # The second may have come when the first had ended: then it was a rotation of its own.
        assert sum(counts) in (12, 24)
        assert len(key_ids(database)) == 1
        assert seeds(database, keyring()) == people

    def test_a_secret_that_is_being_sealed_meanwhile_is_not_left_behind(self, database: Database) -> None:
        add_seed(database, keyring(), b"before")
        late, begun = make_person(database).id, threading.Event()

        def work() -> None:
            begun.set()
            rotate(database, keyring())

        thread = threading.Thread(target=work)
        with database.write() as tx:
            sealed = keyring().seal(tx, SEED, late, b"late")
            thread.start()
            begun.wait()
            tx.conn.execute(
                insert(second_factors).values(
                    principal_id=late, seed=sealed.text, key_id=sealed.key_id, created_at=tx.now
                )
            )
        thread.join()
        assert len(key_ids(database)) == 1
        assert sealed.key_id not in key_ids(database)
        assert seeds(database, keyring())[late] == b"late"

    def test_a_text_that_cannot_be_opened_stays_and_is_told(self, database: Database) -> None:
        broken, whole = add_seed(database, keyring(), b"broken"), add_seed(database, keyring(), b"whole")
        with database.write() as tx:
            spoilt = update(second_factors).where(second_factors.c.principal_id == broken)
            tx.conn.execute(spoilt.values({"seed": "v1.spoilt"}))
        begun = rotation.begin(database, keyring())
        done = list(rotation.seal_anew(database, keyring(), begun.key, size=1))
        assert [subject for batch in done for subject in batch.broken] == [broken]
        assert sum(batch.sealed for batch in done) == 1
        assert len(key_ids(database)) == 2
        with database.read() as tx:
            row = tx.conn.execute(select(second_factors).where(second_factors.c.principal_id == whole)).one()
            assert keyring().open(tx, SEED, whole, row.seed, row.key_id) == b"whole"

        assert rotation.begin(database, keyring()).resumed
        assert not rotation.begin(database, keyring(), fresh=True).resumed

    def test_it_does_not_begin_when_a_data_key_cannot_be_unwrapped(self, database: Database) -> None:
        add_seed(database, keyring(), b"one")
        before = key_ids(database)
        with pytest.raises(WrongMasterKey):
            rotation.begin(database, keyring(NEW))
        with database.read() as tx:
            assert set(tx.conn.scalars(select(data_keys.c.id).where(data_keys.c.retired_at.is_(None)))) == before


class TestMasterKey:
    def test_after_a_change_the_old_one_is_not_needed_any_more(self, database: Database) -> None:
        people = {add_seed(database, keyring(), b"one"): b"one"}
        rotate(database, keyring())
        people |= {add_seed(database, keyring(), b"two"): b"two"}
        with database.write() as tx:
            assert rotation.wrap_anew(tx, keyring(NEW, OLD)) == 2
        with database.write() as tx:
            assert rotation.wrap_anew(tx, keyring(NEW, OLD)) == 0
        assert seeds(database, keyring(NEW)) == people

    def test_without_one_of_the_old_ones_nothing_is_changed(self, database: Database) -> None:
        people = {add_seed(database, keyring(OLD), b"one"): b"one"}
        with database.write() as tx:
            rotation.wrap_anew(tx, keyring(NEW, OLD))
        rotate(database, keyring("a third", NEW))
        with database.write() as tx, pytest.raises(WrongMasterKey):
            rotation.wrap_anew(tx, keyring("a fourth", NEW))
        assert seeds(database, keyring("a third", NEW)) == people


@pytest.fixture
def own(database_url: str) -> Iterator[Database]:
    """A database for this test alone, which commands can be given."""
    made = Database(database_url)
    yield made
    made.dispose()


@pytest.fixture
def environment(own: Database, tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "LONGSHORE_HOME": str(tmp_path / "home"),
        "LONGSHORE_PASSWORD_COST": "low",
        "LONGSHORE_DATABASE_URL": own.url.render_as_string(hide_password=False),
        "LONGSHORE_MASTER_KEY": OLD,
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Runs one command to its end on that database."""

    def one(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "coordinator", "keys", *words]
        return subprocess.run(argv, env=environment | more, capture_output=True, text=True, timeout=60, check=False)

    return one


class TestCommand:
    def test_it_shows_and_rotates(self, own: Database, run: Run) -> None:
        assert "No data key yet" in run("status").stdout
        people = {add_seed(own, keyring(), b"one"): b"one"}
        shown = run("status")
        assert (shown.returncode, f"holds 1 of {SEED}" in shown.stdout) == (0, True)
        done = run("rotate", "--json")
        assert (done.returncode, json.loads(done.stdout)["sealed"]) == (0, 1)
        assert seeds(own, keyring()) == people
        assert key_ids(own) == {json.loads(done.stdout)["data_key"]}

    def test_the_checkup_says_when_the_master_key_is_missing(self, own: Database, environment: dict[str, str]) -> None:
        add_seed(own, keyring(), b"one")

        def found(master: str) -> list[bool]:
            argv = [sys.executable, "-m", "coordinator", "check", "--json"]
            given = environment | {"LONGSHORE_MASTER_KEY": master}
            ended = subprocess.run(argv, env=given, capture_output=True, text=True, timeout=60, check=False)
            return [one["ok"] for one in json.loads(ended.stdout)["findings"] if one["name"] == "master key"]

        assert (found(OLD), found(NEW)) == ([], [False])

    def test_a_missing_master_key_is_an_exit_code_and_a_sentence(self, own: Database, run: Run) -> None:
        add_seed(own, keyring(), b"one")
        shown = run("status", LONGSHORE_MASTER_KEY=NEW)
        assert (shown.returncode, "WHICH IS MISSING" in shown.stdout) == (1, True)
        for words in (["rotate"], ["rotate", "--master"]):
            refused = run(*words, LONGSHORE_MASTER_KEY=NEW)
            assert (refused.returncode, "another master key" in refused.stderr) == (1, True)
        assert seeds(own, keyring())

    def test_the_master_key_is_changed(self, own: Database, run: Run) -> None:
        people = {add_seed(own, keyring(), b"one"): b"one"}
        done = run("rotate", "--master", "--json", LONGSHORE_MASTER_KEY=NEW, LONGSHORE_OLD_MASTER_KEYS=f"x, {OLD}")
        assert (done.returncode, json.loads(done.stdout)["rewrapped"]) == (0, 1)
        assert seeds(own, keyring(NEW)) == people
        assert run("status", LONGSHORE_MASTER_KEY=NEW).returncode == 0

    def test_one_that_was_killed_between_batches_is_gone_on_with(
        self, own: Database, run: Run, environment: dict[str, str]
    ) -> None:
        people = {add_seed(own, keyring(), bytes([n])): bytes([n]) for n in range(40)}
        argv = [sys.executable, "-m", "coordinator", "keys", "rotate", "--batch", "1"]
        with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Made data key")
            assert process.stderr.readline().startswith("1 of")
            process.kill()
        assert seeds(own, keyring()) == people
        done = run("rotate", "--json")
        told = json.loads(done.stdout)
        assert (done.returncode, told["resumed"]) == (0, True)
        assert key_ids(own) == {told["data_key"]}
        assert seeds(own, keyring()) == people
