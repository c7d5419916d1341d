"""What an HTTP answer that is not a success means: one of our errors, or that nobody answered."""

from __future__ import annotations

from typing import Any

import httpx
import orjson

from shared.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    LimitReached,
    LongshoreError,
    NotFound,
    PayloadTooLarge,
    PreconditionFailed,
    StaleAttempt,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)

_BY_STATUS: dict[int, type[LongshoreError]] = {
    cls.status: cls
    for cls in (
        BadRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        PreconditionFailed,
        PayloadTooLarge,
        UnsupportedMediaType,
        Invalid,
        LimitReached,
        Unavailable,
    )
}
_GONE = 410
_MAX_MESSAGE = 500


class Unreachable(Unavailable):
    """Nobody answered: refused, timed out, cut off in the middle. Whether the request was acted on is not known."""


def error_of(response: httpx.Response) -> LongshoreError:
    """The error that an answer with a status of 400 or more tells of."""
    told = _body(response)
    code = str(told.get("code", ""))
    message = str(told.get("message") or f"the coordinator answered {response.status_code}")[:_MAX_MESSAGE]
    details = told.get("details")
    known = {str(key): value for key, value in details.items()} if isinstance(details, dict) else {}
    retry_after = _retry_after(response, known)
    if retry_after is not None:
        known["retry_after_seconds"] = retry_after
    return _class_of(response.status_code, code)(message, **known)


def worth_retrying(error: LongshoreError) -> bool:
    """Whether the same request may succeed later: the only place that knows."""
    return isinstance(error, Unavailable | LimitReached) or type(error) is LongshoreError


def _class_of(status: int, code: str) -> type[LongshoreError]:
    if code == StaleAttempt.code:
        return StaleAttempt
    if status == _GONE:
        return Unauthenticated
    if status >= 500:
        return LongshoreError if status == 500 else Unavailable
    return _BY_STATUS.get(status, BadRequest)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        parsed = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {}


def _retry_after(response: httpx.Response, details: dict[str, Any]) -> float | None:
    for value in (details.get("retry_after_seconds"), response.headers.get("retry-after")):
        try:
            return max(0.0, float(str(value)))
        except ValueError:
            continue
    return None
