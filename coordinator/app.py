"""The app factory: resources in, a Flask app with every domain's endpoints out."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from functools import cached_property

from flask import Blueprint as FlaskBlueprint
from flask import Flask
from flask_smorest import Blueprint
from werkzeug.middleware.proxy_fix import ProxyFix

from coordinator.config import load_settings
from coordinator.domains.identity import page_api
from coordinator.http import auth, errors, limiting, openapi, routing, sockets
from coordinator.http import wsgi as outermost
from coordinator.http.browser import Browsers
from coordinator.http.edge import Edge
from coordinator.http.limiting import Limiter
from coordinator.http.metrics import RequestMetrics
from coordinator.http.slice import PREFIXES, Endpoint, Slice, mounted
from coordinator.http.trail import Clerk
from coordinator.resources import Resources, make_resources

DOMAINS = ("system", "identity", "fleet", "queue", "agents", "tasks", "live")


@dataclass(frozen=True)
class Longshore:
    """What the app keeps of us in `app.extensions["longshore"]`."""

    resources: Resources
    slices: tuple[Slice, ...]
    api: openapi.Api
    gatekeeper: auth.Gatekeeper
    browsers: Browsers
    tokens: auth.Tokens
    clerk: Clerk
    limiter: Limiter
    metrics: RequestMetrics
    checks_replies: bool

    @cached_property
    def document(self) -> bytes:
        """The published document, always the same bytes for the same declarations."""
        return openapi.as_bytes(self.api)

    @cached_property
    def document_tag(self) -> str:
        return f'"{hashlib.sha256(self.document).hexdigest()[:32]}"'


def create_app(resources: Resources, *, slices: tuple[Slice, ...] | None = None, check_replies: bool = False) -> Flask:
    """An app that serves every slice of every domain; `check_replies` holds each reply against its declaration."""
    app = Flask("coordinator", static_folder=None)
    routing.prepare(app)
    errors.register_error_handlers(app)
    page_api.install(app)
    auth.install_jwt(app, resources)
    api = openapi.make_api(app)
    tokens = auth.Tokens(resources)
    # Imported even if others are served: the domains are who knows the credentials.
    served = domain_slices()
    if slices is not None:
        served = slices
    _refuse_doubles(served)
    gatekeeper = auth.Gatekeeper(tokens)
    clerk = Clerk(resources, gatekeeper)
    limiter = Limiter(resources)
    browsers = Browsers(tokens, gatekeeper, resources.key("csrf"))
    ours = Longshore(
        resources, served, api, gatekeeper, browsers, tokens, clerk, limiter, RequestMetrics(), check_replies
    )
    app.extensions["longshore"] = ours
    for one in ours.slices:
        _mount(app, ours, one)
    if resources.settings.proxy_count:
        count = resources.settings.proxy_count
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]
    limiting.install(app, limiter)
    outermost.install(app, ours.metrics)
    return app


def wsgi() -> Flask:
    """The app for a WSGI server, with settings from the environment."""
    app = create_app(make_resources(load_settings()))
    app.extensions["longshore"].clerk.settle_by_itself()
    return app


def _refuse_doubles(slices: tuple[Slice, ...]) -> None:
    """Raise when two endpoints claim one operation id or one place: which one is served would be an accident."""
    seen: set[tuple[str, ...]] = set()
    for endpoint, version in mounted(slices):
        for claim in ((endpoint.operation_id(version),), (version, endpoint.method, endpoint.path)):
            if claim in seen:
                raise ValueError(f"declared twice: {' '.join(claim)}")
            seen.add(claim)


def domain_slices() -> tuple[Slice, ...]:
    """The slices that the domains declare, in the order of DOMAINS."""
    modules = [importlib.import_module(f"coordinator.domains.{name}.api") for name in DOMAINS]
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Slice))


def _mount(app: Flask, ours: Longshore, one: Slice) -> None:
    spec = ours.api.spec
    for version, prefix in PREFIXES.items():
        mine = [endpoint for endpoint in one.endpoints if version in endpoint.versions]
        if not mine:
            continue
        blueprint = Blueprint(f"{one.name}-{version}", __name__, url_prefix=prefix or None)
        for endpoint in mine:
            _add_route(blueprint, ours, endpoint, version)
        app.register_blueprint(blueprint)
        blueprint.register_views_in_doc(ours.api, app, spec, name=blueprint.name, parameters=None)
    spec.tag({"name": one.name, "description": one.summary})


def _add_route(blueprint: Blueprint, ours: Longshore, endpoint: Endpoint, version: str) -> None:
    check = openapi.check_reply if ours.checks_replies else None
    edge = Edge(
        endpoint,
        version,
        ours.resources,
        ours.gatekeeper,
        ours.clerk,
        ours.limiter,
        check,
        browsers=ours.browsers,
    )
    name = routing.endpoint_name(endpoint.path, endpoint.method)
    if endpoint.method == sockets.WS:
        sockets.mount(blueprint, name, endpoint, resources=ours.resources, gate=ours.gatekeeper, clerk=ours.clerk)
        return
    if not endpoint.documented:
        FlaskBlueprint.add_url_rule(blueprint, endpoint.path, name, edge, methods=[endpoint.method])
        return
    view = openapi.documented(edge, endpoint, version)
    blueprint.add_url_rule(endpoint.path, name, view, methods=[endpoint.method], tags=[endpoint.tag])
