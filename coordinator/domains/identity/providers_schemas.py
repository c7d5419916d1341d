"""Shapes of identity providers, and of logins by their word, on the wire."""

from __future__ import annotations

import re
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from marshmallow import ValidationError

from coordinator.domains.identity.providers import ALGORITHMS, KINDS
from coordinator.domains.identity.schemas import V0Token
from coordinator.http.schemas import Anything, Body, IdField, Moment, View, fields, name_field, validate

_NAME = validate.Regexp(
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", error="must be 1 to 64 letters, digits, dots, dashes or underscores"
)
_CLAIM = validate.Length(1, 255)
GREATEST_TOKEN = 400_000


class Certificate(fields.String):
    """A certificate, with or without the lines of PEM around it; kept as PEM."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        body = "".join(re.sub(r"-----[A-Z ]+-----", "", text).split())
        lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
        try:
            known = x509.load_pem_x509_certificate(
                f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n".encode()
            )
        except ValueError:
            raise ValidationError("must be an X.509 certificate in PEM") from None
        return known.public_bytes(Encoding.PEM).decode()


class _Domain(fields.String):
    """A domain of e-mail addresses, lower-cased."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs).lower().lstrip("@")
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", text):
            raise ValidationError("must be a domain like example.org")
        return text


class ConfigBody(Body):
    """What is known about a provider. What is left out has its default."""

    issuer = fields.String(
        required=True,
        validate=validate.Length(1, 1024),
        metadata={"description": "oidc: the issuer, an https address; saml: the entity id of the provider"},
    )
    client_id = fields.String(
        required=True,
        validate=validate.Length(1, 1024),
        metadata={"description": "whom proofs are made out to; saml: the entity id that the provider knows us by"},
    )
    allow_insecure = fields.Boolean(metadata={"description": "whether http is enough, beyond this machine"})
    nonce_required = fields.Boolean(metadata={"description": "whether a login has to name the nonce it began with"})
    algorithms = fields.List(fields.String(validate=validate.OneOf(ALGORITHMS)), validate=validate.Length(1, 20))
    introspection_url = fields.Url(
        allow_none=True, require_tld=False, schemes={"http", "https"}, metadata={"description": "oauth2"}
    )
    certificates = fields.List(
        Certificate(), validate=validate.Length(0, 10), metadata={"description": "saml: what it signs with"}
    )
    recipient = fields.Url(
        allow_none=True,
        require_tld=False,
        schemes={"http", "https"},
        metadata={"description": "saml: where it posts assertions for us"},
    )
    subject_claim = fields.String(validate=_CLAIM)
    name_claim = fields.String(allow_none=True, validate=_CLAIM)
    full_name_claim = fields.String(validate=_CLAIM)
    email_claim = fields.String(validate=_CLAIM)
    email_is_verified = fields.Boolean()
    allowed_domains = fields.List(_Domain(), validate=validate.Length(0, 100))
    default_role = fields.String(allow_none=True, validate=validate.Length(1, 255))
    role_claim = fields.String(allow_none=True, validate=_CLAIM)
    role_map = fields.Dict(
        keys=fields.String(validate=_CLAIM),
        values=fields.String(validate=_CLAIM),
        allow_none=True,
        validate=validate.Length(0, 200),
    )


class ProviderBody(Body):
    """A new identity provider."""

    name = fields.String(required=True, validate=_NAME)
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    is_active = fields.Boolean()
    config = fields.Nested(ConfigBody, required=True)
    client_secret = fields.String(validate=validate.Length(1, 4096), metadata={"secret": True})


class ProviderChanges(Body):
    """What is to be another; `config` is replaced as a whole."""

    is_active = fields.Boolean()
    config = fields.Nested(ConfigBody)
    client_secret = fields.String(validate=validate.Length(1, 4096), metadata={"secret": True})


class ConfigView(View):
    """What is known about a provider."""

    issuer = fields.String()
    client_id = fields.String()
    allow_insecure = fields.Boolean()
    nonce_required = fields.Boolean()
    algorithms = fields.List(fields.String())
    introspection_url = fields.String(allow_none=True)
    certificates = fields.List(fields.String())
    recipient = fields.String(allow_none=True)
    subject_claim = fields.String()
    name_claim = fields.String(allow_none=True)
    full_name_claim = fields.String()
    email_claim = fields.String()
    email_is_verified = fields.Boolean()
    allowed_domains = fields.List(fields.String())
    default_role = fields.String(allow_none=True)
    role_claim = fields.String(allow_none=True)
    role_map = fields.Dict(keys=fields.String(), values=fields.String(), allow_none=True)


class ProviderView(View):
    """An identity provider. Its secret is never shown."""

    id = IdField()
    name = fields.String()
    kind = fields.String()
    is_active = fields.Boolean()
    has_secret = fields.Boolean()
    config = fields.Nested(ConfigView)
    created_at = Moment()
    updated_at = Moment()
    version = fields.Integer()


class ExternalLoginBody(Body):
    """The proof of an identity provider."""

    provider = name_field(
        required=True, metadata={"description": "the provider's name, or its kind where that leaves one to choose from"}
    )
    token = fields.String(
        required=True,
        validate=validate.Length(1, GREATEST_TOKEN),
        metadata={"description": "an ID token, an access token, or a SAML response in base64", "secret": True},
    )
    provider_config = fields.Dict(
        keys=fields.String(),
        values=Anything(allow_none=True),
        metadata={"description": "`issuer` and `client_id`; where they differ from what the admin said, 401"},
    )
    nonce = fields.String(
        validate=validate.Length(1, 1024),
        metadata={"description": "the nonce the login began with; of SAML the id of the request"},
    )


class ServiceAccountView(View):
    """Who came in."""

    user = fields.String()
    namespace = fields.String(allow_none=True)
    provider = fields.String()


class ExternalToken(V0Token):
    """A token to call with, and who it is for."""

    service_account = fields.Nested(ServiceAccountView)
