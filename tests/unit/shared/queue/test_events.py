"""Task events say what Celery's own would say."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from celery.utils.time import utcoffset

from shared.queue.events import hours_west


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("zone", ["UTC", "EST5EDT", "XYZ-5:30", "XYZ3:30", "XYZ-12"], indirect=True)
def test_the_hours_west_are_the_ones_that_celery_would_tell() -> None:
    assert hours_west() == utcoffset()
