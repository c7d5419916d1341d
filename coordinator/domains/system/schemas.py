"""Shapes of the system domain on the wire."""

from __future__ import annotations

from coordinator.http.schemas import View, fields


class HealthView(View):
    """That the process answers."""

    status = fields.String()
    service = fields.String()
    version = fields.String()


class CheckView(View):
    """Whether one part answers, and how."""

    ok = fields.Boolean()
    detail = fields.String(allow_none=True)


class ReadyView(HealthView):
    """Whether everything that work needs is there."""

    checks = fields.Dict(keys=fields.String(), values=fields.Nested(CheckView))


class VersionView(View):
    """Which program and which API this is."""

    version = fields.String()
    api = fields.String()
