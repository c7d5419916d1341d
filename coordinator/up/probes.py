"""Whether a part answers, asked as its users will ask."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import redis

PATIENCE_SECONDS = 2.0


def redis_answers(connection: redis.Redis) -> bool:
    """Whether it takes our password and has finished loading."""
    try:
        return bool(connection.ping())
    except (redis.RedisError, OSError):
        return False


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    status, _ = _get(url)
    return status == 200


def missing_parts(url: str) -> list[str] | None:
    """What `/health/ready` says is missing, in words; nothing when ready, None while it does not answer."""
    status, body = _get(f"{url}/health/ready")
    if status == 0:
        return None
    try:
        checks: dict[str, Any] = json.loads(body)["checks"]
    except (ValueError, KeyError, TypeError):
        return [f"answered {status}"]
    return [f"{name} {check['detail']}" for name, check in checks.items() if not check["ok"]]


def _get(url: str) -> tuple[int, bytes]:
    """Status and body; 0 when nobody answers."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()
