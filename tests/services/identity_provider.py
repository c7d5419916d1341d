"""An identity provider of the tests' own: OpenID discovery and keys, introspection, SAML responses, over real HTTP."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey

Answer = tuple[int, dict[str, str], bytes]


def json_answer(value: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


@cache
def _first_key() -> RSAKey:
    """Made once: it takes longer than most tests."""
    return RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})


class IdentityProvider:
    """Listens on a free port of loopback. `calls` counts what was asked, by path."""

    CLIENT_ID, CLIENT_SECRET = "longshore", "the client's secret of these tests"

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.key = _first_key()
        self.published = [self.key.as_dict(private=False)]
        self.tokens: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.credentials: list[str] = []
        self.answers: dict[str, Callable[[], Answer]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, name="identity-provider")
        self._thread.start()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/realms/tests"

    def stop(self) -> None:
        """From now on nobody listens there."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    # ---- OpenID

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good ID token says; a change to None leaves the claim out."""
        now = int(self.now().timestamp())
        usual = {
            "iss": self.issuer,
            "aud": self.CLIENT_ID,
            "sub": "subject-of-ada",
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
            "preferred_username": "ada",
            "name": "Ada Lovelace",
            "email": "ada@example.org",
            "email_verified": True,
        }
        return {name: value for name, value in (usual | changes).items() if value is not None}

    def id_token(self, *, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        head = {"alg": "RS256", "kid": "first"} | (header or {})
        return jwt.encode(head, self.claims(**changes), key or self.key, algorithms=[head["alg"]])

    # ---- what it answers

    def answer(self, path: str, body: bytes, credentials: str | None) -> Answer:
        place = path.removeprefix("/realms/tests")
        self.calls[place] += 1
        if place in self.answers:
            return self.answers[place]()
        if place == "/.well-known/openid-configuration":
            return json_answer({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"})
        if place == "/keys":
            return json_answer({"keys": self.published})
        if place == "/introspect":
            return self._introspected(parse_qs(body.decode()), credentials)
        return json_answer({"error": "not found"}, 404)

    def _introspected(self, form: dict[str, list[str]], credentials: str | None) -> Answer:
        wanted = base64.b64encode(f"{self.CLIENT_ID}:{self.CLIENT_SECRET}".encode()).decode()
        self.credentials.append(credentials or "")
        if credentials != f"Basic {wanted}":
            return json_answer({"error": "invalid_client"}, 401)
        return json_answer(self.tokens.get(form["token"][0], {"active": False}))


def _handler(provider: IdentityProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(provider.answer(self.path, b"", self.headers.get("Authorization")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._reply(provider.answer(self.path, body, self.headers.get("Authorization")))

        def _reply(self, answer: Answer) -> None:
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


# ---- SAML


class SamlKey:
    """A key, and the certificate that says it is the provider's."""

    def __init__(self) -> None:
        self.private = rsa.generate_private_key(65537, 2048)

    @cached_property
    def pem(self) -> str:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @cached_property
    def certificate(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "identity provider of the tests")])
        draft = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.private.public_key())
        draft = draft.serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        signed = draft.not_valid_after(datetime(2120, 1, 1, tzinfo=UTC)).sign(self.private, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class SamlFacts:
    """What an assertion says."""

    issuer: str = "https://idp.example.org/metadata"
    audience: str | None = "https://longshore.example.org/saml"
    recipient: str = "https://console.example.org/saml/acs"
    subject: str = "ada@example.org"
    name_format: str = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
    in_response_to: str | None = None
    begins: timedelta = timedelta(seconds=-5)
    ends: timedelta = timedelta(seconds=300)
    attributes: tuple[tuple[str, str], ...] = (("name", "Ada Lovelace"), ("email", "ada@example.org"))


_PROTOCOL = 'xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"'
_SAML = 'xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"'


def assertion(facts: SamlFacts, *, id_: str | None = None) -> str:
    """An assertion, not signed yet."""
    now = datetime.now(UTC)
    begins, ends, at = (_time(moment) for moment in (now + facts.begins, now + facts.ends, now))
    answers = f' InResponseTo="{facts.in_response_to}"' if facts.in_response_to else ""
    audience = (
        f"<saml:AudienceRestriction><saml:Audience>{facts.audience}</saml:Audience></saml:AudienceRestriction>"
        if facts.audience
        else ""
    )
    told = "".join(
        f'<saml:Attribute Name="{name}"><saml:AttributeValue>{value}</saml:AttributeValue></saml:Attribute>'
        for name, value in facts.attributes
    )
    return (
        f'<saml:Assertion {_SAML} ID="{id_ or "_" + uuid.uuid4().hex}" Version="2.0" IssueInstant="{at}">'
        f"<saml:Issuer>{facts.issuer}</saml:Issuer>"
        f'<saml:Subject><saml:NameID Format="{facts.name_format}">{facts.subject}</saml:NameID>'
        '<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">'
        f'<saml:SubjectConfirmationData NotOnOrAfter="{ends}" Recipient="{facts.recipient}"{answers}/>'
        "</saml:SubjectConfirmation></saml:Subject>"
        f'<saml:Conditions NotBefore="{begins}" NotOnOrAfter="{ends}">{audience}</saml:Conditions>'
        f'<saml:AuthnStatement AuthnInstant="{at}"><saml:AuthnContext><saml:AuthnContextClassRef>'
        "urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext>"
        f"</saml:AuthnStatement><saml:AttributeStatement>{told}</saml:AttributeStatement></saml:Assertion>"
    )


def signed(element: str, key: SamlKey, *, digest: str = "http://www.w3.org/2001/04/xmlenc#sha256") -> str:
    """The same with an enveloped signature of its own."""
    from onelogin.saml2.constants import OneLogin_Saml2_Constants as Words
    from onelogin.saml2.utils import OneLogin_Saml2_Utils

    method = Words.RSA_SHA256 if digest == Words.SHA256 else Words.RSA_SHA1
    made = OneLogin_Saml2_Utils.add_sign(
        element, key.pem, key.certificate, sign_algorithm=method, digest_algorithm=digest
    )
    return made.decode() if isinstance(made, bytes) else str(made)


def response(*inside: str, facts: SamlFacts, id_: str | None = None) -> str:
    """A response around assertions."""
    answers = f' InResponseTo="{facts.in_response_to}"' if facts.in_response_to else ""
    return (
        f'<samlp:Response {_PROTOCOL} {_SAML} ID="{id_ or "_" + uuid.uuid4().hex}"'
        f' Version="2.0" IssueInstant="{_time(datetime.now(UTC))}" Destination="{facts.recipient}"{answers}>'
        f"<saml:Issuer>{facts.issuer}</saml:Issuer>"
        '<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>'
        f"{''.join(inside)}</samlp:Response>"
    )


def posted(document: str) -> str:
    """A document as a browser posts it."""
    return base64.b64encode(document.encode()).decode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
