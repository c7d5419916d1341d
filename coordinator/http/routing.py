"""Mounting declared endpoints in Flask: converters, both slash forms, one view per method."""

from __future__ import annotations

import re

from flask import Flask
from werkzeug.routing import BaseConverter


class IdConverter(BaseConverter):
    """`<id:…>`: a UUID in any case, handed on in lower case; anything else is no such path."""

    regex = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    part_isolating = True

    def to_python(self, value: str) -> str:
        return value.lower()


def prepare(app: Flask) -> None:
    """Let the app route the way our paths are written."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters["id"] = IdConverter


def endpoint_name(path: str, method: str) -> str:
    """A name that is unique inside a blueprint."""
    return f"{method.lower()}_{re.sub('[^a-zA-Z0-9]+', '_', path).strip('_')}"
