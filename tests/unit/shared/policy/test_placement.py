"""Which node gets a job, and what is said when none can have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy.placement import Needs, NodeFacts, Room, candidates, fits, why_none

NODE = NodeFacts(
    id="n1",
    name="one",
    status="online",
    is_approved=True,
    group="blue",
    labels={"gpu": "true", "zone": "eu"},
    driver="docker",
    isolation="container",
    slots=4,
    free_slots=4,
    light_slots=8,
    free_light=8,
)


def needs(**told: Any) -> Needs:
    return Needs.from_json(told, takes_slot=told.pop("takes_slot", True))


@pytest.mark.parametrize(
    ("asked", "is_fit"),
    [
        ({}, True),
        ({"worker_id": "n1"}, True),
        ({"worker_id": "n2"}, False),
        ({"group": "blue"}, True),
        ({"group": "red"}, False),
        ({"labels": {"gpu": None}}, True),
        ({"labels": {"zone": "eu"}}, True),
        ({"labels": {"zone": "us"}}, False),
        ({"labels": {"tpu": None}}, False),
        ({"driver": "docker"}, True),
        ({"driver": "process"}, False),
        ({"min_isolation": "container"}, True),
        ({"min_isolation": "bwrap"}, True),
        ({"min_isolation": "gvisor"}, False),
    ],
)
def test_a_node_fits_when_it_has_all_that_is_asked(asked: dict[str, Any], is_fit: bool) -> None:
    assert fits(needs(**asked), NODE) is is_fit


def test_work_without_a_computer_does_not_care_about_drivers() -> None:
    assert fits(needs(min_isolation="vm", driver="process", takes_slot=False), NODE)


@pytest.mark.parametrize(
    ("asked", "nodes", "reason"),
    [
        ({}, [], "no_node: no node is approved yet"),
        ({}, [replace(NODE, is_approved=False, status="pending")], "no_node: no node is approved yet"),
        ({"labels": {"tpu": None}}, [NODE], "no_node: no approved node with label tpu"),
        ({"labels": {"zone": "us"}}, [NODE], "no_node: no approved node with label zone=us"),
        ({"group": "red"}, [NODE], "no_node: no approved node in group red"),
        ({"min_isolation": "vm"}, [NODE], "no_node: no approved node with isolation vm or stronger"),
        ({}, [replace(NODE, status="offline")], "no_node: every node that fits is away (one is offline)"),
        ({"worker_id": "n1"}, [replace(NODE, status="offline")], "no_node: node one is offline"),
        ({"worker_id": "n9"}, [NODE], "no_node: there is no node n9"),
    ],
)
def test_the_reason_names_what_is_missing(asked: dict[str, Any], nodes: list[NodeFacts], reason: str) -> None:
    assert not candidates(needs(**asked), nodes)
    assert why_none(needs(**asked), nodes) == reason


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 40))
def test_no_node_ever_gets_more_than_its_room(free: list[int], wanted: int) -> None:
    nodes = [replace(NODE, id=f"n{n}", free_slots=room) for n, room in enumerate(free)]
    room = Room(nodes)
    taken = [node.id for _ in range(wanted) if (node := room.take(needs())) is not None]
    assert len(taken) == min(wanted, sum(free))
    assert all(taken.count(node.id) <= node.free_slots for node in nodes)


def test_the_emptiest_node_comes_first() -> None:
    room = Room([replace(NODE, id="full", free_slots=1), replace(NODE, id="empty", free_slots=3)])
    assert [node.id for _ in range(4) if (node := room.take(needs()))] == ["empty", "empty", "full", "empty"]
