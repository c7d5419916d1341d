"""Guessing passwords: counted, ended, and answered like everything else that is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from coordinator.domains.identity import failure_store, lockout, logins, service
from coordinator.domains.identity.lockout import ELSEWHERE
from coordinator.domains.identity.logins import LoginRefused
from coordinator.domains.identity.models import principals
from coordinator.domains.identity.passwords import Passwords
from coordinator.domains.identity.service import Principal
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.logins import PASSWORD, tried
from tests.factories.people import make_person
from tests.factories.statements import counted_statements
from tests.factories.trail import trail_of

HOME, AWAY, FAR = "192.0.2.1", "198.51.100.7", "203.0.113.9"
HALF_AN_HOUR = 1800


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, name="ada", email="ada@example.org", password=PASSWORD)


def fail(client: FlaskClient, times: int, *, login: str = "ada", address: str = AWAY) -> None:
    for number in range(times):
        assert tried(client, login, f"wrong {number}", address=address).status_code == 401


class TestOneAddress:
    def test_five_failures_close_a_name_to_an_address_even_for_the_right_password(
        self, client: FlaskClient, ada: Principal
    ) -> None:
        fail(client, 4)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 200
        fail(client, 5)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 401

    def test_it_is_open_again_after_half_an_hour(self, client: FlaskClient, ada: Principal, clock: FrozenClock) -> None:
        fail(client, 5)
        clock.advance(HALF_AN_HOUR - 1)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 401
        clock.advance(1)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 200

    def test_trying_while_it_is_closed_does_not_keep_it_closed(
        self, client: FlaskClient, ada: Principal, clock: FrozenClock
    ) -> None:
        fail(client, 5)
        clock.advance(HALF_AN_HOUR - 1)
        fail(client, 3)
        clock.advance(1)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 200

    def test_failures_of_long_ago_do_not_count(self, client: FlaskClient, ada: Principal, clock: FrozenClock) -> None:
        fail(client, 4)
        clock.advance(HALF_AN_HOUR)
        fail(client, 4)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 200

    def test_it_stays_open_to_other_addresses_and_other_names(
        self, client: FlaskClient, ada: Principal, database: Database
    ) -> None:
        make_person(database, name="eve", password=PASSWORD)
        fail(client, 5)
        assert tried(client, "ada", PASSWORD, address=FAR).status_code == 200
        assert tried(client, "eve", PASSWORD, address=AWAY).status_code == 200

    def test_case_and_blanks_are_no_way_to_more_guesses(self, client: FlaskClient, ada: Principal) -> None:
        for spelling in ("ada@example.org", "ADA@example.org", "Ada@Example.Org", "aDa@example.org", "adA@example.org"):
            assert tried(client, spelling, "wrong", address=AWAY).status_code == 401
        assert tried(client, "ada@example.org", PASSWORD, address=AWAY).status_code == 401

    def test_all_addresses_of_an_ipv6_network_are_one(self, client: FlaskClient, ada: Principal) -> None:
        for number in range(5):
            assert tried(client, "ada", "wrong", address=f"2001:db8:1:2::{number}").status_code == 401
        assert tried(client, "ada", PASSWORD, address="2001:db8:1:2:ffff::1").status_code == 401
        assert tried(client, "ada", PASSWORD, address="2001:db8:1:3::1").status_code == 200


class TestManyAddresses:
    def guess_from_everywhere(self, client: FlaskClient, guesses: int) -> None:
        for number in range(guesses):
            assert tried(client, "ada", "wrong", address=f"203.0.113.{number}").status_code == 401

    def test_guessing_from_many_addresses_closes_the_name_to_all_that_never_logged_in(
        self, client: FlaskClient, ada: Principal
    ) -> None:
        self.guess_from_everywhere(client, 19)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 200
        self.guess_from_everywhere(client, 20)
        assert tried(client, "ada", PASSWORD, address="198.51.100.77").status_code == 401

    def test_it_never_closes_it_to_where_its_owner_logged_in_before(self, client: FlaskClient, ada: Principal) -> None:
        assert tried(client, "ada", PASSWORD, address=HOME).status_code == 200
        self.guess_from_everywhere(client, 40)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 401
        assert tried(client, "ada", PASSWORD, address=HOME).status_code == 200

    def test_failures_at_home_are_not_counted_for_elsewhere(self, client: FlaskClient, ada: Principal) -> None:
        assert tried(client, "ada", PASSWORD, address=HOME).status_code == 200
        for _ in range(5):
            fail(client, 4, address=HOME)
            assert tried(client, "ada", PASSWORD, address=HOME).status_code == 200
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 200


class TestSideBySide:
    def together(self, guesses: list[Callable[[], None]]) -> None:
        threads = [threading.Thread(target=guess) for guess in guesses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def test_no_failure_is_lost_of_those_that_run_at_the_same_time(
        self, app: Flask, database: Database, resources: Resources, ada: Principal
    ) -> None:
        guess = lockout.guess_at_name(resources, "ada", AWAY)

        def count() -> None:
            with database.write() as tx:
                failure_store.count(tx, guess.what, AWAY, greatest=100, window=timedelta(minutes=30))

        self.together([count] * 8)
        with database.read() as tx:
            assert failure_store.find(tx, guess.what, [AWAY], hold=False)[AWAY].count == 8

    def test_the_right_one_among_many_at_the_same_time_is_refused_once_five_have_failed(
        self, resources: Resources, ada: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed, answers = threading.Event(), []
        real = Passwords.matches

        def slowly(self: Passwords, stored: str | None, given: str) -> bool:
            right = real(self, stored, given)
            if right:
                # It was begun before any of the others, and is verified when five of them have been counted.
                assert failed.wait(30)
            return right

        def guess(password: str) -> None:
            try:
                logins.log_in(resources, "ada", password, address=AWAY)
            except LoginRefused as refusal:
                answers.append(refusal.why)

        monkeypatch.setattr(Passwords, "matches", slowly)
        right = threading.Thread(target=guess, args=(PASSWORD,))
        right.start()
        self.together([lambda: guess("wrong")] * 5)
        failed.set()
        right.join()
        assert len(answers) == 6
        assert answers[-1] == logins.LOCKED


def test_what_a_login_costs_beside_its_verification_is_a_handful_of_statements(
    client: FlaskClient, ada: Principal, database: Database
) -> None:
    tried(client, "ada", PASSWORD, address=HOME)
    with counted_statements(database) as right:
        tried(client, "ada", PASSWORD, address=HOME)
    with counted_statements(database) as wrong:
        tried(client, "ada", "wrong", address=HOME)
    assert len(right) <= 18, right
    assert len(wrong) <= 9, wrong


class TestNothingIsToldApart:
    def test_locked_wrong_unknown_and_switched_off_get_the_same_answer_after_one_verification(
        self, client: FlaskClient, ada: Principal, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = make_person(database, name="gone", password=PASSWORD)
        make_person(database, name="shut", password=PASSWORD)
        with database.write() as tx:
            tx.conn.execute(update(principals).where(principals.c.id == gone.id).values(active=False))
        fail(client, 5, login="shut")
        counted: list[str] = []
        real = Passwords.matches

        def counting(self: Passwords, stored: str | None, given: str) -> bool:
            counted.append(given)
            return real(self, stored, given)

        monkeypatch.setattr(Passwords, "matches", counting)
        tries = [("shut", PASSWORD), ("shut", "wrong"), ("ada", "wrong"), ("nobody", PASSWORD), ("gone", PASSWORD)]
        answers = []
        for login, password in tries:
            counted.clear()
            answers.append(tried(client, login, password, address=AWAY))
            assert len(counted) == 1
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.data for answer in answers}) == 1

    def test_the_reason_is_in_the_audit_trail_alone(
        self, client: FlaskClient, ada: Principal, database: Database
    ) -> None:
        fail(client, 5)
        assert tried(client, "ada", PASSWORD, address=AWAY).status_code == 401
        told = [row["message"] for row in trail_of(database, outcome="refused")]
        assert told[0] == logins.WRONG
        assert told[4].startswith(f"{logins.WRONG}; that was one too many")
        assert told[5] == logins.LOCKED

    def test_an_unknown_name_is_locked_like_a_known_one(
        self, client: FlaskClient, database: Database, resources: Resources
    ) -> None:
        fail(client, 5, login="nobody")
        guess = lockout.guess_at_name(resources, "nobody", AWAY)
        with database.read() as tx:
            found = failure_store.find(tx, guess.what, [AWAY, ELSEWHERE], hold=False)
        assert (found[AWAY].locked_until is not None, found[ELSEWHERE].count) == (True, 5)

    def test_names_that_were_tried_are_not_kept(
        self, client: FlaskClient, database: Database, resources: Resources
    ) -> None:
        fail(client, 1, login="my secret by mistake")
        with database.read() as tx:
            assert failure_store.find(tx, "my secret by mistake", [AWAY], hold=False) == {}

    def test_counters_that_mean_nothing_any_more_are_forgotten(
        self, client: FlaskClient, database: Database, clock: FrozenClock, ada: Principal
    ) -> None:
        fail(client, 2)
        with database.write() as tx:
            assert service.purge_sessions(tx) == 0
        clock.advance(86400)
        with database.write() as tx:
            assert service.purge_sessions(tx) == 2
