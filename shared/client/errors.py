"""What an HTTP answer that is not a success means: one of our errors, or that nobody answered."""

from __future__ import annotations

from typing import Any

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


def error_of(status: int, content: bytes, *, retry_after: str | None = None) -> LongshoreError:
    """The error that an answer with a status of 400 or more tells of; `retry_after` is the header's text."""
    told = _body(content)
    message = str(told.get("message") or f"the coordinator answered {status}")[:_MAX_MESSAGE]
    details = told.get("details")
    known = {str(key): value for key, value in details.items()} if isinstance(details, dict) else {}
    known.pop("message", None)
    seconds = _seconds(known.get("retry_after_seconds"), retry_after)
    if seconds is not None:
        known["retry_after_seconds"] = seconds
    return _class_of(status, str(told.get("code", "")))(message, **known)


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


def _body(content: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {}


def _seconds(*values: Any) -> float | None:
    """The first of the values that is a number."""
    for value in values:
        try:
            return max(0.0, float(str(value)))
        except ValueError:
            continue
    return None
