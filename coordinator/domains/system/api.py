"""Endpoints of the system domain."""

from __future__ import annotations

from typing import Any

from coordinator.domains.system.schemas import HealthView, VersionView
from coordinator.http.slice import OPEN, Call, Slice
from shared import __version__

system = Slice("system", "Health, version, metrics and this document")


@system.get("/health", may=OPEN, reply=HealthView, transaction="none", versions=("root", "v1"), name="get_health")
def get_health(call: Call) -> dict[str, Any]:
    """Tell that the process is alive; asks nothing of its surroundings."""
    return {"status": "healthy", "service": "longshore", "version": __version__}


@system.get("/health", may=OPEN, transaction="none", returns="text", versions=("v0",), name="get_health")
def get_health_text(call: Call) -> str:
    """Tell that the process is alive."""
    return "OK"


@system.get("/version", may=OPEN, reply=VersionView, transaction="none", versions=("v0",))
def get_version(call: Call) -> dict[str, Any]:
    """Which program and which API this is."""
    return {"version": __version__, "api": "v0"}
