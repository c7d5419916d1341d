"""Names and media types of strangers are made harmless."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator.domains.tasks.filenames import (
    BINARY,
    LONGEST_BYTES,
    attachment,
    safe_media_type,
    safe_name,
    safe_relative_name,
)

HOSTILE = st.text(st.sampled_from("ab./\\\x00\n\r\u202e\u200b\"';%é漢 ~"), max_size=40) | st.text(max_size=300)


class TestSafeName:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("report.txt", "report.txt"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("", "file"),
            (None, "file"),
            (".", "file"),
            ("a/", "file"),
            (" a b ", "a b"),
            ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
            (".env", ".env"),
            ("e\u0301", "é"),
            ("trailing...", "trailing"),
            ("trailing. .", "trailing"),
            ("e\u200b\u0301", "é"),
        ],
    )
    def test_it_is_one_plain_part(self, given: str | None, kept: str) -> None:
        assert safe_name(given) == kept

    def test_a_long_one_is_cut_and_keeps_its_ending(self) -> None:
        name = safe_name("ä" * 300 + ".tar")
        assert name.endswith(".tar")
        assert len(name.encode()) <= LONGEST_BYTES
        assert safe_name("." + "x" * 300) == "." + "x" * 254

    @example("a. .")
    @example("e\u200b\u0301")
    @given(HOSTILE)
    def test_whatever_comes_it_is_safe(self, given: str) -> None:
        name = safe_name(given)
        assert name
        assert name not in (".", "..")
        assert not re.search(r"[/\\\x00-\x1f]", name)
        assert not any(unicodedata.category(each) in ("Cc", "Cf") for each in name)
        assert len(name.encode()) <= LONGEST_BYTES
        assert safe_name(name) == name


class TestSafeRelativeName:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("plots/a.png", "plots/a.png"),
            ("/plots//a.png", "plots/a.png"),
            ("../../x", "x"),
            ("a/../../b", "a/b"),
            ("..", "file"),
            ("/".join("abcdefghij"), "c/d/e/f/g/h/i/j"),
        ],
    )
    def test_folders_stay_inside(self, given: str, kept: str) -> None:
        assert safe_relative_name(given) == kept

    @given(HOSTILE)
    def test_whatever_comes_it_stays_inside(self, given: str) -> None:
        name = safe_relative_name(given)
        parts = name.split("/")
        assert all(part and part not in (".", "..") for part in parts)
        assert len(name.encode()) <= LONGEST_BYTES
        assert not re.search(r"[\\\x00-\x1f]", name)


class TestMediaType:
    @pytest.mark.parametrize(
        "active",
        [
            "text/html",
            "application/xhtml+xml",
            "image/svg+xml",
            "text/xml",
            "application/rss+xml",
            "text/javascript",
            "application/ecmascript",
            "application/wasm",
            "text/css",
            "multipart/related",
            "application/x-shockwave-flash",
            "TEXT/HTML;charset=utf-8",
            "text/html\nx",
            "nonsense",
        ],
    )
    def test_what_could_be_active_is_plain_bytes(self, active: str) -> None:
        assert safe_media_type(active, "a.txt") == BINARY

    @pytest.mark.parametrize(
        ("told", "name", "kept"),
        [
            ("image/png", "a", "image/png"),
            ("text/plain; charset=utf-8", "a.html", "text/plain"),
            (None, "a.csv", "text/csv"),
            ("", "a.html", BINARY),
            (BINARY, "a.unknown", BINARY),
            (
                "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
                "a.xlsx",
                "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            ),
        ],
    )
    def test_the_others_stay(self, told: str | None, name: str, kept: str) -> None:
        assert safe_media_type(told, name) == kept


class TestAttachment:
    @given(HOSTILE)
    def test_no_name_breaks_out_of_the_header(self, given: str) -> None:
        header = attachment(given)
        assert re.fullmatch(r"attachment; filename=\"[^\"\\\r\n]*\"; filename\*=UTF-8''[A-Za-z0-9%._~-]+", header)
        assert header.isascii()
