"""The one error tree. Every error a user can meet has a code from this file."""

from __future__ import annotations

from typing import Any, ClassVar


class LongshoreError(Exception):
    """Base of all errors that are ours; `message` is for people, `code` for programs."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = {k: v for k, v in details.items() if v is not None}


class BadRequest(LongshoreError):
    """The request could not be read (broken JSON, a malformed header)."""

    code, status = "BAD_REQUEST", 400


class Unauthenticated(LongshoreError):
    """Nobody we know: token missing, wrong, expired or revoked."""

    code, status = "AUTHENTICATION_ERROR", 401


class Forbidden(LongshoreError):
    """Known, but without the right."""

    code, status = "AUTHORIZATION_ERROR", 403


class NotFound(LongshoreError):
    """Not there, or in a space the caller may not see."""

    code, status = "NOT_FOUND", 404


class Conflict(LongshoreError):
    """The resource is in a state that does not allow this."""

    code, status = "CONFLICT", 409


class StateConflict(Conflict):
    """A move that the lifecycle does not have."""


class Duplicate(Conflict):
    """Something with this name exists already."""


class StaleAttempt(LongshoreError):
    """A report for an attempt that is no longer the job's current one."""

    code, status = "STALE_ATTEMPT", 409


class PreconditionFailed(LongshoreError):
    """If-Match named another version than the stored one."""

    code, status = "PRECONDITION_FAILED", 412


class PayloadTooLarge(LongshoreError):
    """Larger than a limit that a setting names."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class UnsupportedMediaType(LongshoreError):
    """A body in a format this endpoint does not read."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415


class Invalid(LongshoreError):
    """A well-formed request that breaks a rule; `field` and `reason` say which."""

    code, status = "VALIDATION_ERROR", 422

    def __init__(self, message: str, *, field: str | None = None, reason: str | None = None, **details: Any) -> None:
        super().__init__(message, field=field, reason=reason or message, **details)


class LimitReached(LongshoreError):
    """Too much for now; ask again after `retry_after_seconds`."""

    code, status, retryable = "RATE_LIMIT_ERROR", 429, True


class Unavailable(LongshoreError):
    """A part we need does not answer; nothing was accepted."""

    code, status, retryable = "UNAVAILABLE", 503, True


CODES: dict[str, int] = {
    cls.code: cls.status
    for cls in (
        BadRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        StaleAttempt,
        PreconditionFailed,
        PayloadTooLarge,
        UnsupportedMediaType,
        Invalid,
        LimitReached,
        LongshoreError,
        Unavailable,
    )
} | {"METHOD_NOT_ALLOWED": 405}
"""The whole catalogue: code → HTTP status."""
