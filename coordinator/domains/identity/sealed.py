"""What of the identity domain is sealed by the vault, by the names under which it is sealed."""

from __future__ import annotations

SEED = "second_factor_seed"
"""The seed of a second factor; its subject is the principal's id."""

PROVIDER_SECRETS = "identity_provider_secrets"
"""What we show an identity provider to be believed; its subject is the provider's id."""
