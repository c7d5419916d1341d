"""Who somebody is here who came in by an identity provider, and how admins set providers up."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update

from coordinator.domains.identity.models import (
    audit_trail,
    external_identities,
    identity_providers,
    principals,
    used_assertions,
)
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.sealed import PROVIDER_SECRETS
from coordinator.domains.vault import rotation
from coordinator.domains.vault.keyring import Keyring
from coordinator.resources import Resources
from coordinator.store.database import Database
from tests.factories.external import count, refused, why
from tests.factories.people import credentials_of, make_person
from tests.fixtures.external import LogIn, SetUp
from tests.services.identity_provider import IdentityProvider


class TestPrincipals:
    def test_a_name_that_is_taken_is_nobody_elses(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        local = make_person(database, name="ada", email="ada@example.org")
        set_up()
        answer = come_in(idp.id_token())
        assert answer.json["user"] == "ada@corporate"
        with database.read() as tx:
            made = tx.conn.execute(select(principals).where(principals.c.name == "ada@corporate")).one()
        assert (made.id != local.id, made.email, made.password_hash, made.kind) == (True, None, None, "user")
        assert come_in(idp.id_token(sub="another-ada")).json["user"] == "ada@corporate-2"

    def test_an_address_that_the_provider_does_not_vouch_for_is_not_kept(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        for number, told in enumerate((False, None, "yes", 1)):
            come_in(idp.id_token(sub=f"s{number}", email=f"e{number}@example.org", email_verified=told))
        with database.read() as tx:
            kept = select(principals.c.email).where(principals.c.name != "root")
            assert set(tx.conn.scalars(kept)) == {None}

    @pytest.mark.parametrize(
        ("claimed", "name"),
        [
            ("boss@example.org", "boss"),
            ("Ada Lovelace", "Ada-Lovelace"),
            ("admin", "admin@corporate"),
            ("  ", "user@corporate"),
            ("\u0000\n", "user@corporate"),
            ("x" * 300, "x" * 150),
            (None, "user@corporate"),
            (["first", "second"], "first"),
        ],
    )
    def test_the_name_is_made_from_a_claim(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, claimed: Any, name: str
    ) -> None:
        set_up()
        assert come_in(idp.id_token(preferred_username=claimed)).json["user"] == name

    def test_nobody_without_a_role_may_more_than_the_role_of_the_provider_says(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, client: FlaskClient
    ) -> None:
        set_up()
        set_up(name="viewers", default_role="viewer")
        for provider, status in (("corporate", 403), ("viewers", 200)):
            token = come_in(idp.id_token(), provider=provider).json["token"]
            found = client.get("/api/v1/agents", headers={"Authorization": f"Bearer {token}"})
            assert found.status_code == status

    def test_roles_follow_the_claims_at_each_login(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up(role_claim="realm_access.roles", role_map={"ops": "operator", "root": "admin"})

        def role_after(*groups: str) -> str:
            role: str = come_in(idp.id_token(realm_access={"roles": list(groups)})).json["role"]
            return role

        assert role_after("ops", "unheard-of") == "operator"
        assert role_after("root") == "admin"
        assert role_after() == "user"
        assert come_in(idp.id_token()).json["role"] == "user"
        with database.read() as tx:
            found = select(audit_trail.c.actor_name).where(audit_trail.c.action == "role_binding.deleted")
            assert set(tx.conn.scalars(found)) == {"identity provider corporate"}

    def test_the_last_admin_stays_one(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up(role_claim="groups", role_map={"root": "admin"})
        assert come_in(idp.id_token(groups=["root"])).json["role"] == "admin"
        with database.write() as tx:
            tx.conn.execute(update(principals).where(principals.c.name == "root").values(active=False))
        assert come_in(idp.id_token(groups=[])).json["role"] == "admin"

    def test_only_verified_addresses_of_allowed_domains_come_in(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up(allowed_domains=["@Example.ORG"])
        assert refused(come_in(idp.id_token(email="ada@example.org.evil.net")))
        assert refused(come_in(idp.id_token(email="ada@sub.example.org")))
        assert refused(come_in(idp.id_token(email_verified=False)))
        assert refused(come_in(idp.id_token(email=None)))
        assert count(database, used_assertions) == 0
        assert come_in(idp.id_token(email="Ada@Example.org")).status_code == 200

    def test_somebody_who_was_switched_off_stays_out(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        assert come_in(idp.id_token()).status_code == 200
        with database.write() as tx:
            tx.conn.execute(update(principals).where(principals.c.name == "ada").values(active=False))
        assert refused(come_in(idp.id_token()))
        assert why(database) == "the principal is switched off"

    def test_a_subject_of_one_provider_is_nobody_of_another(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        set_up(name="other")
        assert come_in(idp.id_token()).json["user"] == "ada"
        assert come_in(idp.id_token(), provider="other").json["user"] == "ada@other"


class TestIntrospection:
    def token(self, idp: IdentityProvider, name: str = "opaque", **changes: Any) -> str:
        said = idp.claims(active=True, client_id=idp.CLIENT_ID, username="ada", aud=None, jti=None)
        idp.tokens[name] = {key: value for key, value in (said | changes).items() if value is not None}
        return name

    def test_an_active_token_lets_somebody_in_once(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up("oauth2")
        assert come_in(self.token(idp)).json["service_account"]["user"] == "ada"
        assert refused(come_in("opaque"))
        assert come_in(self.token(idp, "second")).json["user"] == "ada"
        assert count(database, external_identities) == 1

    def test_one_token_with_two_names_is_still_one(self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider) -> None:
        set_up("oauth2")
        assert come_in(self.token(idp, jti="the one")).status_code == 200
        assert refused(come_in(self.token(idp, "opaque=", jti="the one")))

    @pytest.mark.parametrize(
        "changes",
        [
            {"active": False},
            {"active": None},
            {"active": "true"},
            {"active": 1},
            {"exp": 1},
            {"nbf": 99_999_999_999},
            {"client_id": "another"},
            {"client_id": None},
            {"client_id": "another", "aud": ["others"]},
            {"iss": "https://evil.example.org"},
            {"sub": None},
        ],
        ids=str,
    )
    def test_a_token_that_is_not_good_or_not_ours_is_refused(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database, changes: dict[str, Any]
    ) -> None:
        set_up("oauth2")
        assert refused(come_in(self.token(idp, **changes)))
        assert count(database, external_identities) == 0

    def test_unknown_tokens_are_refused_and_strange_ones_not_even_sent(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up("oauth2")
        assert refused(come_in("unheard-of"))
        assert idp.calls["/introspect"] == 1
        assert refused(come_in("two words&client_id=x"))
        assert idp.calls["/introspect"] == 1

    def test_a_wrong_secret_and_nonsense_are_the_providers_fault_and_not_the_tokens(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up("oauth2", secret="a wrong one")
        assert come_in(self.token(idp)).status_code == 503
        set_up("oauth2", name="right")
        assert come_in(self.token(idp, "odd", exp="soon"), provider="right").status_code == 503

    def test_rotated_keys_still_open_what_the_provider_is_shown(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, resources: Resources
    ) -> None:
        set_up("oauth2")
        keyring = Keyring.of(resources)
        begun = rotation.begin(resources.database, keyring)
        done = list(rotation.seal_anew(resources.database, keyring, begun.key))
        assert [(each.purpose, each.sealed) for each in done] == [(PROVIDER_SECRETS, 1)]
        assert come_in(self.token(idp)).status_code == 200


class TestProviders:
    PATH = "/api/v1/identity-providers"

    def test_what_an_admin_sets_up_is_shown_without_its_secret(
        self, set_up: SetUp, client: FlaskClient, root: dict[str, str], database: Database
    ) -> None:
        made = set_up("oauth2", secret="the secret that nobody sees")
        for path in (self.PATH, f"{self.PATH}/{made['id']}", f"{self.PATH}/corporate"):
            shown = client.get(path, headers=root)
            assert (shown.status_code, b"nobody sees" in shown.data, b'"has_secret":true' in shown.data) == (
                200,
                False,
                True,
            )
        with database.read() as tx:
            row = tx.conn.execute(select(identity_providers)).one()
            told = tx.conn.execute(select(audit_trail.c.after)).scalars().all()
        assert "nobody sees" not in f"{row}{told}"
        assert row.secrets.startswith("v1.")

    def test_only_admins_see_or_touch_them(self, app: Flask, client: FlaskClient, database: Database) -> None:
        headers = credentials_of(app, make_person(database, role=Role.OPERATOR))
        body = {"name": "mine", "kind": "oidc", "config": {"issuer": "https://evil.example.org", "client_id": "x"}}
        assert client.get(self.PATH, headers=headers).status_code == 403
        assert client.post(self.PATH, json=body, headers=headers).status_code == 403
        assert client.put(f"{self.PATH}/x", json={}, headers=headers).status_code == 403
        assert client.delete(f"{self.PATH}/x", headers=headers).status_code == 403

    @pytest.mark.parametrize(
        ("kind", "config", "field"),
        [
            ("oidc", {"issuer": "http://login.example.org"}, "config.issuer"),
            ("oidc", {"issuer": "ftp://login.example.org"}, "config.issuer"),
            ("oidc", {"issuer": "https://user:word@login.example.org"}, "config.issuer"),
            ("oidc", {"issuer": "https://169.254.169.254/latest"}, "config.issuer"),
            ("oidc", {"issuer": "https://[::ffff:169.254.169.254]/latest"}, "config.issuer"),
            ("oidc", {"algorithms": ["HS256"]}, "config.algorithms[0]"),
            ("oidc", {"algorithms": ["none"]}, "config.algorithms[0]"),
            ("oidc", {"algorithms": []}, "config.algorithms"),
            ("oidc", {"default_role": "unheard-of"}, "config.role_map"),
            ("oidc", {"role_claim": "groups", "role_map": {"a": "unheard-of"}}, "config.role_map"),
            ("oidc", {"role_map": {"a": "admin"}}, "config.role_claim"),
            ("oidc", {"allowed_domains": ["*"]}, "config.allowed_domains[0]"),
            ("oidc", {"unheard_of": 1}, "config.unheard_of"),
            ("oauth2", {}, "introspection_url"),
            ("oauth2", {"introspection_url": "https://login.example.org/introspect"}, "client_secret"),
            ("saml", {"recipient": "https://console.example.org/acs"}, "config.certificates"),
            ("saml", {"certificates": ["not one"]}, "config.certificates[0]"),
            ("ldap", {}, "kind"),
        ],
        ids=str,
    )
    def test_what_could_not_work_or_would_be_unsafe_is_not_taken(
        self, client: FlaskClient, root: dict[str, str], kind: str, config: dict[str, Any], field: str
    ) -> None:
        body = {
            "name": "x",
            "kind": kind,
            "config": {"issuer": "https://login.example.org", "client_id": "x", **config},
        }
        answer = client.post(self.PATH, json=body, headers=root)
        assert answer.json is not None
        assert (answer.status_code, answer.json["error"]["details"]["field"]) == (422, field)

    def test_a_name_is_given_once(self, set_up: SetUp, client: FlaskClient, root: dict[str, str]) -> None:
        made = set_up()
        body = {name: made[name] for name in ("name", "kind", "config")}
        assert client.post(self.PATH, json=body, headers=root).status_code == 409

    def test_switching_one_off_ends_what_it_has_opened(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, client: FlaskClient, root: dict[str, str]
    ) -> None:
        set_up()
        headers = {"Authorization": f"Bearer {come_in(idp.id_token()).json['token']}"}
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 200
        assert client.put(f"{self.PATH}/corporate", json={"is_active": False}, headers=root).status_code == 200
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 401
        assert come_in(idp.id_token()).status_code == 400

    def test_a_deleted_one_leaves_its_people_without_a_door(
        self,
        set_up: SetUp,
        come_in: LogIn,
        idp: IdentityProvider,
        client: FlaskClient,
        root: dict[str, str],
        database: Database,
    ) -> None:
        set_up()
        headers = {"Authorization": f"Bearer {come_in(idp.id_token()).json['token']}"}
        assert client.delete(f"{self.PATH}/corporate", headers=root).status_code == 204
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 401
        assert count(database, external_identities) == 0
        set_up()
        assert come_in(idp.id_token()).json["user"] == "ada@corporate"

    def test_the_issuer_stays_once_somebody_came_in(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, client: FlaskClient, root: dict[str, str]
    ) -> None:
        made = set_up()
        other = made["config"] | {"issuer": "https://login.example.org"}
        other = {name: value for name, value in other.items() if value is not None}
        assert client.put(f"{self.PATH}/corporate", json={"config": other}, headers=root).status_code == 200
        mine = other | {"issuer": idp.issuer}
        assert client.put(f"{self.PATH}/corporate", json={"config": mine}, headers=root).status_code == 200
        assert come_in(idp.id_token()).status_code == 200
        assert client.put(f"{self.PATH}/corporate", json={"config": other}, headers=root).status_code == 409

    def test_who_changes_an_old_version_is_told(self, set_up: SetUp, client: FlaskClient, root: dict[str, str]) -> None:
        set_up()
        headers = root | {"If-Match": '"7"'}
        assert client.put(f"{self.PATH}/corporate", json={}, headers=headers).status_code == 412

    def test_a_kind_is_enough_where_it_leaves_no_choice(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        assert come_in(idp.id_token(), provider="oidc").status_code == 200
        set_up(name="second", client_id="other")
        assert come_in(idp.id_token(), provider="oidc").status_code == 400
        told = {"issuer": idp.issuer, "client_id": "longshore"}
        assert come_in(idp.id_token(), provider="oidc", provider_config=told).status_code == 200

    @pytest.mark.parametrize("name", ["unheard-of", "oidc", "saml", "google"])
    def test_an_unknown_provider_is_400(
        self, client: FlaskClient, database: Database, come_in: LogIn, name: str
    ) -> None:
        answer = come_in("x.y.z", provider=name)
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "BAD_REQUEST")
