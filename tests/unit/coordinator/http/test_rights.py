"""Declarations of rights, and who passes them."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.http.actor import Actor, ActorKind
from coordinator.http.rights import ENROL, NODE, OPEN, declared, describe, require
from shared.errors import Forbidden


def actor(*rights: str, kind: str = ActorKind.USER, name: str = "me") -> Actor:
    return Actor(id=name, kind=kind, name=name, rights=frozenset(rights))


def passes(may: Any, who: Actor, **path_args: str) -> bool:
    try:
        require(declared(may), who, path_args)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    "may", ["", "tasks", "Tasks:read", "tasks:", ":read", "tasks:read:all", (), (OPEN, "tasks:read"), 7]
)
def test_a_declaration_that_says_nothing_is_refused(may: Any) -> None:
    with pytest.raises(TypeError):
        declared(may)


@pytest.mark.parametrize("right", ["tasks:write", "tasks:*", "*:write", "*"])
def test_a_right_is_covered_by_itself_and_by_wildcards(right: str) -> None:
    assert passes("tasks:write", actor(right))


@pytest.mark.parametrize("right", ["tasks:read", "task:*", "*:read", "tasks", ""])
def test_a_right_is_covered_by_nothing_else(right: str) -> None:
    assert not passes("tasks:write", actor(right))


def test_a_node_reaches_its_own_paths_alone() -> None:
    node = actor(kind=ActorKind.NODE, name="n1")
    assert passes(NODE, node, worker_id="n1")
    assert passes(NODE, node)
    assert not passes(NODE, node, worker_id="n2")


def test_an_admin_is_no_node() -> None:
    assert not passes(NODE, actor("*"), worker_id="me")


def test_enrolling_takes_a_token_for_it_or_the_right() -> None:
    assert passes(ENROL, actor(kind=ActorKind.ENROLMENT))
    assert passes(ENROL, actor("workers:enrol"))
    assert not passes(ENROL, actor("workers:read"))
    assert not passes(ENROL, actor(kind=ActorKind.NODE))


def test_one_of_several_declarations_is_enough() -> None:
    may = ("workers:read", NODE)
    assert passes(may, actor("workers:read"), worker_id="n1")
    assert passes(may, actor(kind=ActorKind.NODE, name="n1"), worker_id="n1")
    assert not passes(may, actor("tasks:read"), worker_id="n1")


def test_a_refusal_says_what_was_required() -> None:
    with pytest.raises(Forbidden) as caught:
        require(declared(("workers:read", NODE)), actor(), {})
    assert caught.value.details["required"] == describe(("workers:read", NODE)) == "workers:read or NODE"
