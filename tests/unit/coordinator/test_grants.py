"""From roles that are held to what somebody may do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domains.identity.grants import Bound, Rule, granted, main_role, reaches
from coordinator.domains.identity.rights import BUILT_IN_IDS, NOUNS, OWN_ACCOUNT, READING, Role, covers

EVERY_RIGHT = [f"{noun}:{verb}" for noun in NOUNS for verb in ("get", "list", "create", "update", "delete", "odd")]
_numbers = iter(range(10**9))


def held(role: Role, space: str | None = None) -> Bound:
    return Bound(BUILT_IN_IDS[role], role.value, space)


def custom(*rules: dict[str, Any], space: str | None = None) -> Bound:
    return Bound(f"role-{next(_numbers)}", "custom", space, tuple(Rule.of(each) for each in rules))


def rule(resources: list[str], verbs: list[str], **more: Any) -> dict[str, Any]:
    return {"resources": resources, "verbs": verbs, **more}


def rights_in(space: str, *bound: Bound) -> set[str]:
    found = granted(bound, space)
    return {right for right in EVERY_RIGHT if covers(found.rights, right)}


def test_somebody_without_a_role_has_an_account_and_nothing_else() -> None:
    assert granted((), "default").rights == OWN_ACCOUNT


def test_the_admin_may_everything_everywhere() -> None:
    assert rights_in("anywhere", held(Role.ADMIN)) == set(EVERY_RIGHT)


def test_an_admin_of_one_space_may_everything_in_it_and_nothing_outside() -> None:
    inside = rights_in("team", held(Role.ADMIN, "team"))
    assert {"tasks:create", "space_secrets:odd", "dead_letters:delete"} <= inside
    assert {right for right in inside if not NOUNS[right.partition(":")[0]].in_space} <= {
        right for right in EVERY_RIGHT if right.startswith("account:")
    }
    assert rights_in("other", held(Role.ADMIN, "team")) == rights_in("other")


@pytest.mark.parametrize("group", ["", "api", "*"])
def test_a_wildcard_in_the_api_group_is_every_noun(group: str) -> None:
    found = rights_in("default", custom(rule(["*"], ["get", "list"], api_groups=[group])))
    assert found >= {right for right in EVERY_RIGHT if right.partition(":")[2] in READING}
    assert "tasks:create" not in found


def test_a_rule_for_another_group_says_nothing_about_the_rest() -> None:
    found = rights_in("default", custom(rule(["*"], ["*"], api_groups=["rbac"])))
    assert {"roles:create", "role_bindings:delete"} <= found
    assert not any(right.startswith("tasks:") for right in found)


@pytest.mark.parametrize("word", ["space.secret", "space-secrets", "space_secrets", "secrets"])
def test_resources_have_several_spellings(word: str) -> None:
    assert "space_secrets:get" in rights_in("default", custom(rule([word], ["read"])))


def test_a_rule_of_scope_space_counts_only_where_the_role_is_held_in_a_space() -> None:
    scoped = rule(["tasks"], ["create"], scope="space")
    assert "tasks:create" not in rights_in("team", custom(scoped))
    assert "tasks:create" in rights_in("team", custom(scoped, space="team"))


def test_a_rule_with_names_counts_for_those_names_alone() -> None:
    found = granted((custom(rule(["agents"], ["get"], resource_names=["writer"])),), "default")
    assert not covers(found.rights, "agents:get")
    assert covers(found.named["writer"], "agents:get")
    assert "reader" not in found.named


def test_spaces_are_known_to_whoever_holds_a_role_there_or_everywhere() -> None:
    assert reaches((held(Role.VIEWER),), "team")
    assert reaches((held(Role.VIEWER, "team"),), "team")
    assert not reaches((held(Role.VIEWER, "other"),), "team")
    assert not reaches((), "team")


def test_the_main_role_is_the_most_powerful_one_that_is_held_everywhere() -> None:
    assert main_role((held(Role.VIEWER), held(Role.OPERATOR), held(Role.ADMIN, "team"))) is Role.OPERATOR
    assert main_role((held(Role.ADMIN, "team"), custom(rule(["*"], ["*"])))) is None


_words = st.sampled_from(["*", "tasks", "agents", "space-secrets", "roles", "unknown"])
_verbs = st.sampled_from(["*", "get", "list", "read", "create", "update", "delete", "odd"])
_rules = st.builds(
    rule,
    st.lists(_words, min_size=1, max_size=3),
    st.lists(_verbs, min_size=1, max_size=3),
    api_groups=st.lists(st.sampled_from(["*", "", "api", "rbac", "else"]), max_size=2),
    resource_names=st.lists(st.sampled_from(["a", "b"]), max_size=2),
    scope=st.sampled_from([None, "global", "space"]),
)
_spaces = st.sampled_from([None, "default", "team"])
_bound = st.one_of(
    st.builds(held, st.sampled_from(list(Role)), _spaces),
    st.builds(lambda rules, space: custom(*rules, space=space), st.lists(_rules, min_size=1, max_size=3), _spaces),
)


def _may(bound: list[Bound], space: str) -> set[tuple[str, str | None]]:
    found = granted(bound, space)
    return {
        (right, name)
        for right in EVERY_RIGHT
        for name in (None, "a", "b")
        if covers(found.rights, right)
        or (name is not None and name in found.named and covers(found.named[name], right))
    }


@given(st.lists(_bound, max_size=4), _bound, st.sampled_from(["default", "team"]))
def test_another_role_never_takes_a_right_away(bound: list[Bound], another: Bound, space: str) -> None:
    assert _may(bound, space) <= _may([*bound, another], space)


@given(_bound, st.sampled_from(["default", "team"]))
def test_without_the_last_role_every_right_is_gone(last: Bound, space: str) -> None:
    assert _may([], space) <= _may([last], space)
    assert {right for right, _ in _may([], space)} == {right for right in EVERY_RIGHT if right.startswith("account:")}


@given(st.lists(_bound, max_size=4))
def test_roles_in_one_space_say_nothing_in_another(bound: list[Bound]) -> None:
    elsewhere = [one for one in bound if one.space != "team"]
    assert _may(elsewhere, "default") == _may(bound, "default")
