"""Coming in by the word of an OpenID provider that the tests run themselves, and all that must not get in."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from sqlalchemy import select

from coordinator.domains.identity.models import external_identities, login_sessions, used_assertions
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.external import count, refused, why
from tests.fixtures.external import LogIn, SetUp
from tests.services.identity_provider import IdentityProvider, json_answer


class TestOpenId:
    def test_a_good_token_lets_somebody_in_and_the_next_one_the_same_principal(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, client: FlaskClient, database: Database
    ) -> None:
        set_up()
        first = come_in(idp.id_token(), provider_config={"issuer": idp.issuer, "client_id": idp.CLIENT_ID})
        assert first.status_code == 200, first.json
        assert first.json["service_account"] == {"user": "ada", "namespace": None, "provider": "corporate"}
        assert (first.json["token_type"], first.json["user"], first.json["role"]) == ("Bearer", "ada", "user")
        me = client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {first.json['token']}"})
        assert me.json is not None
        assert (me.json["name"], me.json["email"], me.json["full_name"]) == ("ada", "ada@example.org", "Ada Lovelace")
        again = come_in(idp.id_token(name="Another Name"))
        assert again.json["user"] == "ada"
        assert count(database, external_identities) == 1
        with database.read() as tx:
            assert set(tx.conn.scalars(select(login_sessions.c.kind))) >= {"external"}

    def test_a_token_is_good_for_a_day_and_ends_with_the_session(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, client: FlaskClient, clock: FrozenClock
    ) -> None:
        set_up()
        headers = {"Authorization": f"Bearer {come_in(idp.id_token()).json['token']}"}
        clock.advance(86399)
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 200
        clock.advance(1)
        assert client.get("/api/v0/auth/me", headers=headers).status_code == 401

    def test_a_token_is_good_once(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        token = idp.id_token(jti=None)
        assert come_in(token).status_code == 200
        assert refused(come_in(token))
        assert why(database) == "the proof was shown before"

    def test_a_token_written_in_another_way_is_the_same_token(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        claims = idp.claims()
        once, twice = (
            jwt.encode({"alg": "RS256", "kid": "first", **extra}, claims, idp.key) for extra in ({}, {"cty": "x"})
        )
        assert once != twice
        assert come_in(once).status_code == 200
        assert refused(come_in(twice))

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
        assert idp.calls["/keys"] == 1
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
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database, changes: dict[str, Any]
    ) -> None:
        set_up()
        assert refused(come_in(idp.id_token(**changes)))
        assert count(database, external_identities) == 0
        assert count(database, used_assertions) == 0

    def test_clocks_may_differ_by_a_minute(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        now = int(clock.now().timestamp())
        assert come_in(idp.id_token(exp=now - 59)).status_code == 200
        assert refused(come_in(idp.id_token(exp=now - 61)))
        assert come_in(idp.id_token(nbf=now + 59, iat=now + 59)).status_code == 200
        assert refused(come_in(idp.id_token(nbf=now + 61)))

    def test_a_token_that_several_clients_may_see_needs_to_say_that_it_was_made_for_us(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        assert come_in(idp.id_token(aud=["other", "longshore"], azp="longshore")).status_code == 200

    def test_a_nonce_that_was_sent_has_to_be_the_one_in_the_token(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        assert come_in(idp.id_token(nonce="n-1"), nonce="n-1").status_code == 200
        assert refused(come_in(idp.id_token(nonce="n-1"), nonce="n-2"))
        assert refused(come_in(idp.id_token(), nonce="n-1"))

    def test_a_provider_that_demands_a_nonce_gets_one(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up(nonce_required=True)
        missing = come_in(idp.id_token(nonce="n-1"))
        assert (missing.status_code, missing.json["error"]["details"]["field"]) == (422, "nonce")
        assert come_in(idp.id_token(nonce="n-1"), nonce="n-1").status_code == 200


def _encoded(value: Any) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


class TestForgeries:
    def test_another_key_by_the_same_name_does_not_verify(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, database: Database
    ) -> None:
        set_up()
        assert refused(come_in(idp.id_token(key=RSAKey.generate_key(2048))))
        assert why(database) == "the signature of the token is wrong"

    def test_a_changed_claim_does_not_verify(self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider) -> None:
        set_up()
        head, _, signature = idp.id_token().split(".")
        other = base64.urlsafe_b64encode(json.dumps(idp.claims(sub="somebody-else")).encode()).rstrip(b"=").decode()
        assert refused(come_in(f"{head}.{other}.{signature}"))

    @pytest.mark.parametrize("word", ["none", "None", "NONE", "nOnE", ""])
    def test_no_signature_is_no_proof(self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, word: str) -> None:
        set_up()
        parts = [{"alg": word, "kid": "first", "typ": "JWT"}, idp.claims()]
        encoded = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts]
        for signature in ("", idp.id_token().rpartition(".")[2]):
            assert refused(come_in(".".join([*encoded, signature])))

    def test_the_public_key_is_no_shared_secret(self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider) -> None:
        set_up()
        head = {"alg": "HS256", "kid": "first", "typ": "JWT"}
        signed = b".".join(
            base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (head, idp.claims())
        )
        for public in (idp.key.as_pem(private=False), json.dumps(idp.published[0]).encode()):
            signature = base64.urlsafe_b64encode(hmac.digest(public, signed, "sha256")).rstrip(b"=")
            assert refused(come_in(b".".join([signed, signature]).decode()))

    def test_a_symmetric_key_among_the_published_ones_verifies_nothing(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        secret = OctKey.generate_key(256, {"kid": "shared"})
        idp.published.append(secret.as_dict(private=True))
        set_up()
        assert refused(
            come_in(jwt.encode({"alg": "HS256", "kid": "shared"}, idp.claims(), secret, algorithms=["HS256"]))
        )
        assert come_in(idp.id_token()).status_code == 200

    def test_a_key_that_the_token_brings_along_is_not_asked(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        mine = RSAKey.generate_key(2048)
        for header in ({"jwk": mine.as_dict(private=False)}, {"jku": f"{idp.issuer}/mine"}, {"kid": "mine"}):
            assert refused(come_in(idp.id_token(key=mine, header=header)))
        assert idp.calls["/mine"] == 0

    @pytest.mark.parametrize(
        "header", [{"crit": ["exp"], "exp": 1}, {"crit": ["unheard-of"], "unheard-of": 1}, {"crit": []}], ids=str
    )
    def test_what_has_to_be_understood_and_is_not_is_refused(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, header: dict[str, Any]
    ) -> None:
        set_up()
        head = {"alg": "RS256", "kid": "first", "typ": "JWT"} | header
        signed = b".".join(_encoded(each) for each in (head, idp.claims()))
        key = idp.key.private_key
        assert key is not None
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        assert refused(come_in(b".".join([signed, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()))

    def test_an_algorithm_that_the_admin_does_not_name_is_refused(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        other = ECKey.generate_key("P-256", {"kid": "curve"})
        idp.published.append(other.as_dict(private=False))
        set_up(algorithms=["RS256"])
        assert refused(come_in(idp.id_token(key=other, header={"alg": "ES256", "kid": "curve"})))
        set_up(name="second", algorithms=["RS256", "ES256"])
        good = idp.id_token(key=other, header={"alg": "ES256", "kid": "curve"})
        assert come_in(good, provider="second").status_code == 200

    @pytest.mark.parametrize("kind", ["at+jwt", "logout+jwt", "secevent+jwt"])
    def test_what_else_the_issuer_signs_is_no_proof_of_identity(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, kind: str
    ) -> None:
        set_up()
        assert refused(come_in(idp.id_token(header={"typ": kind})))

    @pytest.mark.parametrize(
        "token", ["x", "a.b.c", "....", "eyJ.eyJ.", "\u00e9.\u00e9.\u00e9", "x" * 40_000, '{"a":1}']
    )
    def test_what_is_no_token_is_refused(self, set_up: SetUp, come_in: LogIn, token: str) -> None:
        set_up()
        assert refused(come_in(token))

    def test_a_broken_key_among_the_published_ones_hides_no_other(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        idp.published[:0] = [{"kty": "RSA", "kid": "broken"}, {"kty": "EC", "crv": "P-0", "kid": "odd"}, {"kty": "LMS"}]
        set_up()
        assert come_in(idp.id_token()).status_code == 200

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
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, config: dict[str, Any]
    ) -> None:
        set_up()
        assert refused(come_in(idp.id_token(), provider_config=config))
        assert not idp.calls


class TestKeys:
    def test_keys_are_asked_for_once(self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider) -> None:
        set_up()
        assert [come_in(idp.id_token()).status_code for _ in range(3)] == [200] * 3
        assert (idp.calls["/keys"], idp.calls["/.well-known/openid-configuration"]) == (1, 1)

    def test_a_new_key_is_found_without_waiting_for_an_hour(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert come_in(idp.id_token()).status_code == 200
        idp.key = RSAKey.generate_key(2048, {"kid": "second"})
        idp.published.append(idp.key.as_dict(private=False))
        clock.advance(31)
        assert come_in(idp.id_token(header={"kid": "second"})).status_code == 200
        assert idp.calls["/keys"] == 2

    def test_a_flood_of_unknown_keys_asks_the_provider_once(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert come_in(idp.id_token()).status_code == 200
        clock.advance(31)
        assert all(refused(come_in(idp.id_token(header={"kid": f"unknown-{n}"}))) for n in range(20))
        assert idp.calls["/keys"] == 2
        assert come_in(idp.id_token()).status_code == 200

    def test_a_withdrawn_key_is_good_for_an_hour_at_most(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert come_in(idp.id_token()).status_code == 200
        idp.published.clear()
        clock.advance(3601)
        assert refused(come_in(idp.id_token()))

    def test_a_token_without_a_key_id_is_judged_by_the_only_key_there_is(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider
    ) -> None:
        set_up()
        token = jwt.encode({"alg": "RS256"}, idp.claims(), idp.key)
        assert come_in(token).status_code == 200

    def test_a_provider_that_is_down_is_told_as_such(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        token = idp.id_token()
        idp.stop()
        answer = come_in(token)
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "UNAVAILABLE")
        assert answer.json["error"]["details"]["reason"] == "identity_provider"

    def test_known_keys_bridge_a_day_without_the_provider(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, clock: FrozenClock
    ) -> None:
        set_up()
        assert come_in(idp.id_token()).status_code == 200
        idp.answers["/keys"] = lambda: json_answer({}, 500)
        clock.advance(23 * 3600)
        assert come_in(idp.id_token()).status_code == 200
        clock.advance(2 * 3600)
        assert come_in(idp.id_token()).status_code == 503

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
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, path: str, answer: Any
    ) -> None:
        set_up()
        idp.answers[path] = lambda: answer
        assert come_in(idp.id_token()).status_code == 503

    @pytest.mark.parametrize(
        "address", ["http://127.0.0.2/keys", "http://169.254.169.254/keys", "file:///etc/passwd", "", 7]
    )
    def test_keys_are_not_fetched_from_wherever_a_document_says(
        self, set_up: SetUp, come_in: LogIn, idp: IdentityProvider, address: Any
    ) -> None:
        set_up()
        idp.answers["/.well-known/openid-configuration"] = lambda: json_answer(
            {"issuer": idp.issuer, "jwks_uri": address}
        )
        assert come_in(idp.id_token()).status_code == 503
