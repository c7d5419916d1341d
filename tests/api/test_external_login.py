"""Coming in by the word of an identity provider that the tests run themselves, and all that must not get in."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from sqlalchemy import func, select, update

from coordinator.domains.identity.models import (
    audit_trail,
    external_identities,
    identity_providers,
    login_sessions,
    principals,
    used_assertions,
)
from coordinator.domains.identity.rights import Role
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.people import credentials_of, make_person
from tests.services.identity_provider import IdentityProvider, json_answer

LogIn = Callable[..., Any]
SetUp = Callable[..., dict[str, Any]]


@pytest.fixture
def idp(clock: FrozenClock) -> Iterator[IdentityProvider]:
    provider = IdentityProvider(clock.now)
    yield provider
    provider.stop()


@pytest.fixture
def admin(app: Flask, database: Database) -> dict[str, str]:
    return credentials_of(app, make_person(database, role=Role.ADMIN, name="root"))


@pytest.fixture
def set_up(client: FlaskClient, admin: dict[str, str], idp: IdentityProvider) -> SetUp:
    """Lets an admin set a provider up; keywords change its configuration."""

    def one(kind: str = "oidc", *, name: str = "corporate", secret: str | None = None, **config: Any) -> dict[str, Any]:
        usual: dict[str, Any] = {"issuer": idp.issuer, "client_id": idp.CLIENT_ID}
        if kind == "oauth2":
            usual["introspection_url"] = f"{idp.issuer}/introspect"
            secret = secret or idp.CLIENT_SECRET
        body = {"name": name, "kind": kind, "config": usual | config} | ({"client_secret": secret} if secret else {})
        made = client.post("/api/v1/identity-providers", json=body, headers=admin)
        assert made.status_code == 201, made.json
        assert made.json is not None
        return dict(made.json)

    return one


@pytest.fixture
def log_in(client: FlaskClient) -> LogIn:
    def one(token: str, *, provider: str = "corporate", **more: Any) -> Any:
        return client.post("/api/v0/auth/external", json={"provider": provider, "token": token, **more})

    return one


def refused(answer: Any) -> bool:
    """Whether it is the one answer to every proof that is not good."""
    return bool(
        answer.status_code == 401
        and answer.json["error"]["code"] == "AUTHENTICATION_ERROR"
        and answer.json["error"]["message"] == "the proof of identity is not accepted"
    )


def why(database: Database) -> str:
    """What the trail says of the last refusal."""
    with database.read() as tx:
        rows = select(audit_trail.c.message).where(audit_trail.c.outcome == "refused").order_by(audit_trail.c.id.desc())
        return str(tx.conn.scalars(rows).first())


def count(database: Database, table: Any) -> int:
    with database.read() as tx:
        return tx.conn.scalar(select(func.count()).select_from(table)) or 0


class TestOpenId:
    def test_a_good_token_lets_somebody_in_and_the_next_one_the_same_principal(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, client: FlaskClient, database: Database
    ) -> None:
        set_up()
        first = log_in(idp.id_token(), provider_config={"issuer": idp.issuer, "client_id": idp.CLIENT_ID})
        assert first.status_code == 200, first.json
        assert first.json["service_account"] == {"user": "ada", "namespace": None, "provider": "corporate"}
        assert (first.json["token_type"], first.json["user"], first.json["role"]) == ("Bearer", "ada", "user")
        me = client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {first.json['token']}"})
        assert me.json is not None
        assert (me.json["name"], me.json["email"], me.json["full_name"]) == ("ada", "ada@example.org", "Ada Lovelace")
        again = log_in(idp.id_token(name="Another Name"))
        assert again.json["user"] == "ada"
        assert count(database, external_identities) == 1
        with database.read() as tx:
            assert set(tx.conn.scalars(select(login_sessions.c.kind))) >= {"external"}

    def test_a_token_is_good_for_a_day_and_ends_with_the_session(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, client: FlaskClient, clock: FrozenClock
    ) -> None:
        set_up()
        headers = {"Authorization": f"Bearer {log_in(idp.id_token()).json['token']}"}
        clock.advance(86399)
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 200
        clock.advance(1)
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 401

    def test_a_token_is_good_once(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        token = idp.id_token(jti=None)
        assert log_in(token).status_code == 200
        assert refused(log_in(token))
        assert why(database) == "the proof was shown before"

    def test_a_token_written_in_another_way_is_the_same_token(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        claims = idp.claims()
        once, twice = (
            jwt.encode({"alg": "RS256", "kid": "first", **extra}, claims, idp.key) for extra in ({}, {"cty": "x"})
        )
        assert once != twice
        assert log_in(once).status_code == 200
        assert refused(log_in(twice))

    def test_of_many_that_show_one_token_at_once_one_comes_in(
        self, set_up: SetUp, app: Flask, idp: IdentityProvider
    ) -> None:
        set_up()
        token, start, found = idp.id_token(), threading.Barrier(4), []

        def work() -> None:
            with app.test_client() as mine:
                start.wait()
                answer = mine.post("/api/v0/auth/external", json={"provider": "corporate", "token": token})
                found.append(answer.status_code)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert sorted(found) == [200, 401, 401, 401]

    def test_many_first_logins_of_one_person_at_once_make_one_principal(
        self, set_up: SetUp, app: Flask, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        tokens, start, found = [idp.id_token() for _ in range(4)], threading.Barrier(4), []

        def work(token: str) -> None:
            with app.test_client() as mine:
                start.wait()
                answer = mine.post("/api/v0/auth/external", json={"provider": "corporate", "token": token})
                found.append((answer.status_code, (answer.json or {}).get("user")))

        threads = [threading.Thread(target=work, args=(token,)) for token in tokens]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert found == [(200, "ada")] * 4
        assert count(database, external_identities) == 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"iss": "http://127.0.0.1:1/realms/other"},
            {"iss": None},
            {"aud": "another client"},
            {"aud": ["another client"]},
            {"aud": None},
            {"aud": ["longshore", "another client"]},
            {"aud": ["longshore", "another client"], "azp": "another client"},
            {"azp": "another client"},
            {"exp": 1},
            {"exp": None},
            {"exp": "never"},
            {"exp": True},
            {"exp": 99_999_999_999},
            {"iat": None},
            {"iat": 99_999_999_999},
            {"nbf": 99_999_999_999},
            {"sub": None},
            {"sub": ""},
            {"sub": 7},
            {"sub": "x" * 256},
        ],
        ids=str,
    )
    def test_a_token_that_says_something_else_is_refused(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database, changes: dict[str, Any]
    ) -> None:
        set_up()
        assert refused(log_in(idp.id_token(**changes)))
        assert count(database, external_identities) == 0
        assert count(database, used_assertions) == 0

    def test_clocks_may_differ_by_a_minute(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        now = int(clock.now().timestamp())
        assert log_in(idp.id_token(exp=now - 59)).status_code == 200
        assert refused(log_in(idp.id_token(exp=now - 61)))
        assert log_in(idp.id_token(nbf=now + 59, iat=now + 59)).status_code == 200
        assert refused(log_in(idp.id_token(nbf=now + 61)))

    def test_a_token_that_several_clients_may_see_needs_to_say_that_it_was_made_for_us(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        assert log_in(idp.id_token(aud=["other", "longshore"], azp="longshore")).status_code == 200

    def test_a_nonce_that_was_sent_has_to_be_the_one_in_the_token(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        assert log_in(idp.id_token(nonce="n-1"), nonce="n-1").status_code == 200
        assert refused(log_in(idp.id_token(nonce="n-1"), nonce="n-2"))
        assert refused(log_in(idp.id_token(), nonce="n-1"))

    def test_a_provider_that_demands_a_nonce_gets_one(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up(nonce_required=True)
        missing = log_in(idp.id_token(nonce="n-1"))
        assert (missing.status_code, missing.json["error"]["details"]["field"]) == (422, "nonce")
        assert log_in(idp.id_token(nonce="n-1"), nonce="n-1").status_code == 200


class TestForgeries:
    def test_another_key_by_the_same_name_does_not_verify(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        assert refused(log_in(idp.id_token(key=RSAKey.generate_key(2048))))
        assert why(database) == "the signature of the token is wrong"

    def test_a_changed_claim_does_not_verify(self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider) -> None:
        set_up()
        head, _, signature = idp.id_token().split(".")
        other = base64.urlsafe_b64encode(json.dumps(idp.claims(sub="somebody-else")).encode()).rstrip(b"=").decode()
        assert refused(log_in(f"{head}.{other}.{signature}"))

    @pytest.mark.parametrize("word", ["none", "None", "NONE", "nOnE", ""])
    def test_no_signature_is_no_proof(self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, word: str) -> None:
        set_up()
        parts = [{"alg": word, "kid": "first", "typ": "JWT"}, idp.claims()]
        encoded = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts]
        for signature in ("", idp.id_token().rpartition(".")[2]):
            assert refused(log_in(".".join([*encoded, signature])))

    def test_the_public_key_is_no_shared_secret(self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider) -> None:
        set_up()
        head = {"alg": "HS256", "kid": "first", "typ": "JWT"}
        signed = b".".join(
            base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (head, idp.claims())
        )
        for public in (idp.key.as_pem(private=False), json.dumps(idp.published[0]).encode()):
            signature = base64.urlsafe_b64encode(hmac.digest(public, signed, "sha256")).rstrip(b"=")
            assert refused(log_in(b".".join([signed, signature]).decode()))

    def test_a_symmetric_key_among_the_published_ones_verifies_nothing(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        secret = OctKey.generate_key(256, {"kid": "shared"})
        idp.published.append(secret.as_dict(private=True))
        set_up()
        assert refused(
            log_in(jwt.encode({"alg": "HS256", "kid": "shared"}, idp.claims(), secret, algorithms=["HS256"]))
        )
        assert log_in(idp.id_token()).status_code == 200

    def test_a_key_that_the_token_brings_along_is_not_asked(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        mine = RSAKey.generate_key(2048)
        for header in ({"jwk": mine.as_dict(private=False)}, {"jku": f"{idp.issuer}/mine"}, {"kid": "mine"}):
            assert refused(log_in(idp.id_token(key=mine, header=header)))
        assert idp.calls["/mine"] == 0

    def test_an_algorithm_that_the_admin_does_not_name_is_refused(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        other = ECKey.generate_key("P-256", {"kid": "curve"})
        idp.published.append(other.as_dict(private=False))
        set_up(algorithms=["RS256"])
        assert refused(log_in(idp.id_token(key=other, header={"alg": "ES256", "kid": "curve"})))
        set_up(name="second", algorithms=["RS256", "ES256"])
        good = idp.id_token(key=other, header={"alg": "ES256", "kid": "curve"})
        assert log_in(good, provider="second").status_code == 200

    @pytest.mark.parametrize("kind", ["at+jwt", "logout+jwt", "secevent+jwt"])
    def test_what_else_the_issuer_signs_is_no_proof_of_identity(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, kind: str
    ) -> None:
        set_up()
        assert refused(log_in(idp.id_token(header={"typ": kind})))

    @pytest.mark.parametrize(
        "token", ["x", "a.b.c", "....", "eyJ.eyJ.", "\u00e9.\u00e9.\u00e9", "x" * 40_000, '{"a":1}']
    )
    def test_what_is_no_token_is_refused(self, set_up: SetUp, log_in: LogIn, token: str) -> None:
        set_up()
        assert refused(log_in(token))

    def test_a_broken_key_among_the_published_ones_hides_no_other(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        idp.published[:0] = [{"kty": "RSA", "kid": "broken"}, {"kty": "EC", "crv": "P-0", "kid": "odd"}, {"kty": "LMS"}]
        set_up()
        assert log_in(idp.id_token()).status_code == 200

    @pytest.mark.parametrize(
        "config",
        [
            {"issuer": "https://evil.example.org"},
            {"client_id": "another"},
            {"jwks_uri": "https://evil.example.org/keys"},
            {"allow_insecure": True},
            {"certificates": ["x"]},
            {"role_map": {"everybody": "admin"}},
        ],
        ids=str,
    )
    def test_a_caller_does_not_say_how_a_provider_is_asked(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, config: dict[str, Any]
    ) -> None:
        set_up()
        assert refused(log_in(idp.id_token(), provider_config=config))
        assert not idp.calls


class TestKeys:
    def test_keys_are_asked_for_once(self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider) -> None:
        set_up()
        assert [log_in(idp.id_token()).status_code for _ in range(3)] == [200] * 3
        assert (idp.calls["/keys"], idp.calls["/.well-known/openid-configuration"]) == (1, 1)

    def test_a_new_key_is_found_without_waiting_for_an_hour(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert log_in(idp.id_token()).status_code == 200
        idp.key = RSAKey.generate_key(2048, {"kid": "second"})
        idp.published.append(idp.key.as_dict(private=False))
        clock.advance(31)
        assert log_in(idp.id_token(header={"kid": "second"})).status_code == 200
        assert idp.calls["/keys"] == 2

    def test_a_flood_of_unknown_keys_asks_the_provider_once(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert log_in(idp.id_token()).status_code == 200
        clock.advance(31)
        assert all(refused(log_in(idp.id_token(header={"kid": f"unknown-{n}"}))) for n in range(20))
        assert idp.calls["/keys"] == 2
        assert log_in(idp.id_token()).status_code == 200

    def test_a_withdrawn_key_is_good_for_an_hour_at_most(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert log_in(idp.id_token()).status_code == 200
        idp.published.clear()
        clock.advance(3601)
        assert refused(log_in(idp.id_token()))

    def test_a_token_without_a_key_id_is_judged_by_the_only_key_there_is(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        token = jwt.encode({"alg": "RS256"}, idp.claims(), idp.key)
        assert log_in(token).status_code == 200

    def test_a_provider_that_is_down_is_told_as_such(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        token = idp.id_token()
        idp.stop()
        answer = log_in(token)
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "UNAVAILABLE")
        assert answer.json["error"]["details"]["reason"] == "identity_provider"

    def test_known_keys_bridge_a_day_without_the_provider(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert log_in(idp.id_token()).status_code == 200
        idp.answers["/keys"] = lambda: json_answer({}, 500)
        clock.advance(23 * 3600)
        assert log_in(idp.id_token()).status_code == 200
        clock.advance(2 * 3600)
        assert log_in(idp.id_token()).status_code == 503

    @pytest.mark.parametrize(
        ("path", "answer"),
        [
            ("/.well-known/openid-configuration", json_answer({"issuer": "https://evil.example.org", "jwks_uri": "x"})),
            ("/.well-known/openid-configuration", json_answer({})),
            ("/.well-known/openid-configuration", json_answer([])),
            ("/.well-known/openid-configuration", (200, {}, b"<html>")),
            ("/.well-known/openid-configuration", json_answer({}, 404)),
            ("/keys", (302, {"Location": "http://127.0.0.1:1/keys"}, b"")),
            ("/keys", (200, {"Content-Encoding": "gzip"}, b"")),
            ("/keys", (200, {}, b'{"keys": [' + b" " * 600_000 + b"]}")),
        ],
        ids=["another issuer", "nothing", "a list", "a page", "not found", "a redirect", "packed", "endless"],
    )
    def test_an_answer_that_is_none_is_told_as_such(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, path: str, answer: Any
    ) -> None:
        set_up()
        idp.answers[path] = lambda: answer
        assert log_in(idp.id_token()).status_code == 503

    @pytest.mark.parametrize(
        "address", ["http://127.0.0.2/keys", "http://169.254.169.254/keys", "file:///etc/passwd", "", 7]
    )
    def test_keys_are_not_fetched_from_wherever_a_document_says(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, address: Any
    ) -> None:
        set_up()
        idp.answers["/.well-known/openid-configuration"] = lambda: json_answer(
            {"issuer": idp.issuer, "jwks_uri": address}
        )
        assert log_in(idp.id_token()).status_code == 503


class TestPrincipals:
    def test_a_name_that_is_taken_is_nobody_elses(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        local = make_person(database, name="ada", email="ada@example.org")
        set_up()
        answer = log_in(idp.id_token())
        assert answer.json["user"] == "ada@corporate"
        with database.read() as tx:
            made = tx.conn.execute(select(principals).where(principals.c.name == "ada@corporate")).one()
        assert (made.id != local.id, made.email, made.password_hash, made.kind) == (True, None, None, "user")
        assert log_in(idp.id_token(sub="another-ada")).json["user"] == "ada@corporate-2"

    def test_an_address_that_the_provider_does_not_vouch_for_is_not_kept(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        for number, told in enumerate((False, None, "yes", 1)):
            log_in(idp.id_token(sub=f"s{number}", email=f"e{number}@example.org", email_verified=told))
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
            ("x" * 300, "x" * 200),
            (None, "user@corporate"),
            (["first", "second"], "first"),
        ],
    )
    def test_the_name_is_made_from_a_claim(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, claimed: Any, name: str
    ) -> None:
        set_up()
        assert log_in(idp.id_token(preferred_username=claimed)).json["user"] == name

    def test_nobody_without_a_role_may_more_than_the_role_of_the_provider_says(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, client: FlaskClient
    ) -> None:
        set_up()
        set_up(name="viewers", default_role="viewer")
        for provider, status in (("corporate", 403), ("viewers", 200)):
            token = log_in(idp.id_token(), provider=provider).json["token"]
            found = client.get("/api/v1/agents", headers={"Authorization": f"Bearer {token}"})
            assert found.status_code == status

    def test_roles_follow_the_claims_at_each_login(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up(role_claim="realm_access.roles", role_map={"ops": "operator", "root": "admin"})

        def role_after(*groups: str) -> str:
            role: str = log_in(idp.id_token(realm_access={"roles": list(groups)})).json["role"]
            return role

        assert role_after("ops", "unheard-of") == "operator"
        assert role_after("root") == "admin"
        assert role_after() == "user"
        assert log_in(idp.id_token()).json["role"] == "user"
        with database.read() as tx:
            found = select(audit_trail.c.actor_name).where(audit_trail.c.action == "role_binding.deleted")
            assert set(tx.conn.scalars(found)) == {"identity provider corporate"}

    def test_the_last_admin_stays_one(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up(role_claim="groups", role_map={"root": "admin"})
        assert log_in(idp.id_token(groups=["root"])).json["role"] == "admin"
        with database.write() as tx:
            tx.conn.execute(update(principals).where(principals.c.name == "root").values(active=False))
        assert log_in(idp.id_token(groups=[])).json["role"] == "admin"

    def test_only_verified_addresses_of_allowed_domains_come_in(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up(allowed_domains=["@Example.ORG"])
        assert refused(log_in(idp.id_token(email="ada@example.org.evil.net")))
        assert refused(log_in(idp.id_token(email="ada@sub.example.org")))
        assert refused(log_in(idp.id_token(email_verified=False)))
        assert refused(log_in(idp.id_token(email=None)))
        assert count(database, used_assertions) == 0
        assert log_in(idp.id_token(email="Ada@Example.org")).status_code == 200

    def test_somebody_who_was_switched_off_stays_out(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        assert log_in(idp.id_token()).status_code == 200
        with database.write() as tx:
            tx.conn.execute(update(principals).where(principals.c.name == "ada").values(active=False))
        assert refused(log_in(idp.id_token()))
        assert why(database) == "the principal is switched off"

    def test_a_subject_of_one_provider_is_nobody_of_another(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        set_up(name="other")
        assert log_in(idp.id_token()).json["user"] == "ada"
        assert log_in(idp.id_token(), provider="other").json["user"] == "ada@other"


class TestIntrospection:
    def token(self, idp: IdentityProvider, name: str = "opaque", **changes: Any) -> str:
        said = idp.claims(active=True, client_id=idp.CLIENT_ID, username="ada", aud=None, jti=None)
        idp.tokens[name] = {key: value for key, value in (said | changes).items() if value is not None}
        return name

    def test_an_active_token_lets_somebody_in_once(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up("oauth2")
        assert log_in(self.token(idp)).json["service_account"]["user"] == "ada"
        assert refused(log_in("opaque"))
        assert log_in(self.token(idp, "second")).json["user"] == "ada"
        assert count(database, external_identities) == 1

    def test_one_token_with_two_names_is_still_one(self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider) -> None:
        set_up("oauth2")
        assert log_in(self.token(idp, jti="the one")).status_code == 200
        assert refused(log_in(self.token(idp, "opaque=", jti="the one")))

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
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, database: Database, changes: dict[str, Any]
    ) -> None:
        set_up("oauth2")
        assert refused(log_in(self.token(idp, **changes)))
        assert count(database, external_identities) == 0

    def test_unknown_tokens_are_refused_and_strange_ones_not_even_sent(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up("oauth2")
        assert refused(log_in("unheard-of"))
        assert idp.calls["/introspect"] == 1
        assert refused(log_in("two words&client_id=x"))
        assert idp.calls["/introspect"] == 1

    def test_a_wrong_secret_and_nonsense_are_the_providers_fault_and_not_the_tokens(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up("oauth2", secret="a wrong one")
        assert log_in(self.token(idp)).status_code == 503
        set_up("oauth2", name="right")
        assert log_in(self.token(idp, "odd", exp="soon"), provider="right").status_code == 503


class TestProviders:
    PATH = "/api/v1/identity-providers"

    def test_what_an_admin_sets_up_is_shown_without_its_secret(
        self, set_up: SetUp, client: FlaskClient, admin: dict[str, str], database: Database
    ) -> None:
        made = set_up("oauth2", secret="the secret that nobody sees")
        for path in (self.PATH, f"{self.PATH}/{made['id']}", f"{self.PATH}/corporate"):
            shown = client.get(path, headers=admin)
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
        self, client: FlaskClient, admin: dict[str, str], kind: str, config: dict[str, Any], field: str
    ) -> None:
        body = {
            "name": "x",
            "kind": kind,
            "config": {"issuer": "https://login.example.org", "client_id": "x", **config},
        }
        answer = client.post(self.PATH, json=body, headers=admin)
        assert answer.json is not None
        assert (answer.status_code, answer.json["error"]["details"]["field"]) == (422, field)

    def test_a_name_is_given_once(self, set_up: SetUp, client: FlaskClient, admin: dict[str, str]) -> None:
        made = set_up()
        body = {name: made[name] for name in ("name", "kind", "config")}
        assert client.post(self.PATH, json=body, headers=admin).status_code == 409

    def test_switching_one_off_ends_what_it_has_opened(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, client: FlaskClient, admin: dict[str, str]
    ) -> None:
        set_up()
        headers = {"Authorization": f"Bearer {log_in(idp.id_token()).json['token']}"}
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 200
        assert client.put(f"{self.PATH}/corporate", json={"is_active": False}, headers=admin).status_code == 200
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 401
        assert log_in(idp.id_token()).status_code == 400

    def test_a_deleted_one_leaves_its_people_without_a_door(
        self,
        set_up: SetUp,
        log_in: LogIn,
        idp: IdentityProvider,
        client: FlaskClient,
        admin: dict[str, str],
        database: Database,
    ) -> None:
        set_up()
        headers = {"Authorization": f"Bearer {log_in(idp.id_token()).json['token']}"}
        assert client.delete(f"{self.PATH}/corporate", headers=admin).status_code == 204
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 401
        assert count(database, external_identities) == 0
        set_up()
        assert log_in(idp.id_token()).json["user"] == "ada@corporate"

    def test_the_issuer_stays_once_somebody_came_in(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider, client: FlaskClient, admin: dict[str, str]
    ) -> None:
        made = set_up()
        other = made["config"] | {"issuer": "https://login.example.org"}
        other = {name: value for name, value in other.items() if value is not None}
        assert client.put(f"{self.PATH}/corporate", json={"config": other}, headers=admin).status_code == 200
        mine = other | {"issuer": idp.issuer}
        assert client.put(f"{self.PATH}/corporate", json={"config": mine}, headers=admin).status_code == 200
        assert log_in(idp.id_token()).status_code == 200
        assert client.put(f"{self.PATH}/corporate", json={"config": other}, headers=admin).status_code == 409

    def test_who_changes_an_old_version_is_told(
        self, set_up: SetUp, client: FlaskClient, admin: dict[str, str]
    ) -> None:
        set_up()
        headers = admin | {"If-Match": '"7"'}
        assert client.put(f"{self.PATH}/corporate", json={}, headers=headers).status_code == 412

    def test_a_kind_is_enough_where_it_leaves_no_choice(
        self, set_up: SetUp, log_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        assert log_in(idp.id_token(), provider="oidc").status_code == 200
        set_up(name="second", client_id="other")
        assert log_in(idp.id_token(), provider="oidc").status_code == 400
        told = {"issuer": idp.issuer, "client_id": "longshore"}
        assert log_in(idp.id_token(), provider="oidc", provider_config=told).status_code == 200

    @pytest.mark.parametrize("name", ["unheard-of", "oidc", "saml", "google"])
    def test_an_unknown_provider_is_400(
        self, client: FlaskClient, database: Database, log_in: LogIn, name: str
    ) -> None:
        answer = log_in("x.y.z", provider=name)
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "BAD_REQUEST")
