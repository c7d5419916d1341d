"""Tables of the identity domain."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from coordinator.domains.identity.sealed import PROVIDER_SECRETS, SEED
from coordinator.store.schema import Document, Id, Name, id_column, metadata, sealed_column, time_column, version_column

principals = Table(
    "principals",
    metadata,
    id_column(),
    Column("kind", String(32), nullable=False),
    Column("name", Name, nullable=False, unique=True),
    Column("email", String(320), nullable=True, unique=True, doc="lower case"),
    Column("full_name", Name, nullable=True),
    Column("description", String(1000), nullable=True),
    Column("plan", String(32), nullable=False, server_default="enterprise", doc="how many calls it may make"),
    Column("password_hash", Text, nullable=True),
    Column("active", Boolean, nullable=False),
    Column("created_by", Id, nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("last_login_at", nullable=True),
    time_column("password_changed_at", nullable=True),
    version_column(),
    CheckConstraint("kind IN ('user', 'operator', 'service_account')", name="kind"),
)
"""Whoever can log in. What they may do hangs on them as role bindings."""

spaces = Table(
    "spaces",
    metadata,
    Column("name", Name, primary_key=True),
    Column("description", String(1000), nullable=True),
    Column("settings", Document, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_by", Id, nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    version_column(),
    Index("ix_spaces_created_at", "created_at", "name"),
)
"""The tenants: agents, work, files and secrets belong to exactly one of them."""

roles = Table(
    "roles",
    metadata,
    id_column(),
    Column("name", Name, nullable=False, unique=True),
    Column("description", String(1000), nullable=True),
    Column("rules", Document, nullable=True, doc="NULL for the built-in roles: theirs are in identity/rights.py"),
    Column("created_by", Id, nullable=True),
    time_column("created_at"),
)
"""Named sets of rules. A role never changes: it is made and deleted, so whatever was compiled from it stays true."""

role_bindings = Table(
    "role_bindings",
    metadata,
    id_column(),
    Column("role_id", Id, ForeignKey("roles.id", ondelete="CASCADE"), nullable=False),
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), nullable=False),
    Column("space", Name, ForeignKey("spaces.name", ondelete="CASCADE"), nullable=True, doc="NULL is everywhere"),
    Column("created_by", Id, nullable=True),
    time_column("created_at"),
    Index("ix_role_bindings_principal_id", "principal_id"),
    Index("ix_role_bindings_role_id", "role_id"),
    Index(
        "uq_role_bindings_everywhere",
        "principal_id",
        "role_id",
        unique=True,
        postgresql_where=text("space IS NULL"),
        sqlite_where=text("space IS NULL"),
    ),
    Index("uq_role_bindings_in_space", "principal_id", "role_id", "space", unique=True),
)
"""Who holds which role, everywhere or in one space."""

login_sessions = Table(
    "login_sessions",
    metadata,
    id_column(),
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), nullable=False),
    Column("refresh_id", Id, nullable=True, doc="the one refresh token that is good now"),
    Column("kind", String(16), nullable=False, server_default="v1", doc="v0, v1, browser, external"),
    Column("address", String(64), nullable=True),
    Column("user_agent", String(512), nullable=True),
    time_column("created_at"),
    time_column("used_at"),
    time_column("expires_at"),
    time_column("ends_at", nullable=True),
    time_column("revoked_at", nullable=True),
    Index("ix_login_sessions_principal_id", "principal_id"),
    Index("ix_login_sessions_expires_at", "expires_at"),
)
"""One login and all tokens that descend from it. Revoking it ends them all at once; `ends_at` is the latest that any
of them can be renewed to."""

api_keys = Table(
    "api_keys",
    metadata,
    id_column(),
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), nullable=False),
    Column("name", Name, nullable=False),
    Column("prefix", String(32), nullable=False, doc="what of the key may be shown"),
    Column("digest", String(64), nullable=False, doc="SHA-256 of the whole key"),
    Column("scopes", Document, nullable=False),
    Column("plan", String(32), nullable=True, doc="NULL is its owner's"),
    time_column("created_at"),
    time_column("expires_at", nullable=True),
    time_column("last_used_at", nullable=True),
    Column("last_used_address", String(64), nullable=True),
    time_column("revoked_at", nullable=True),
    Index("ix_api_keys_principal_id", "principal_id", "created_at", "id"),
)
"""Keys for programs. A key may never more than its owner."""

password_history = Table(
    "password_history",
    metadata,
    id_column(),
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), nullable=False),
    Column("password_hash", Text, nullable=False),
    time_column("created_at"),
    Index("ix_password_history_principal_id", "principal_id", "created_at"),
)
"""Passwords that were, so that they are not chosen again."""

second_factors = Table(
    "second_factors",
    metadata,
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), primary_key=True),
    sealed_column("seed", purpose=SEED, subject="principal_id"),
    Column("key_id", Id, nullable=False, doc="the data key that sealed it"),
    Column("last_step", BigInteger, nullable=True, doc="the last time step whose code was taken: none is taken twice"),
    time_column("created_at"),
    time_column("confirmed_at", nullable=True),
    Index("ix_second_factors_key_id", "key_id"),
)
"""TOTP seeds. One that was not confirmed by a code yet asks for nothing at login."""

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    time_column("used_at", nullable=True),
)
"""What opens the door once each when the second factor is lost."""

login_failures = Table(
    "login_failures",
    metadata,
    Column("login", String(64), primary_key=True, doc="digest of the name as it was submitted"),
    Column("address", String(64), primary_key=True, doc="'*' counts all addresses that never logged in as this name"),
    Column("count", Integer, nullable=False),
    time_column("began_at"),
    time_column("locked_until", nullable=True),
    Index("ix_login_failures_began_at", "began_at"),
)
"""Wrong passwords lately, by submitted name and address, whether or not there is anybody of that name."""

known_addresses = Table(
    "known_addresses",
    metadata,
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), primary_key=True),
    Column("address", String(64), primary_key=True),
    time_column("last_login_at"),
)
"""Where a principal has logged in from: guessing from elsewhere does not lock these out."""

security_settings = Table(
    "security_settings",
    metadata,
    Column("section", String(32), primary_key=True),
    Column("value", Document, nullable=False),
    Column("updated_by", Id, nullable=True),
    time_column("updated_at"),
    version_column(),
)
"""What an admin decided about passwords, sessions, second factors, registration and addresses; defaults are in code."""

identity_providers = Table(
    "identity_providers",
    metadata,
    id_column(),
    Column("name", Name, nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("config", Document, nullable=False),
    sealed_column("secrets", purpose=PROVIDER_SECRETS, nullable=True),
    Column("key_id", Id, nullable=True, doc="the data key that sealed them"),
    Column("active", Boolean, nullable=False),
    Column("created_by", Id, nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    version_column(),
    CheckConstraint("kind IN ('oidc', 'oauth2', 'saml')", name="kind"),
    Index("ix_identity_providers_key_id", "key_id"),
)
"""Whose word about who somebody is we take."""

external_identities = Table(
    "external_identities",
    metadata,
    Column("provider_id", Id, ForeignKey("identity_providers.id", ondelete="CASCADE"), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("principal_id", Id, ForeignKey("principals.id", ondelete="CASCADE"), nullable=False),
    time_column("created_at"),
    time_column("last_login_at"),
    Index("ix_external_identities_principal_id", "principal_id"),
)
"""Which principal somebody of a provider is here."""

used_assertions = Table(
    "used_assertions",
    metadata,
    Column("digest", String(64), primary_key=True),
    time_column("expires_at"),
    Index("ix_used_assertions_expires_at", "expires_at"),
)
"""Proofs that were shown once (a token's id, a SAML assertion, a step of a login) and are good no more."""

# Action words are compared byte by byte: a prefix is then a range of an index on both databases.
_Action = String(64).with_variant(String(64, collation="C"), "postgresql")

audit_trail = Table(
    "audit_trail",
    metadata,
    id_column(),
    time_column("at"),
    Column("actor_kind", String(32), nullable=False),
    Column("actor_id", Id),
    Column("actor_name", Name),
    Column("credential_id", Id),
    Column("address", String(64)),
    Column("request_id", String(128)),
    Column("space", Name),
    Column("action", _Action, nullable=False),
    Column("resource_type", String(64)),
    Column("resource_id", Name),
    Column("outcome", String(16), nullable=False),
    Column("before", Text, doc="canonical JSON, secrets masked; as text, so that both databases keep each byte"),
    Column("after", Text, doc="like before"),
    Column("message", Text),
    Column("unrecorded", Integer, nullable=False, doc="refusals from this address that got no row of their own"),
    Column("sequence", BigInteger, unique=True, doc="its place in the chain; NULL until the leader has sealed it"),
    Column("hash", String(64), doc="SHA-256 of the hash before it and its facts, as hexadecimal digits"),
    CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="outcome"),
    CheckConstraint("(sequence IS NULL) = (hash IS NULL)", name="sealed_whole"),
    Index("ix_audit_trail_at", "at", "id"),
    Index("ix_audit_trail_actor_id", "actor_id", "at", "id"),
    Index("ix_audit_trail_actor_name", "actor_name", "at", "id"),
    Index("ix_audit_trail_action", "action", "at", "id"),
    Index("ix_audit_trail_resource", "resource_type", "resource_id", "at", "id"),
    Index("ix_audit_trail_outcome", "outcome", "at", "id"),
    Index(
        "ix_audit_trail_unsealed",
        "id",
        postgresql_where=text("sequence IS NULL"),
        sqlite_where=text("sequence IS NULL"),
    ),
)
"""Who did what to what. Triggers of the migration refuse every change but sealing, and removal before the anchor."""

audit_anchors = Table(
    "audit_anchors",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False, doc="the last row that was removed"),
    Column("hash", String(64), nullable=False, doc="its hash, on which the chain goes on"),
    time_column("at"),
)
"""Where the kept part of the trail begins: one row for each time that old rows were removed."""

audit_uses = Table(
    "audit_uses",
    metadata,
    Column("credential_id", Id, primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("day", Date, primary_key=True),
)
"""Which credentials were used from where on which day: so that each of them is told once a day, and not each use."""
