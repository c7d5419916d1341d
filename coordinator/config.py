"""The coordinator's settings: the only module on this side that reads the environment."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.queue.broker import parse_broker
from shared.settings import PREFIX, build


class Settings(BaseSettings):
    """Process settings, each read from `LONGSHORE_<NAME>` or from the file that `LONGSHORE_<NAME>_FILE` names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    env: Literal["development", "production"] = "development"
    home: Path = Field(default_factory=lambda: Path.home() / ".longshore")
    database_url: str = ""
    redis_url: str = ""
    node_redis_url: str = ""
    node_broker_logins: Literal["auto", "own", "shared"] = "auto"
    storage_url: str = ""
    storage_access_key: SecretStr = SecretStr("")
    storage_secret_key: SecretStr = SecretStr("")
    storage_region: str = "us-east-1"
    secret_key: SecretStr = SecretStr("")
    master_key: SecretStr = SecretStr("")
    old_master_keys: SecretStr = SecretStr("")
    admin_name: str = "admin"
    admin_email: str = "admin@localhost"
    admin_password: SecretStr = SecretStr("")
    bind: str = "127.0.0.1:9000"
    log_format: Literal["console", "json"] = "console"
    computer_image: str = "longshore-computer"
    web_workers: int = Field(2, ge=1, le=64)
    web_threads: int = Field(64, ge=4, le=1024)

    proxy_count: int = Field(0, ge=0, le=8)
    password_cost: Literal["standard", "low"] = "standard"  # noqa: S105 - a cost, not a password

    access_token_seconds: int = Field(1800, ge=60)
    refresh_token_seconds: int = Field(7 * 86400, ge=3600)
    v0_token_seconds: int = Field(86400, ge=60)
    enrol_token_seconds: int = Field(86400, ge=60)
    browser_session_seconds: int = Field(12 * 3600, ge=300)

    rate_anonymous_per_minute: int = Field(120, ge=0)
    rate_login_per_minute: int = Field(20, ge=0)
    rate_register_per_minute: int = Field(10, ge=0)
    rate_user_per_minute: int = Field(0, ge=0)

    max_body_bytes: int = Field(2 * 1024 * 1024, ge=1024)
    max_file_bytes: int = Field(100 * 1024 * 1024, ge=1)
    max_result_bytes: int = Field(1024 * 1024, ge=1024)
    max_artifacts: int = Field(100, ge=0)
    max_artifacts_bytes: int = Field(500 * 1024 * 1024, ge=0)
    max_log_bytes: int = Field(10 * 1024 * 1024, ge=1024)
    file_url_seconds: int = Field(3600, ge=1)
    idempotency_seconds: int = Field(86400, ge=60)

    live_sockets: int = Field(500, ge=1)
    live_queue: int = Field(1000, ge=1)
    live_reserved_threads: int = Field(8, ge=1)
    live_ping_seconds: float = Field(25.0, gt=0)
    live_auth_seconds: float = Field(10.0, gt=0)

    heartbeat_seconds: float = Field(10.0, gt=0)
    heartbeat_misses: int = Field(3, ge=1)
    vitals_every_seconds: float = Field(60.0, gt=0)
    vitals_days: float = Field(7.0, gt=0)
    canary_seconds: float = Field(30.0, gt=0)
    lease_seconds: float = Field(30.0, gt=0)
    leader_seconds: float = Field(10.0, gt=0)
    sweep_seconds: float = Field(2.0, gt=0)
    republish_seconds: float = Field(15.0, gt=0)
    max_publishes: int = Field(3, ge=1)
    unpublished_seconds: float = Field(1.0, gt=0)
    placement_batch: int = Field(256, ge=1, le=5000)
    priority_aging_seconds: float = Field(300.0, ge=0)
    fairness_seconds: float = Field(1800.0, ge=0)
    space_max_active: int = Field(0, ge=0)
    queue_max_waiting: int = Field(1_000_000, ge=1)
    space_max_waiting: int = Field(0, ge=0)
    agent_max_waiting: int = Field(0, ge=0)
    cancel_grace_seconds: float = Field(5.0, ge=0)
    retry_max_attempts: int = Field(4, ge=1, le=100)
    retry_base_seconds: float = Field(5.0, ge=0)
    retry_cap_seconds: float = Field(600.0, ge=0)
    retry_after_cap_seconds: float = Field(3600.0, ge=0)
    infra_max_attempts: int = Field(6, ge=1, le=100)
    poison_losses: int = Field(3, ge=1, le=100)
    poison_nodes: int = Field(2, ge=1, le=100)
    poison_hours: float = Field(72.0, gt=0)
    redrive_per_second: float = Field(50.0, gt=0)
    dead_letter_days: float = Field(0.0, ge=0)
    audit_days: float = Field(0.0, ge=0)
    job_timeout_seconds: int = Field(3600, ge=1)
    breaker_failure_threshold: int = Field(5, ge=1, le=100_000)
    breaker_window_seconds: float = Field(120.0, gt=0)
    breaker_recovery_seconds: float = Field(60.0, gt=0)
    breaker_recovery_cap_seconds: float = Field(600.0, gt=0)
    breaker_success_threshold: int = Field(3, ge=1, le=1000)

    @field_validator("bind")
    @classmethod
    def _binds(cls, value: str) -> str:
        for part in value.split(","):
            host, _, port = part.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{part!r} is not HOST:PORT")
        return value

    @field_validator("redis_url", "node_redis_url")
    @classmethod
    def _brokers(cls, value: str) -> str:
        if value:
            parse_broker(value)
        return value

    @cached_property
    def binds(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.bind.split(","))

    @cached_property
    def is_loopback(self) -> bool:
        """Whether every address we listen on is reachable from this machine alone."""
        return all(part.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1") for part in self.binds)

    @cached_property
    def lost_after_seconds(self) -> float:
        """A node that was silent for this long is offline."""
        return self.heartbeat_seconds * self.heartbeat_misses


def load_settings(**overrides: Any) -> Settings:
    """Settings from overrides, environment and `_FILE` variables, with what HOME keeps for the rest.

    Creates HOME and, when nobody gave them, the two root keys and an admin password inside it (mode 0600).
    """
    return _completed(build(Settings, overrides, os.environ))


def inherited_environment(*, without: Iterable[str] = ()) -> dict[str, str]:
    """This process's environment for a program it starts, leaving out the settings named in `without`."""
    left_out = {f"{PREFIX}{name.upper()}{suffix}" for name in without for suffix in ("", "_FILE")}
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _completed(settings: Settings) -> Settings:
    home = settings.home.expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.model_copy(
        update={
            "home": home,
            "database_url": settings.database_url or f"sqlite:///{home / 'longshore.db'}",
            "storage_url": settings.storage_url or f"file://{home / 'files'}",
            "secret_key": _kept(settings.secret_key, home / "secret_key", 48),
            "master_key": _kept(settings.master_key, home / "master_key", 48),
            "admin_password": _kept(settings.admin_password, home / "admin_password", 15),
        }
    )


def _kept(given: SecretStr, path: Path, length: int) -> SecretStr:
    """The given secret, else the one kept at `path`, else a new one that is kept there from now on."""
    if given.get_secret_value():
        return given
    if not path.exists():
        # Written aside and linked into place: two processes that start together agree on one whole secret.
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(length) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return SecretStr(path.read_text().strip())
