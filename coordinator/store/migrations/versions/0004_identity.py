"""Identity: revision 0004, after 0003.

Each principal's one role becomes a binding of the built-in role of that name, everywhere. Columns are added and dropped
one by one and never by making a table anew: on SQLite that would delete what hangs on its rows.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shared.ids import new_id

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.String(36).with_variant(sa.String(36, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

BUILT_IN = {
    name: f"00000000-0000-7000-8000-00000000000{number}"
    for number, name in enumerate(("admin", "operator", "developer", "viewer", "user"), 1)
}


def upgrade() -> None:
    op.create_table(
        "data_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("wrapped", sa.Text(), nullable=False),
        sa.Column("master", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("retired_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_keys")),
    )
    op.create_table(
        "identity_providers",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("config", DOCUMENT, nullable=False),
        sa.Column("secrets", sa.Text(), nullable=True),
        sa.Column("key_id", ID, nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_by", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("kind IN ('oidc', 'oauth2', 'saml')", name=op.f("ck_identity_providers_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_providers")),
        sa.UniqueConstraint("name", name=op.f("uq_identity_providers_name")),
    )
    with op.batch_alter_table("identity_providers", schema=None) as batch_op:
        batch_op.create_index("ix_identity_providers_key_id", ["key_id"], unique=False)

    op.create_table(
        "login_failures",
        sa.Column("login", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("locked_until", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("login", "address", name=op.f("pk_login_failures")),
    )
    with op.batch_alter_table("login_failures", schema=None) as batch_op:
        batch_op.create_index("ix_login_failures_began_at", ["began_at"], unique=False)

    op.create_table(
        "roles",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=1000), nullable=True),
        sa.Column("rules", DOCUMENT, nullable=True),
        sa.Column("created_by", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roles")),
        sa.UniqueConstraint("name", name=op.f("uq_roles_name")),
    )
    op.create_table(
        "security_settings",
        sa.Column("section", sa.String(length=32), nullable=False),
        sa.Column("value", DOCUMENT, nullable=False),
        sa.Column("updated_by", ID, nullable=True),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("section", name=op.f("pk_security_settings")),
    )
    op.create_table(
        "spaces",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=1000), nullable=True),
        sa.Column("settings", DOCUMENT, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_by", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_spaces")),
    )
    with op.batch_alter_table("spaces", schema=None) as batch_op:
        batch_op.create_index("ix_spaces_created_at", ["created_at", "name"], unique=False)

    op.create_table(
        "used_assertions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_used_assertions")),
    )
    with op.batch_alter_table("used_assertions", schema=None) as batch_op:
        batch_op.create_index("ix_used_assertions_expires_at", ["expires_at"], unique=False)

    op.create_table(
        "api_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("principal_id", ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("prefix", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", DOCUMENT, nullable=False),
        sa.Column("plan", sa.String(length=32), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("last_used_address", sa.String(length=64), nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name=op.f("fk_api_keys_principal_id_principals"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index("ix_api_keys_principal_id", ["principal_id", "created_at", "id"], unique=False)

    op.create_table(
        "external_identities",
        sa.Column("provider_id", ID, nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("principal_id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_login_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"],
            ["principals.id"],
            name=op.f("fk_external_identities_principal_id_principals"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["provider_id"],
            ["identity_providers.id"],
            name=op.f("fk_external_identities_provider_id_identity_providers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("provider_id", "subject", name=op.f("pk_external_identities")),
    )
    with op.batch_alter_table("external_identities", schema=None) as batch_op:
        batch_op.create_index("ix_external_identities_principal_id", ["principal_id"], unique=False)

    op.create_table(
        "known_addresses",
        sa.Column("principal_id", ID, nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("last_login_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"],
            ["principals.id"],
            name=op.f("fk_known_addresses_principal_id_principals"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("principal_id", "address", name=op.f("pk_known_addresses")),
    )
    op.create_table(
        "password_history",
        sa.Column("id", ID, nullable=False),
        sa.Column("principal_id", ID, nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"],
            ["principals.id"],
            name=op.f("fk_password_history_principal_id_principals"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_password_history")),
    )
    with op.batch_alter_table("password_history", schema=None) as batch_op:
        batch_op.create_index("ix_password_history_principal_id", ["principal_id", "created_at"], unique=False)

    op.create_table(
        "recovery_codes",
        sa.Column("principal_id", ID, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"],
            ["principals.id"],
            name=op.f("fk_recovery_codes_principal_id_principals"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("principal_id", "digest", name=op.f("pk_recovery_codes")),
    )
    op.create_table(
        "role_bindings",
        sa.Column("id", ID, nullable=False),
        sa.Column("role_id", ID, nullable=False),
        sa.Column("principal_id", ID, nullable=False),
        sa.Column("space", sa.String(length=255), nullable=True),
        sa.Column("created_by", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"],
            ["principals.id"],
            name=op.f("fk_role_bindings_principal_id_principals"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["role_id"], ["roles.id"], name=op.f("fk_role_bindings_role_id_roles"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["space"], ["spaces.name"], name=op.f("fk_role_bindings_space_spaces"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role_bindings")),
    )
    with op.batch_alter_table("role_bindings", schema=None) as batch_op:
        batch_op.create_index("ix_role_bindings_principal_id", ["principal_id"], unique=False)
        batch_op.create_index("ix_role_bindings_role_id", ["role_id"], unique=False)
        batch_op.create_index(
            "uq_role_bindings_everywhere",
            ["principal_id", "role_id"],
            unique=True,
            postgresql_where=sa.text("space IS NULL"),
            sqlite_where=sa.text("space IS NULL"),
        )
        batch_op.create_index("uq_role_bindings_in_space", ["principal_id", "role_id", "space"], unique=True)

    op.create_table(
        "second_factors",
        sa.Column("principal_id", ID, nullable=False),
        sa.Column("seed", sa.Text(), nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("confirmed_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"],
            ["principals.id"],
            name=op.f("fk_second_factors_principal_id_principals"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("principal_id", name=op.f("pk_second_factors")),
    )
    with op.batch_alter_table("second_factors", schema=None) as batch_op:
        batch_op.create_index("ix_second_factors_key_id", ["key_id"], unique=False)

    op.add_column("login_sessions", sa.Column("kind", sa.String(length=16), server_default="v1", nullable=False))
    op.add_column("login_sessions", sa.Column("address", sa.String(length=64), nullable=True))
    op.add_column("login_sessions", sa.Column("user_agent", sa.String(length=512), nullable=True))
    op.add_column("login_sessions", sa.Column("ends_at", MOMENT, nullable=True))

    op.add_column("principals", sa.Column("description", sa.String(length=1000), nullable=True))
    op.add_column("principals", sa.Column("plan", sa.String(length=32), server_default="enterprise", nullable=False))
    op.add_column("principals", sa.Column("created_by", ID, nullable=True))
    op.add_column("principals", sa.Column("password_changed_at", MOMENT, nullable=True))
    _make_default_space()
    _bind_roles()
    op.drop_column("principals", "role")


def _make_default_space() -> None:
    now = datetime.now(UTC)
    table = sa.table(
        "spaces",
        sa.column("name", sa.String),
        sa.column("settings", DOCUMENT),
        sa.column("active", sa.Boolean),
        sa.column("created_at", MOMENT),
        sa.column("updated_at", MOMENT),
    )
    op.bulk_insert(table, [{"name": "default", "settings": {}, "active": True, "created_at": now, "updated_at": now}])


def _bind_roles() -> None:
    now = datetime.now(UTC)
    roles = sa.table("roles", sa.column("id", sa.String), sa.column("name", sa.String), sa.column("created_at", MOMENT))
    op.bulk_insert(roles, [{"id": id_, "name": name, "created_at": now} for name, id_ in BUILT_IN.items()])
    bindings = sa.table(
        "role_bindings",
        sa.column("id", sa.String),
        sa.column("role_id", sa.String),
        sa.column("principal_id", sa.String),
        sa.column("created_at", MOMENT),
    )
    held = op.get_bind().execute(sa.text("SELECT id, role FROM principals")).all()
    rows = [
        {"id": new_id(), "role_id": BUILT_IN[row.role], "principal_id": row.id, "created_at": now}
        for row in held
        if row.role in BUILT_IN
    ]
    op.bulk_insert(bindings, rows)


def downgrade() -> None:
    op.add_column("principals", sa.Column("role", sa.String(length=32), server_default="viewer", nullable=False))
    for name in ("operator", "admin"):
        op.execute(
            sa.text(
                "UPDATE principals SET role = :name WHERE id IN "
                "(SELECT principal_id FROM role_bindings WHERE role_id = :id AND space IS NULL)"
            ).bindparams(name=name, id=BUILT_IN[name])
        )
    for column in ("password_changed_at", "created_by", "plan", "description"):
        op.drop_column("principals", column)
    for column in ("ends_at", "user_agent", "address", "kind"):
        op.drop_column("login_sessions", column)
    op.drop_table("second_factors")
    op.drop_table("role_bindings")
    op.drop_table("recovery_codes")
    op.drop_table("password_history")
    op.drop_table("known_addresses")
    op.drop_table("external_identities")
    op.drop_table("api_keys")
    op.drop_table("used_assertions")
    op.drop_table("spaces")
    op.drop_table("security_settings")
    op.drop_table("roles")
    op.drop_table("login_failures")
    op.drop_table("identity_providers")
    op.drop_table("data_keys")
