"""The node's ear, where no broker is needed to try it."""

from __future__ import annotations

from typing import Any

from tests.services.processes import wait_until
from worker.consumer import Ear


def test_an_address_that_cannot_be_used_is_a_queue_that_is_not_heard() -> None:
    handler: Any = None
    ear = Ear(node_id="n", threads=1, handler=handler, on_hearing=lambda: None)
    ear.start()
    assert ear.is_ok is None
    ear.want("redis+cluster://one:7000/0")
    wait_until(lambda: ear.is_ok is False, what="refusal")
    ear.want(None)
    wait_until(lambda: ear.is_ok is None, what="peace")
    assert ear.told()["listening_seconds"] is None
    assert ear.close(5)
