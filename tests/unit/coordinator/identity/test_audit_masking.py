"""What of a value the audit trail keeps: no secret, nothing endless, always the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from coordinator.domains.identity.audit_masking import GREATEST_DOCUMENT, GREATEST_LIST, GREATEST_TEXT, document, line


def kept(value: Any, *secrets: str) -> Any:
    text = document(value, frozenset(secrets))
    assert text is not None
    return orjson.loads(text)


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "new_password",
        "token",
        "refresh_token",
        "api_key",
        "client_secret",
        "credential",
        "authorization",
        "password_hash",
        "recovery_codes",
        "otpauth_uri",
        "Password",
        "secret",
    ],
)
def test_a_secret_is_masked_by_the_name_of_its_field(name: str) -> None:
    assert kept({name: "hush", "other": {"deep": [{name: ["hush"]}]}}) == {
        name: "***",
        "other": {"deep": [{name: "***"}]},
    }


def test_whether_there_is_a_secret_may_be_told() -> None:
    assert kept({"password": None, "token": ""}) == {"password": None, "token": ""}


def test_fields_that_a_shape_marks_are_masked_too() -> None:
    assert kept({"value": "hush", "name": "x"}, "value") == {"value": "***", "name": "x"}


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abcdefghijkl",
        "lsn_018f0000-0000-7000-8000-000000000001_abcdefgh",
        "redis://user:hush-hush@host/0",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_secret_is_masked_inside_texts(text: str) -> None:
    told = kept({"note": f"see {text} there"})["note"]
    assert "***" in told
    assert text not in told
    assert line(f"see {text} there", 500) == told


def test_names_that_only_resemble_a_secrets_are_kept() -> None:
    assert kept({"token_count": 3, "passed": True}) == {"token_count": 3, "passed": True}


def test_the_same_value_always_gives_the_same_text() -> None:
    assert document({"b": 1, "a": {"d": 2, "c": 3}}) == '{"a":{"c":3,"d":2},"b":1}'


def test_nothing_is_nothing() -> None:
    assert document(None) is None


def test_long_texts_and_lists_are_cut_and_say_so() -> None:
    told = kept({"text": "x" * (GREATEST_TEXT + 50), "list": list(range(GREATEST_LIST + 5))})
    assert told["text"].endswith(f"… {GREATEST_TEXT + 50} characters")
    assert (len(told["list"]), told["list"][-1]) == (GREATEST_LIST + 1, "… 5 more")


def test_a_document_that_is_too_large_is_told_by_its_size_alone() -> None:
    told = kept({str(number): "x" * 1000 for number in range(50)})
    assert told["left_out"] == "too large"
    assert told["bytes"] > GREATEST_DOCUMENT
    assert len(told["sha256"]) == 64


@pytest.mark.parametrize("levels", [20, 500])
def test_a_deep_value_has_an_end(levels: int) -> None:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"in": value}
    assert "bottom" not in str(document(value))


def test_values_of_every_kind_can_be_written() -> None:
    awkward = {
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "set": {"b", "a"},
        "tuple": (1, 2.5, None, True),
        "huge": 2**80,
        "nul": "a\0b",
        "half": "\ud800",
        3: "number as a name",
        "object": object,
    }
    told = kept(awkward)
    assert told["time"] == "2026-01-01T00:00:00.000Z"
    assert told["set"] == ["a", "b"]
    assert told["tuple"] == [1, 2.5, None, True]
    assert told["huge"] == str(2**80)
    assert (told["nul"], told["half"]) == ("a\ufffdb", "?")
    assert told["3"] == "number as a name"
