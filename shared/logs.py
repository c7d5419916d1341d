"""Structured logs: one configuration for every process, ids bound by context, secrets masked before writing."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import Processor

LogFormat = Literal["console", "json"]

MASK = "***"
DEEPEST = 6

_SECRET_NAME = re.compile(
    r"(^|_)(pass|password|passwd|secret|token|authorization|cookie|credential|api_key|apikey|private_key|secret_key)$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"(?P<query>(?<=[?&])(?:access_token|token|api_key|ticket|signature|key)=)[^&\s\"']+"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}"
    r"|(?P<userinfo>://[^/\s:@]*:)[^/\s@]+(?=@)"
    r"|(?P<opaque>\bls[a-z]_)[A-Za-z0-9._-]{6,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
    re.IGNORECASE,
)
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code != 0x09}
_MANY_LINES = frozenset({"exception", "stack"})


def configure(log_format: LogFormat, *, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to `stream` (standard error), in one format."""
    target = stream or sys.stderr
    shared = _shared_processors()
    structlog.configure(
        processors=[*shared, *_rendering(log_format, target)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(log_format, target),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what is named or looks like a secret, and keep a text from faking further lines."""
    for name, value in event.items():
        event[name] = MASK if value and _SECRET_NAME.search(name) else _clean(value, name in _MANY_LINES, DEEPEST)
    return event


def names_secret(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def redact_text(text: str) -> str:
    """The text without what looks like a secret."""
    return _SECRET_TEXT.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    kept = next((text for text in found.groupdict().values() if text), "")
    return f"{kept}{MASK}"


def _clean(value: Any, many_lines: bool, depth: int) -> Any:
    if isinstance(value, str):
        text = redact_text(value)
        return text if many_lines else text.translate(_CONTROL)
    if isinstance(value, bool | int | float) or value is None:
        return value
    if depth == 0:
        return MASK
    if isinstance(value, Mapping):
        return {
            str(name): MASK if each and _SECRET_NAME.search(str(name)) else _clean(each, many_lines, depth - 1)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each, many_lines, depth - 1) for each in value]
    return _clean(str(value), many_lines, depth)


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]


def _rendering(log_format: LogFormat, target: TextIO) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(serializer=_json)]
    # The plain form: a pretty one prints the values of local variables, and among them are credentials.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=plain)]


def _json(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=str).decode()
