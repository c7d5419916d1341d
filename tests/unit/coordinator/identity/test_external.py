"""What follows from the claims of an identity provider."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coordinator.domains.identity.external import names, roles_to_change, verified_email
from coordinator.domains.identity.external_proof import Proof, claim
from coordinator.domains.identity.providers import Config, Provider

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = st.sampled_from(["admin", "operator", "viewer", "user", "own"])


def provider(**config: Any) -> Provider:
    return Provider(
        id="p",
        name="corporate",
        kind="oidc",
        config=Config(issuer="https://login.example.org", client_id="longshore", **config),
        secrets=None,
        key_id=None,
        active=True,
        created_by=None,
        created_at=NOW,
        updated_at=NOW,
        version=1,
    )


def proof(**claims: Any) -> Proof:
    return Proof("subject", claims, once="once", until=NOW)


@given(st.text())
def test_no_name_looks_like_an_address_of_the_callers_choice_or_is_the_admins(wanted: str) -> None:
    found = list(islice(names(provider(), proof(preferred_username=wanted), "admin"), 4))
    assert len(set(found)) == len(found)
    assert "admin" not in found
    for name in found:
        assert name.isprintable()
        assert 1 <= len(name) <= 255
        assert "@" not in name.replace("@corporate", "", 1)


@given(
    held=st.frozensets(ROLES),
    groups=st.lists(st.sampled_from(["a", "b", "c", "unheard-of"])),
    role_map=st.dictionaries(st.sampled_from(["a", "b", "c"]), ROLES, min_size=1),
)
def test_claims_decide_about_the_mapped_roles_and_about_no_others(
    held: frozenset[str], groups: list[str], role_map: dict[str, str]
) -> None:
    config = provider(role_claim="groups", role_map=role_map, default_role="user").config
    gives, takes = roles_to_change(config, {"groups": groups}, held)
    claimed = {role_map[group] for group in groups if group in role_map}
    after = (held | gives) - takes
    assert claimed <= after
    assert after - held <= claimed
    assert held - after <= set(role_map.values()) - claimed
    assert "user" not in takes


@given(held=st.frozensets(ROLES), groups=st.lists(ROLES))
def test_without_a_map_claims_change_nothing(held: frozenset[str], groups: list[str]) -> None:
    for config in (provider().config, provider(role_claim="groups").config):
        assert roles_to_change(config, {"groups": groups}, held) == (set(), set())


def test_an_address_counts_only_when_somebody_vouches_for_it() -> None:
    told = {"email": "Ada@Example.org"}
    assert verified_email(provider().config, told) is None
    assert verified_email(provider().config, told | {"email_verified": "true"}) is None
    assert verified_email(provider().config, told | {"email_verified": True}) == "ada@example.org"
    assert verified_email(provider(email_is_verified=True).config, told) == "ada@example.org"
    for odd in ("ada", "a@b@c", "a b@c", "@c", "a@", ""):
        assert verified_email(provider(email_is_verified=True).config, {"email": odd}) is None


def test_a_claim_is_found_by_its_name_before_its_path() -> None:
    claims = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "x": [1]}
    assert [claim(claims, path) for path in ("a.b", "a.c.d", "a.z", "x.y", "nothing")] == [1, 3, None, None, None]
