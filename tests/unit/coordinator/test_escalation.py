"""Nobody can give what they do not have, whatever roles there are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domains.identity.escalation import excess
from coordinator.domains.identity.grants import Bound, Rule, granted
from coordinator.domains.identity.rights import BUILT_IN_IDS, NOUNS, Role, covers

SPACES = (None, "team", "other")
WORDS = ["tasks", "agents", "spaces", "workers", "roles", "space-secrets", "things-to-come", "*"]
VERBS = ["get", "list", "create", "update", "delete", "read-values", "odd", "*"]
EVERY_RIGHT = [f"{noun}:{verb}" for noun in [*NOUNS, "things_to_come"] for verb in VERBS if verb != "*"]

rules = st.builds(
    lambda resources, verbs, names, scope: Rule(tuple(resources), tuple(verbs), resource_names=names, scope=scope),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    st.lists(st.sampled_from(VERBS), min_size=1, max_size=3),
    st.sampled_from([(), (), ("a",), ("a", "b")]),
    st.sampled_from([None, None, "space"]),
)
custom = st.builds(
    lambda many, space: Bound(f"role-{hash(tuple(many))}", "custom", space, tuple(many)),
    st.lists(rules, min_size=1, max_size=3),
    st.sampled_from(SPACES),
)
built_in = st.builds(
    lambda role, space: Bound(BUILT_IN_IDS[role], role.value, space),
    st.sampled_from(list(Role)),
    st.sampled_from(SPACES),
)
bound = st.lists(custom | built_in, max_size=4)


def may(roles: list[Bound], space: str, name: str | None) -> set[str]:
    found = granted(roles, space)
    named = found.named.get(name, frozenset()) if name else frozenset()
    return {right for right in EVERY_RIGHT if covers(found.rights, right) or covers(named, right)}


def held(role: Role, space: str | None = None) -> Bound:
    return Bound(BUILT_IN_IDS[role], role.value, space)


@given(own=bound, wanted=bound)
def test_what_is_not_too_much_lets_nobody_do_what_the_giver_could_not(own: list[Bound], wanted: list[Bound]) -> None:
    if excess(own, wanted):
        return
    for space in ("team", "other", "default", "made-tomorrow"):
        for name in (None, "a", "b"):
            assert may(wanted, space, name) <= may(own, space, name)


@given(own=bound, wanted=bound)
def test_what_is_too_much_is_so_for_a_reason(own: list[Bound], wanted: list[Bound]) -> None:
    for told in excess(own, wanted):
        right = told.partition(" ")[0]
        places = {one.space or "made-tomorrow" for one in wanted}
        assert any(not covers(granted(own, space).rights, right) for space in places)


@given(roles=bound)
def test_everybody_has_what_they_have(roles: list[Bound]) -> None:
    assert not excess(roles, roles)
    assert not excess([held(Role.ADMIN)], roles)


@given(own=bound, wanted=bound, limits=st.sampled_from([frozenset({"account:*"}), frozenset({"*:get"})]))
def test_a_key_hands_on_no_more_than_its_scopes(own: list[Bound], wanted: list[Bound], limits: frozenset[str]) -> None:
    assert excess(own, wanted) <= excess(own, wanted, limits=limits)
    if not excess(own, wanted, limits=limits):
        assert all(covers(limits, right) for right in may(wanted, "team", None) if not right.startswith("account:"))


@pytest.mark.parametrize(
    ("own", "wanted", "is_too_much"),
    [
        ([], [held(Role.USER)], True),
        ([held(Role.VIEWER)], [held(Role.VIEWER, "team")], False),
        ([held(Role.VIEWER, "team")], [held(Role.VIEWER)], True),
        ([held(Role.VIEWER, "team")], [held(Role.VIEWER, "other")], True),
        ([held(Role.ADMIN, "team")], [held(Role.OPERATOR, "team")], False),
        ([held(Role.ADMIN, "team")], [held(Role.ADMIN, "team")], False),
        ([held(Role.ADMIN, "team")], [held(Role.ADMIN)], True),
        ([held(Role.OPERATOR)], [held(Role.ADMIN, "team")], True),
    ],
)
def test_built_in_roles(own: list[Any], wanted: list[Any], is_too_much: bool) -> None:
    assert bool(excess(own, wanted)) is is_too_much
