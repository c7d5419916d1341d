"""What waits to be sent to one socket."""

from __future__ import annotations

import asyncio
import threading

from coordinator.domains.live.outbox import Outbox


def test_what_was_offered_before_anybody_took_is_there() -> None:
    box: Outbox[int] = Outbox(10)
    box.offer([1, 2])
    box.offer([3])
    assert asyncio.run(box.take()) == [1, 2, 3]


def test_taking_waits_for_an_offer_of_another_thread() -> None:
    box: Outbox[int] = Outbox(10)

    async def take() -> list[int] | None:
        taking = asyncio.create_task(box.take())
        await asyncio.sleep(0)
        thread = threading.Thread(target=box.offer, args=([7],))
        thread.start()
        taken = await asyncio.wait_for(taking, 10)
        thread.join()
        return taken

    assert asyncio.run(take()) == [7]


def test_one_too_many_empties_it_and_is_told_once() -> None:
    box: Outbox[int] = Outbox(3)

    async def take_all() -> list[list[int] | None]:
        box.offer([1, 2, 3])
        box.offer([4])
        box.offer([5])
        lost = await box.take()
        box.offer([6])
        return [lost, await box.take()]

    assert asyncio.run(take_all()) == [None, [6]]
