"""Secrets that others guess keep production from starting, all of them told at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from secrets import token_hex, token_urlsafe

import pytest
from pydantic import SecretStr

from coordinator.config import Settings
from coordinator.weak_secrets import require_strong, weaknesses
from shared.settings import SettingsError

STRONG = {"secret_key": token_hex(32), "master_key": token_urlsafe(48), "admin_password": token_urlsafe(15)}


def settings(*, env: str = "production", **changes: str) -> Settings:
    return Settings.model_validate({"env": env, **{name: SecretStr(it) for name, it in (STRONG | changes).items()}})


def test_generated_secrets_are_strong() -> None:
    for _ in range(200):
        fresh = {"secret_key": token_hex(32), "master_key": token_urlsafe(48), "admin_password": token_urlsafe(15)}
        assert weaknesses(settings(**fresh)) == []


@pytest.mark.parametrize(
    ("name", "weak"),
    [
        ("secret_key", ""),
        ("secret_key", "tiny"),
        ("secret_key", "a" * 64),
        ("secret_key", "0123456789" * 7),
        ("secret_key", "please-change-me-please-change-me-please-change-me"),
        ("master_key", "x" * 31),
        ("master_key", "ab" * 32),
        ("admin_password", "admin"),
        ("admin_password", "Adm1n"),
        ("admin_password", "changeme-changeme"),
        ("admin_password", "password-password"),
        ("admin_password", "administrator-1"),
        ("admin_password", "aaaaaaaaaaaaaaaa"),
    ],
)
def test_what_others_guess_is_weak(name: str, weak: str) -> None:
    (told,) = weaknesses(settings(**{name: weak}))
    assert told.startswith(f"LONGSHORE_{name.upper()} ")
    assert weak == "" or weak not in told


@pytest.mark.parametrize(
    "fine", ["correct horse battery staple", "a-test-of-what-people-choose", "Tr0ub4dor&3-and-more"]
)
def test_a_long_password_of_ones_own_is_fine(fine: str) -> None:
    assert weaknesses(settings(admin_password=fine)) == []


def test_one_key_for_both_purposes_is_weak() -> None:
    assert weaknesses(settings(secret_key="k" + STRONG["master_key"], master_key="k" + STRONG["master_key"]))


def test_production_is_refused_with_all_that_is_wrong_and_development_is_not() -> None:
    weak = {"secret_key": "a", "master_key": "b", "admin_password": "admin"}
    with pytest.raises(SettingsError) as told:
        require_strong(settings(**weak))
    assert all(name in str(told.value) for name in ("SECRET_KEY", "MASTER_KEY", "ADMIN_PASSWORD"))
    require_strong(settings(env="development", **weak))
    require_strong(settings())


@pytest.mark.parametrize("words", [["serve"], ["dispatch"], ["up", "--no-node"], ["db", "upgrade"]])
def test_no_process_starts_with_them(words: list[str], tmp_path: Path) -> None:
    given = {"LONGSHORE_HOME": str(tmp_path), "LONGSHORE_ENV": "production", "LONGSHORE_ADMIN_PASSWORD": "admin"}
    argv = [sys.executable, "-m", "coordinator", *words]
    ended = subprocess.run(argv, env=os.environ | given, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "LONGSHORE_ADMIN_PASSWORD is shorter than 12" in ended.stderr) == (2, True)
    assert not (tmp_path / "longshore.db").exists()
