"""Endpoints of the system domain."""

from __future__ import annotations

from typing import Any

from flask import current_app
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from coordinator.domains.system import readiness
from coordinator.domains.system.schemas import HealthView, ReadyView, VersionView
from coordinator.http import pages
from coordinator.http.slice import OPEN, Call, Reply, Slice
from shared import __version__

system = Slice("system", "Health, version, metrics and this document")


def _me(status: str) -> dict[str, Any]:
    return {"status": status, "service": "longshore", "version": __version__}


@system.get(
    "/health", may=OPEN, reply=HealthView, transaction="none", versions=("root", "v1"), name="get_health", quiet=True
)
def get_health(_call: Call) -> dict[str, Any]:
    """Tell that the process is alive; asks nothing of its surroundings."""
    return _me("healthy")


@system.get("/health", may=OPEN, transaction="none", returns="text", versions=("v0",), name="get_health", quiet=True)
def get_health_text(_call: Call) -> str:
    """Tell that the process is alive."""
    return "OK"


@system.get(
    "/health/ready",
    may=OPEN,
    reply=ReadyView,
    transaction="none",
    versions=("root", "v0", "v1"),
    also={503: ReadyView},
    quiet=True,
)
def get_readiness(call: Call) -> Reply:
    """Tell whether database, Redis, storage and a live dispatcher are there, and which is not."""
    found = readiness.examine(call.resources)
    checks = {name: {"ok": ok, "detail": detail} for name, (ok, detail) in found.checks.items()}
    body = {**_me("ready" if found.is_ready else "not_ready"), "checks": checks}
    return Reply(body, status=200 if found.is_ready else 503, headers={} if found.is_ready else {"Retry-After": "2"})


@system.get("/version", may=OPEN, reply=VersionView, transaction="none", versions=("v0",))
def get_version(_call: Call) -> dict[str, Any]:
    """Which program and which API this is."""
    return {"version": __version__, "api": "v0"}


@system.get(
    "/metrics", may=OPEN, transaction="none", returns=CONTENT_TYPE_PLAIN_0_0_4, versions=("root", "v1"), quiet=True
)
def get_metrics(call: Call) -> bytes:
    """Requests, queue, jobs, nodes in Prometheus' text format."""
    exposition: bytes = current_app.extensions["longshore"].metrics.exposition(call.resources.database)
    return exposition


@system.get("/api-docs/openapi.json", may=OPEN, transaction="none", versions=("root",), name="get_openapi")
def get_openapi(_call: Call) -> Reply:
    """This document."""
    ours = current_app.extensions["longshore"]
    return Reply(ours.document, headers={"ETag": ours.document_tag, "Cache-Control": "no-cache"})


@system.get("/swagger-ui", may=OPEN, transaction="none", returns="html", versions=("root",))
def get_swagger_ui(_call: Call) -> Reply:
    """A page to read and try this API with."""
    return pages.page()


@system.get(
    "/swagger-ui/<string:asset>", may=OPEN, transaction="none", returns="binary", versions=("root",), documented=False
)
def get_swagger_ui_asset(_call: Call, asset: str) -> Reply:
    """What that page is made of."""
    return pages.asset(asset)
