"""Limits counted in Redis by one script, over all processes and coordinators: one round trip however many limits."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, cast

import redis

from coordinator.http.limiting_rules import Kind, Limit, Verdict
from coordinator.signal_line import SignalLine

PREFIX = "longshore:limit:"


class RedisCounter:
    """Answers None while Redis is away. Nobody waits for one that hangs, but for those who find out."""

    def __init__(self, line: SignalLine) -> None:
        self._line = line
        self._text = resources.files("coordinator.http").joinpath("limiting.lua").read_text()
        self._script: Any = None

    def count(self, limits: Sequence[Limit], *, lease: str, now: float) -> list[Verdict] | None:
        """What each limit says; the request is counted against all of them or against none."""
        keys = [PREFIX + limit.key for limit in limits]
        facts = [each for limit in limits for each in (limit.kind.value, limit.most, limit.seconds)]
        arguments = [f"{now:.6f}", lease, *facts]
        answer = self._line.send("limits", lambda client: self._run(client, keys, arguments))
        return None if answer is None else [_read(each) for each in answer]

    def release(self, limits: Sequence[Limit], *, lease: str) -> None:
        """Give back the place that the request had; one that gets lost on the way is free after a while."""
        for limit in limits:
            if limit.kind is Kind.LEASE:
                self._line.send("limits", lambda client, key=PREFIX + limit.key: client.zrem(key, lease))  # type: ignore[misc]

    def _run(self, client: redis.Redis, keys: list[str], arguments: list[Any]) -> list[bytes]:
        if self._script is None:
            self._script = client.register_script(self._text)
        return cast(list[bytes], self._script(keys=keys, args=arguments, client=client))


def _read(answer: bytes) -> Verdict:
    remaining, wait, reset = answer.split()
    return Verdict(int(remaining), float(wait), float(reset))
