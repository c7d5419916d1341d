"""Whose login on the broker is not what it should be."""

from __future__ import annotations

from coordinator.domains.fleet.broker_access import drift


def test_what_is_right_is_left_alone() -> None:
    assert drift({"a": "1"}, {"a": "1"}, ours=[], unsure=[]) == []


def test_missing_outdated_and_switched_off_logins_are_made_anew() -> None:
    assert drift({"a": "1", "b": "2", "c": "3"}, {"b": "old", "c": ""}, ours=[], unsure=[]) == ["a", "b", "c"]


def test_a_login_that_nobody_should_have_goes_and_that_of_another_fleet_stays() -> None:
    assert drift({}, {"rejected": "1", "of-others": "2"}, ours=["rejected"], unsure=[]) == ["rejected"]


def test_a_login_that_may_have_been_made_is_made_sure_of() -> None:
    assert drift({"a": "1"}, {"a": "1"}, ours=[], unsure=["a"]) == ["a"]
