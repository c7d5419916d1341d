"""The node's settings: the only module on this side that reads the environment."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.settings import PREFIX, build


class Settings(BaseSettings):
    """Process settings, each from `LONGSHORE_<NAME>` or from the file that `LONGSHORE_<NAME>_FILE` names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".longshore")
    coordinator_url: str = ""
    enrol_token: SecretStr = SecretStr("")
    ca_file: Path | None = None
    proxy_url: str | None = None
    log_format: Literal["console", "json"] = "console"

    node_name: str = Field(default_factory=platform.node, min_length=1)
    node_group: str | None = None
    node_labels: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    slots: int = Field(4, ge=1, le=1024)
    light_slots: int = Field(32, ge=1, le=512)
    max_agents: int = Field(5, ge=1)

    driver: Literal["auto", "docker", "process"] = "auto"
    computer_image: str = "longshore-computer"
    computer_runtime: str | None = None
    allow_unsandboxed: bool = False
    fetch_images: bool = False
    docker_socket: str | None = None

    self_fence: bool = True
    """Stop what runs when the coordinator was not heard for two thirds of a lease: it will give the work to others."""
    stop_grace_seconds: float = Field(5.0, ge=0, le=300)
    """The most that a job gets between SIGTERM and SIGKILL when the node itself has to stop it."""
    reap_seconds: float = Field(60.0, gt=0)
    max_output_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """A command that prints more than this is ended as a flood."""
    log_buffer_bytes: int = Field(8 * 1024 * 1024, ge=64 * 1024)
    """Log lines that wait for the coordinator."""
    log_patience_seconds: float = Field(5.0, ge=0)
    """How long a job is held up when the coordinator takes no log lines; after that lines are left out and counted."""

    @field_validator("coordinator_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("node_labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        return parse_labels(value.split(",")) if isinstance(value, str) else value

    @property
    def node_home(self) -> Path:
        """Where this node keeps what it must not forget. Two nodes on one machine have two homes."""
        return self.home / "node"


def load_settings(**overrides: Any) -> Settings:
    """Settings from overrides, environment and `_FILE` variables."""
    given = {name: value for name, value in overrides.items() if value is not None}
    # Docker's own variable counts too: whoever points the docker command elsewhere means us as well.
    if "docker_socket" not in given and not os.environ.get(f"{PREFIX}DOCKER_SOCKET"):
        given["docker_socket"] = os.environ.get("DOCKER_HOST") or None
    settings = build(Settings, given, os.environ)
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def parse_labels(items: list[str]) -> dict[str, str]:
    """`["gpu=yes", "rack=7"]` as a mapping."""
    labels: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in items)):
        name, separator, value = item.partition("=")
        if not separator or not name.strip():
            raise ValueError(f"{item!r} is not NAME=VALUE")
        labels[name.strip()] = value.strip()
    return labels
