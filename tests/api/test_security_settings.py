"""What admins decide about security: shown, changed in part, told in the trail, followed by every process."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity import security, security_store
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.security import Security
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.people import credentials_of, make_person
from tests.factories.trail import trail_of

URL = "/api/v1/security"


@pytest.fixture
def admin(app: Flask, database: Database) -> dict[str, str]:
    return credentials_of(app, make_person(database, role=Role.ADMIN, name="root"))


def test_without_a_decision_the_published_policy_holds(client: FlaskClient, admin: dict[str, str]) -> None:
    shown = client.get(URL, headers=admin).json
    assert shown is not None
    assert shown["password_policy"] == {
        "min_length": 12,
        "require_uppercase": True,
        "require_lowercase": True,
        "require_digit": True,
        "require_special": True,
        "history_count": 5,
        "max_age_days": 90,
    }
    assert client.get(f"{URL}/password-policy", headers=admin).json == shown["password_policy"]
    assert (shown["mfa"]["enabled"], shown["mfa"]["required"], shown["mfa"]["grace_period_hours"]) == (True, False, 24)
    assert shown["lockout"] == {"max_failures": 5, "max_failures_elsewhere": 20, "lockout_minutes": 30}
    assert shown["registration"] == {"allow_registration": True, "default_role": "operator", "is_decided": False}


def test_a_change_names_what_is_another_and_leaves_the_rest(
    client: FlaskClient, admin: dict[str, str], database: Database
) -> None:
    changed = client.put(URL, json={"session": {"idle_timeout_minutes": 30}, "mfa": {"required": True}}, headers=admin)
    assert changed.json is not None
    assert (changed.status_code, changed.json["session"]["idle_timeout_minutes"]) == (200, 30)
    again = client.put(f"{URL}/password-policy", json={"min_length": 16}, headers=admin)
    assert again.json is not None
    assert (again.json["min_length"], again.json["history_count"]) == (16, 5)
    shown = client.get(URL, headers=admin).json
    assert shown is not None
    assert (shown["session"]["idle_timeout_minutes"], shown["session"]["max_duration_hours"]) == (30, 720)
    assert shown["mfa"]["required_since"] is not None
    rows = trail_of(database, action="security.changed")
    assert [row["resource_id"] for row in rows] == ["mfa", "session", "password_policy"]
    assert rows[2]["before"]["password_policy"]["min_length"] == 12
    assert rows[2]["after"]["password_policy"]["min_length"] == 16


@pytest.mark.parametrize(
    "body",
    [
        {"password_policy": {"min_length": 4}},
        {"password_policy": {"min_length": "12"}},
        {"password_policy": {"min_length": None}},
        {"mfa": {"methods": ["sms"]}},
        {"mfa": {"required_since": "2020-01-01T00:00:00Z"}},
        {"session": {"max_duration_hours": 0}},
        {"lockout": {"max_failures": 0}},
        {"registration": {"default_role": "emperor"}},
        {"registration": {"default_role": "admin"}},
        {"unknown": {}},
        {"session": {"unknown": 1}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(client: FlaskClient, admin: dict[str, str], body: dict[str, Any]) -> None:
    assert client.put(URL, json=body, headers=admin).status_code == 422


def test_the_process_that_changed_it_follows_at_once_and_others_within_two_seconds(
    client: FlaskClient, admin: dict[str, str], database: Database, clock: FrozenClock
) -> None:
    with database.read() as tx:
        assert security.current(tx).password_policy.min_length == 12
    client.put(f"{URL}/password-policy", json={"min_length": 16}, headers=admin)
    with database.read() as tx:
        assert security.current(tx).password_policy.min_length == 16
    # As another process writes it: this one is not told.
    with database.write() as tx:
        security_store.put(tx, "password_policy", {"min_length": 20}, by=None)
    with database.read() as tx:
        assert security.current(tx).password_policy.min_length == 16
    clock.advance(2)
    with database.read() as tx:
        assert security.current(tx).password_policy.min_length == 20


def test_a_change_that_is_undone_is_followed_by_nobody(database: Database) -> None:
    def undone() -> None:
        with database.write() as tx:
            security.change(tx, "password_policy", {"min_length": 16}, by=None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    with database.read() as tx:
        assert security.current(tx) == Security()


def test_fields_and_sections_of_a_later_version_are_left_alone() -> None:
    found = security.read_from({"session": {"max_duration_hours": 5, "moon_phase": 3}, "ip_rules": {"rules": []}})
    assert (found.session.max_duration_hours, found.others) == (5, {"ip_rules": {"rules": []}})
