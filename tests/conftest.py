"""Loads the fixtures and the rules that every test lives under."""

from __future__ import annotations

pytest_plugins = (
    "tests.fixtures.discipline",
    "tests.fixtures.services",
    "tests.fixtures.coordinator",
    "tests.fixtures.external",
)
