"""Coming in by a SAML response, and what must not: wrapped, unsigned, made out to others, shown twice."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from coordinator.app import create_app
from coordinator.domains.identity.models import external_identities
from coordinator.domains.identity.rights import Role
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import SystemClock
from tests.factories.people import credentials_of, make_person
from tests.services.identity_provider import SamlFacts, SamlKey, assertion, posted, response, signed

FACTS = SamlFacts()
LogIn = Callable[..., Any]


@pytest.fixture(scope="module")
def key() -> SamlKey:
    return SamlKey()


@pytest.fixture
def today(resources: Resources, _made: dict[Any, Any]) -> Iterator[Flask]:
    """An app that lives today: the library for SAML asks the machine what time it is."""
    clock, before = SystemClock(), resources.database.clock
    resources.database.clock = clock
    mine = ("today", id(resources))
    if mine not in _made:
        _made[mine] = create_app(replace(resources, clock=clock), check_replies=True)
    yield _made[mine]
    resources.database.clock = before


@pytest.fixture
def set_up(today: Flask, database: Database, key: SamlKey) -> Callable[..., None]:
    headers = credentials_of(today, make_person(database, role=Role.ADMIN, name="root"))

    def one(**config: Any) -> None:
        usual = {
            "issuer": FACTS.issuer,
            "client_id": FACTS.audience,
            "recipient": FACTS.recipient,
            "certificates": [key.certificate],
        }
        body = {"name": "corporate", "kind": "saml", "config": usual | config}
        made = today.test_client().post("/api/v1/identity-providers", json=body, headers=headers)
        assert made.status_code == 201, made.json

    return one


@pytest.fixture
def log_in(today: Flask, set_up: Callable[..., None]) -> LogIn:
    """Shows a document to the provider that has been set up, `set_up` being called with the configuration given."""
    done: list[bool] = []

    def one(document: str, *, config: dict[str, Any] | None = None, **more: Any) -> Any:
        if not done:
            set_up(**(config or {}))
            done.append(True)
        body = {"provider": "corporate", "token": posted(document), **more}
        return today.test_client().post("/api/v0/auth/external", json=body)

    return one


def good(key: SamlKey, facts: SamlFacts = FACTS, **options: Any) -> str:
    return response(signed(assertion(facts, **options), key), facts=facts)


def test_a_signed_assertion_lets_somebody_in_and_the_next_one_the_same(log_in: LogIn, key: SamlKey) -> None:
    first = log_in(good(key), provider_config={"issuer": FACTS.issuer, "client_id": FACTS.audience})
    assert first.status_code == 200, first.json
    assert first.json["service_account"] == {"user": "ada", "namespace": None, "provider": "corporate"}
    assert log_in(good(key)).json["user"] == "ada"


def test_an_assertion_is_good_once(log_in: LogIn, key: SamlKey) -> None:
    inside = signed(assertion(FACTS), key)
    assert log_in(response(inside, facts=FACTS)).status_code == 200
    # In another envelope it is the same assertion.
    assert log_in(response(inside, facts=FACTS)).status_code == 401


def test_either_of_two_certificates_is_good_while_they_change(log_in: LogIn, key: SamlKey) -> None:
    other = SamlKey()
    config = {"certificates": [other.certificate, key.certificate]}
    assert log_in(good(key), config=config).status_code == 200
    assert log_in(good(other)).status_code == 200


def test_roles_come_from_attributes_with_one_value_or_several(log_in: LogIn, key: SamlKey) -> None:
    config = {"role_claim": "groups", "role_map": {"ops": "operator"}, "email_is_verified": True}
    one = replace(FACTS, attributes=(("groups", "ops"), ("email", "ada@example.org")))
    two = replace(FACTS, attributes=(("groups", "others"), ("groups", "ops")))
    assert log_in(good(key, one), config=config).json["role"] == "operator"
    assert log_in(good(key, two)).json["role"] == "operator"
    assert log_in(good(key)).json["role"] == "user"


def test_a_request_that_was_named_has_to_be_the_one_that_is_answered(log_in: LogIn, key: SamlKey) -> None:
    answer = replace(FACTS, in_response_to="_request-1")
    assert log_in(good(key, answer), nonce="_request-1").status_code == 200
    assert log_in(good(key, answer), nonce="_request-2").status_code == 401
    assert log_in(good(key), nonce="_request-1").status_code == 401


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, issuer="https://evil.example.org"),
        replace(FACTS, audience="https://other.example.org/saml"),
        replace(FACTS, audience=None),
        replace(FACTS, recipient="https://evil.example.org/acs"),
        replace(FACTS, recipient=f"{FACTS.recipient}/more"),
        replace(FACTS, recipient=f"https://evil.example.org/?{FACTS.recipient}"),
        replace(FACTS, begins=timedelta(minutes=2), ends=timedelta(minutes=4)),
        replace(FACTS, begins=timedelta(minutes=-9), ends=timedelta(minutes=-2)),
        replace(FACTS, ends=timedelta(days=400)),
        replace(FACTS, subject=""),
        replace(FACTS, name_format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"),
    ],
    ids=[
        "another issuer",
        "another audience",
        "no audience",
        "another recipient",
        "a longer recipient",
        "a recipient that holds ours",
        "not yet",
        "not any more",
        "for ever",
        "nobody",
        "another name each time",
    ],
)
def test_an_assertion_that_says_something_else_is_refused(
    log_in: LogIn, key: SamlKey, database: Database, facts: SamlFacts
) -> None:
    assert log_in(good(key, facts)).status_code == 401
    with database.read() as tx:
        assert tx.conn.scalar(select(func.count()).select_from(external_identities)) == 0


class TestForgeries:
    def test_without_a_signature_nothing_holds(self, log_in: LogIn, key: SamlKey) -> None:
        assert log_in(response(assertion(FACTS), facts=FACTS)).status_code == 401
        assert log_in(good(key)).status_code == 200

    def test_a_signature_around_the_response_is_not_one_of_the_assertion(self, log_in: LogIn, key: SamlKey) -> None:
        assert log_in(signed(response(assertion(FACTS), facts=FACTS), key)).status_code == 401

    def test_another_key_does_not_sign_for_the_provider(self, log_in: LogIn, key: SamlKey) -> None:
        # Its certificate lies in the signature, and says the same name.
        assert log_in(good(SamlKey())).status_code == 401

    def test_a_changed_name_breaks_the_signature(self, log_in: LogIn, key: SamlKey) -> None:
        assert (
            log_in(good(key).replace("ada@example.org</saml:NameID>", "eve@example.org</saml:NameID>")).status_code
            == 401
        )

    def test_weak_digests_are_refused(self, log_in: LogIn, key: SamlKey) -> None:
        weak = signed(assertion(FACTS), key, digest="http://www.w3.org/2000/09/xmldsig#sha1")
        assert log_in(response(weak, facts=FACTS)).status_code == 401

    @pytest.mark.parametrize("place", ["before", "after", "inside", "extensions", "object", "stolen id"])
    def test_a_signed_assertion_does_not_vouch_for_another_one(self, log_in: LogIn, key: SamlKey, place: str) -> None:
        genuine = signed(assertion(FACTS, id_="_genuine"), key)
        assert log_in(wrapped(genuine, place)).status_code == 401
        assert log_in(response(genuine, facts=FACTS)).status_code == 200

    def test_a_comment_does_not_shorten_a_name(self, log_in: LogIn, key: SamlKey, database: Database) -> None:
        longer = replace(FACTS, subject="ada@example.org.evil.net")
        document = good(key, longer).replace("ada@example.org.evil", "ada@example.org<!-- -->.evil")
        assert log_in(document).status_code == 200
        with database.read() as tx:
            assert tx.conn.scalars(select(external_identities.c.subject)).all() == ["ada@example.org.evil.net"]

    def test_entities_are_not_expanded(self, log_in: LogIn, key: SamlKey) -> None:
        bomb = '<!DOCTYPE x [<!ENTITY a "ada"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
        assert log_in(bomb + good(key)).status_code == 401

    @pytest.mark.parametrize("document", ["", "x", "<a/>", "<a>", "<samlp:Response/>", "\u00e9", "x" * 300_000])
    def test_what_is_no_response_is_refused(self, log_in: LogIn, document: str) -> None:
        assert log_in(document or " ").status_code == 401

    def test_what_is_not_base64_is_refused(self, log_in: LogIn, today: Flask, key: SamlKey) -> None:
        assert log_in(good(key)).status_code == 200
        for token in ("*", "<Response/>", "e30"):
            body = {"provider": "corporate", "token": token}
            assert today.test_client().post("/api/v0/auth/external", json=body).status_code == 401


def wrapped(genuine: str, place: str) -> str:
    """A response with a forged assertion that everybody reads and a genuine one that the signature is about."""
    evil = assertion(replace(FACTS, subject="root@example.org"), id_="_evil")
    signature = re.search(r"<ds:Signature.*</ds:Signature>", genuine, re.DOTALL)
    assert signature is not None
    bare = genuine.replace(signature.group(), "")
    holding = evil.replace("</saml:Issuer>", f"</saml:Issuer>{signature.group()}", 1)
    if place == "before":
        return response(evil, genuine, facts=FACTS)
    if place == "after":
        return response(genuine, evil, facts=FACTS)
    if place == "inside":
        return response(holding.replace("</saml:AttributeStatement>", f"{bare}</saml:AttributeStatement>"), facts=FACTS)
    if place == "extensions":
        return response(f"<samlp:Extensions>{bare}</samlp:Extensions>{holding}", facts=FACTS)
    if place == "object":
        carried = signature.group().replace("</ds:Signature>", f"<ds:Object>{bare}</ds:Object></ds:Signature>")
        return response(evil.replace("</saml:Issuer>", f"</saml:Issuer>{carried}", 1), facts=FACTS)
    stolen = holding.replace('ID="_evil"', 'ID="_genuine"')
    return response(stolen, facts=FACTS)


def test_without_the_extra_it_is_told_what_to_install(
    log_in: LogIn, key: SamlKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onelogin.saml2.response", None)
    answer = log_in(good(key))
    assert (answer.status_code, answer.json["error"]["details"]["reason"]) == (503, "saml_missing")
