"""What a password must be like, and what a key's scopes mean: no database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coordinator.domains.identity import scopes, security
from coordinator.domains.identity.password_policy import faults_of
from coordinator.domains.identity.rights import covers
from coordinator.domains.identity.security import MfaPolicy, PasswordPolicy
from shared.clock import rfc3339

LAX = PasswordPolicy(
    min_length=8, require_uppercase=False, require_lowercase=False, require_digit=False, require_special=False
)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("password", "faults"),
    [
        ("Correct-horse-7", 0),
        ("Größe-ändert-9", 0),
        ("ελληνικά-ΓΡΆΜΜΑ-7", 0),
        ("short-A7", 1),
        ("alllowercase", 3),
        ("            ", 3),
        ("", 5),
        ("A" * 1025 + "a-7", 1),
    ],
)
def test_each_rule_that_is_broken_is_told(password: str, faults: int) -> None:
    assert len(faults_of(PasswordPolicy(), password)) == faults


def test_rules_that_are_switched_off_are_not_asked() -> None:
    assert faults_of(LAX, "justalongword") == []


def test_a_name_is_no_password_however_it_is_written() -> None:
    assert faults_of(LAX, "Ada@Example.org", ("ada", "ada@example.org", None)) != []
    assert faults_of(LAX, "ada-and-more", ("ada",)) == []


@pytest.mark.parametrize(
    ("given", "may", "may_not"),
    [
        (["read"], ["tasks:get", "tasks:list"], ["tasks:create", "workers:approve"]),
        (["write"], ["tasks:get", "tasks:create", "agents:delete"], ["workers:approve", "space_secrets:read-values"]),
        (["admin"], ["workers:approve", "anything:at_all"], []),
        (["tasks:write"], ["tasks:create", "tasks:delete"], ["tasks:get", "agents:create"]),
        (["tasks:read", "workers:approve"], ["tasks:list", "workers:approve"], ["workers:get"]),
        (["space_secrets:*"], ["space_secrets:read-values"], ["tasks:get"]),
    ],
    ids=str,
)
def test_scopes_stand_for_rights(given: list[str], may: list[str], may_not: list[str]) -> None:
    limits = scopes.rights_of(given)
    assert [right for right in may if not covers(limits, right)] == []
    assert [right for right in may_not if covers(limits, right)] == []


@pytest.mark.parametrize("word", ["read", "write", "admin", "tasks:get", "tasks:*", "workers:approve"])
def test_scopes_that_there_are(word: str) -> None:
    assert scopes.is_known(word)


@pytest.mark.parametrize(
    "word", ["", "*", "*:*", "*:get", "tasks", "tasks:", ":get", "moon:get", "tasks:GET", "tasks:a b"]
)
def test_scopes_that_there_are_not(word: str) -> None:
    assert not scopes.is_known(word)


def test_grace_begins_with_the_later_of_the_account_and_the_decision() -> None:
    policy = MfaPolicy(required=True, grace_period_hours=24, required_since=rfc3339(NOON))
    assert security.grace_ends_at(policy, NOON - timedelta(days=9)) == NOON + timedelta(days=1)
    assert security.grace_ends_at(policy, NOON + timedelta(days=9)) == NOON + timedelta(days=10)
