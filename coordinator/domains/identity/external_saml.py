"""Proofs of SAML providers: responses with one signed assertion. Needs the extra `saml`, and only when one is shown."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from coordinator.domains.identity.external_oidc import LEEWAY_SECONDS, LONGEST_LIFE
from coordinator.domains.identity.external_proof import Proof, ProofRefused, Shown, subject_in
from coordinator.domains.identity.providers import Config, Provider
from shared.clock import Clock, parse_rfc3339
from shared.errors import Unavailable

GREATEST_RESPONSE = 256 * 1024
LIBRARY_DRIFT = timedelta(seconds=300)
"""What the library allows clocks to differ. We allow less, and a used assertion is remembered for longer than both."""

_NS = {
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
}
_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_SIGNATURES = {f"{_MORE}{kind}-{digest}" for kind in ("rsa", "ecdsa") for digest in ("sha256", "sha384", "sha512")}
_DIGESTS = {"http://www.w3.org/2001/04/xmlenc#sha256", f"{_MORE}sha384", "http://www.w3.org/2001/04/xmlenc#sha512"}
_TRANSFORMS = {
    "http://www.w3.org/2000/09/xmldsig#enveloped-signature",
    "http://www.w3.org/2001/10/xml-exc-c14n#",
    "http://www.w3.org/2001/10/xml-exc-c14n#WithComments",
}


class SamlMissing(Unavailable):
    """The extra that reads SAML is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "this coordinator cannot read SAML: install the extra, pip install 'longshore[saml]'", reason="saml_missing"
        )


def verify(provider: Provider, shown: Shown, clock: Clock) -> Proof:
    """The proof in a SAML response (base64, as the provider posts it); else ProofRefused."""
    response = _parsed(shown.token, provider.config)
    _require_plain(response.document)
    if not response.is_valid(_request_to(provider.config), request_id=shown.nonce):
        raise ProofRefused(f"the SAML response does not hold: {response.get_error()}"[:500])
    return _judged(response, provider, shown.nonce, clock.now())


def _parsed(token: str, config: Config) -> Any:
    try:
        from onelogin.saml2.response import OneLogin_Saml2_Response  # noqa: PLC0415 - it is an extra
        from onelogin.saml2.settings import OneLogin_Saml2_Settings  # noqa: PLC0415
    except ImportError:
        raise SamlMissing from None
    text = "".join(token.split())
    if len(text) > GREATEST_RESPONSE:
        raise ProofRefused("the SAML response is too long")
    try:
        base64.b64decode(text, validate=True)
        settings = OneLogin_Saml2_Settings(_settings(config), sp_validation_only=True)
        return OneLogin_Saml2_Response(settings, text)
    except binascii.Error:
        raise ProofRefused("the SAML response is not base64") from None
    except Exception as error:  # noqa: BLE001 - a stranger's XML, read by three libraries: what they raise is a refusal
        raise ProofRefused(f"the SAML response cannot be read: {type(error).__name__}") from None


def _settings(config: Config) -> dict[str, Any]:
    return {
        "strict": True,
        "debug": False,
        "sp": {"entityId": config.client_id, "assertionConsumerService": {"url": config.recipient}},
        "idp": {"entityId": config.issuer, "x509certMulti": {"signing": list(config.certificates)}},
        "security": {
            "wantAssertionsSigned": True,
            "wantAttributeStatement": False,
            "wantNameId": True,
            "rejectDeprecatedAlgorithm": True,
            "allowRepeatAttributeName": True,
            "allowSingleLabelDomains": True,
            "failOnAuthnContextMismatch": False,
        },
    }


def _request_to(config: Config) -> dict[str, str]:
    """The request that the response came by, as the library wants it told: always the address of the configuration."""
    parts = urlsplit(config.recipient or "")
    return {
        "https": "on" if parts.scheme == "https" else "off",
        "http_host": parts.netloc,
        "script_name": parts.path,
    }


def _require_plain(document: Any) -> None:
    """Raise unless the document is as plain as providers make them: whoever wraps signatures needs more than that."""
    if len(document.xpath("//saml:Assertion", namespaces=_NS)) != 1:
        raise ProofRefused("the SAML response has not exactly one assertion")
    ids = document.xpath("//@ID | //@Id | //@id | //@xml:id", namespaces=_NS)
    if len(ids) != len(set(ids)):
        raise ProofRefused("the SAML response uses an ID twice")
    for signature in document.xpath("//ds:Signature", namespaces=_NS):
        _require_plain_signature(signature)


def _require_plain_signature(signature: Any) -> None:
    def found(path: str) -> list[Any]:
        values: list[Any] = signature.xpath(path, namespaces=_NS)
        return values

    if found(".//ds:Reference/@URI") != [f"#{signature.getparent().get('ID')}"]:
        raise ProofRefused("a signature of the SAML response is not about what it stands in, and that alone")
    if not set(found(".//ds:SignatureMethod/@Algorithm")) <= _SIGNATURES:
        raise ProofRefused("a signature of the SAML response is of a kind that is not accepted")
    if not set(found(".//ds:DigestMethod/@Algorithm")) <= _DIGESTS:
        raise ProofRefused("a digest of the SAML response is of a kind that is not accepted")
    if not set(found(".//ds:Transform/@Algorithm")) <= _TRANSFORMS:
        raise ProofRefused("a signature of the SAML response transforms what it signs")
    if found(".//ds:Object"):
        raise ProofRefused("a signature of the SAML response carries objects")


@dataclass(frozen=True, slots=True)
class _Assertion:
    """The one assertion of a response whose signature holds."""

    element: Any

    def texts(self, path: str) -> list[str]:
        found = self.element.xpath(path, namespaces=_NS)
        return [(each if isinstance(each, str) else each.text or "").strip() for each in found]


def _judged(response: Any, provider: Provider, nonce: str | None, now: datetime) -> Proof:
    """What the library lets pass and we do not, then the proof."""
    assertion = _Assertion(response.document.xpath("/samlp:Response/saml:Assertion", namespaces=_NS)[0])
    config = provider.config
    if assertion.texts("./saml:Issuer") != [config.issuer]:
        raise ProofRefused("the assertion is of another issuer")
    restrictions = assertion.element.xpath("./saml:Conditions/saml:AudienceRestriction", namespaces=_NS)
    if not restrictions or any(
        config.client_id not in _Assertion(each).texts("./saml:Audience") for each in restrictions
    ):
        raise ProofRefused("the assertion is not made out to us")
    until = min(_ends(assertion, config, nonce, now))
    if until > now + LONGEST_LIFE:
        raise ProofRefused("the assertion is good for longer than assertions may be")
    claims = _claims(response)
    subject = subject_in(claims, "NameID" if config.subject_claim == "sub" else config.subject_claim)
    if subject == claims.get("NameID") and response.get_nameid_format() == _TRANSIENT:
        raise ProofRefused("the name of the subject is another at each login: name another attribute as subject_claim")
    once = f"saml {provider.id} {assertion.element.get('ID')}"
    return Proof(subject, claims, once=once, until=max(until, now) + 2 * LIBRARY_DRIFT)


def _ends(assertion: _Assertion, config: Config, nonce: str | None, now: datetime) -> list[datetime]:
    """When the assertion ends, by its confirmation and by its conditions, if it is good now."""
    leeway = timedelta(seconds=LEEWAY_SECONDS)
    path = f"./saml:Subject/saml:SubjectConfirmation[@Method='{_BEARER}']/saml:SubjectConfirmationData"
    found = []
    for data in assertion.element.xpath(path, namespaces=_NS):
        end = _moment(data.get("NotOnOrAfter"))
        fits = data.get("Recipient") == config.recipient and (nonce is None or data.get("InResponseTo") == nonce)
        if fits and end is not None and now < end + leeway:
            found.append(end)
    if not found:
        raise ProofRefused("nothing in the assertion confirms that it is for us, for this request and for now")
    for text in assertion.texts("./saml:Conditions/@NotBefore"):
        if (begin := _moment(text)) is None or begin > now + leeway:
            raise ProofRefused("the assertion is not valid yet")
    for text in assertion.texts("./saml:Conditions/@NotOnOrAfter"):
        if (end := _moment(text)) is None or now >= end + leeway:
            raise ProofRefused("the assertion has expired")
        found.append(end)
    return found


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise ProofRefused("the assertion has a time that is none") from None


def _claims(response: Any) -> dict[str, Any]:
    """The attributes, each under its name, and the name of the subject as `NameID`."""
    try:
        attributes, name_id = response.get_attributes(), response.get_nameid()
    except Exception as error:  # noqa: BLE001 - like above
        raise ProofRefused(f"the SAML response does not hold: {error}"[:500]) from None
    claims: dict[str, Any] = {}
    for name, values in attributes.items():
        kept = [value for value in values if isinstance(value, str)]
        claims[name] = kept[0] if len(kept) == 1 else kept
    return claims | {"NameID": name_id}
