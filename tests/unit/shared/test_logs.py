"""What the logs say, and what they keep to themselves."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared.logs import LogFormat, configure, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    structlog.contextvars.clear_contextvars()
    yield io.StringIO()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(stream: io.StringIO, event: dict[str, Any], log_format: LogFormat = "json") -> Any:
    configure(log_format, stream=stream)
    structlog.get_logger("test").info("happened", **event)
    text = stream.getvalue()
    return json.loads(text) if log_format == "json" else text


def test_json_is_one_object_a_line_with_time_and_level(stream: io.StringIO) -> None:
    line = logged(stream, {"number": 3})
    assert (line["message"], line["level"], line["number"]) == ("happened", "info", 3)
    assert line["timestamp"].endswith("Z")
    assert stream.getvalue().count("\n") == 1


def test_ids_of_the_context_are_on_every_line_of_both_loggers(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="r1", job_id="j1"):
        structlog.get_logger().info("ours")
        logging.getLogger("theirs").warning("of %s", "others")
    structlog.get_logger().info("after")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line.get("request_id"), line.get("job_id")) for line in lines] == [
        ("r1", "j1"),
        ("r1", "j1"),
        (None, None),
    ]
    assert (lines[1]["message"], lines[1]["logger"], lines[1]["level"]) == ("of others", "theirs", "warning")


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "admin_password",
        "token",
        "refresh_token",
        "secret",
        "secret_key",
        "Authorization",
        "api_key",
        "cookie",
        "credential",
    ],
)
def test_what_is_named_like_a_secret_is_masked_at_any_depth(stream: io.StringIO, name: str) -> None:
    line = logged(stream, {name: "visible", "inside": {"deeper": [{name: "visible"}]}})
    assert "visible" not in json.dumps(line)


@pytest.mark.parametrize("name", ["credential_id", "token_type", "key", "tokens_used", "passed"])
def test_names_that_only_resemble_are_shown(stream: io.StringIO, name: str) -> None:
    assert logged(stream, {name: "visible"})[name] == "visible"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /ws?token=abc123&x=1", "GET /ws?token=***&x=1"),
        ("?a=1&signature=abc", "?a=1&signature=***"),
        ("Authorization: Bearer abcdefgh", "Authorization: Bearer ***"),
        (f"got {JWT} from", "got *** from"),
        ("postgresql://longshore:hunter2@db/x", "postgresql://longshore:***@db/x"),
        ("redis://:hunter2@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
        ("node lsn_abcdefghijkl came", "node lsn_*** came"),
        ("nothing to hide: false_hope, http://a.b/c?d=e", "nothing to hide: false_hope, http://a.b/c?d=e"),
    ],
)
def test_what_looks_like_a_secret_is_masked_in_any_text(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_in_tracebacks_are_masked_too(stream: io.StringIO, log_format: LogFormat) -> None:
    configure(log_format, stream=stream)
    try:
        raise RuntimeError(f"cannot use {JWT}")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "cannot use ***" in stream.getvalue()
    assert "eyJ" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_value_cannot_fake_a_line(stream: io.StringIO, log_format: LogFormat) -> None:
    logged(stream, {"agent": "curl\n2026-01-01 [info] admin logged in\r\x1b[2J"}, log_format)
    assert stream.getvalue().count("\n") == 1
    assert "\x1b[2J" not in stream.getvalue()


def test_what_is_not_json_is_written_as_text(stream: io.StringIO) -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd password=x ?token=abc"

    assert logged(stream, {"odd": Odd(), "ids": {"b"}})["odd"] == "odd password=x ?token=***"


def test_endless_nesting_is_cut(stream: io.StringIO) -> None:
    nested: list[Any] = []
    nested.append(nested)
    assert "***" in json.dumps(logged(stream, {"nested": nested}))


def test_warnings_come_into_the_log(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
        logging.captureWarnings(False)
    assert "careful" in stream.getvalue()


def test_the_level_is_kept(stream: io.StringIO) -> None:
    configure("json", level="WARNING", stream=stream)
    structlog.get_logger().info("quiet")
    logging.getLogger("theirs").info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["loud"]
