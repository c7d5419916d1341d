"""Secrets that others guess: which of the settings' are, and a start that refuses them in production."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.config import Settings
from shared.settings import PREFIX, SettingsError


@dataclass(frozen=True, slots=True)
class Rule:
    """What a secret has to have when words that everybody tries are left out."""

    name: str
    length: int
    distinct: int


RULES = (Rule("secret_key", 32, 10), Rule("master_key", 32, 10), Rule("admin_password", 12, 6))
WELL_KNOWN = (
    "administrator|admin|change[-_ ]?(?:me|it|this)|default|demo|example|insecure|letmein|longshore|passw(?:or)?d|"
    "pa55w0rd|p@ssw0rd|please|qwerty(?:uiop)?|root|secret|test|welcome|your|0?123456789?0?|abcdef"
)
_WELL_KNOWN = re.compile(WELL_KNOWN, re.IGNORECASE)


def weaknesses(settings: Settings) -> list[str]:
    """What is wrong with the secrets of these settings, in words that do not show them."""
    found = [fault for rule in RULES for fault in _faults(rule, getattr(settings, rule.name).get_secret_value())]
    if settings.secret_key == settings.master_key:
        found.append(f"{PREFIX}MASTER_KEY is the same as {PREFIX}SECRET_KEY: each needs a value of its own")
    return found


def require_strong(settings: Settings) -> None:
    """Raise SettingsError with all that is weak when these are settings of production."""
    if settings.env == "production" and (found := weaknesses(settings)):
        raise SettingsError(f"refusing to start in production. {'; '.join(found)}. Make one with: openssl rand -hex 32")


def _faults(rule: Rule, secret: str) -> Iterator[str]:
    name = f"{PREFIX}{rule.name.upper()}"
    if len(secret) < rule.length:
        yield f"{name} is shorter than {rule.length} characters"
        return
    rest = _WELL_KNOWN.sub("", secret)
    if len(rest) < rule.length:
        yield f"{name} is made of words that everybody tries"
    elif len(set(rest)) < rule.distinct:
        yield f"{name} has fewer than {rule.distinct} different characters"
