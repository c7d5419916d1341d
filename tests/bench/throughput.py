"""Empty jobs end to end: submit, place, claim, run without a computer, report; beside bare Celery on the same Redis."""

from __future__ import annotations

import statistics
import time
from typing import Any

from tests.bench.peer import drain_rate
from tests.bench.stack import Stack, cpu_seconds

BULK = 500


def measure(stack: Stack, *, count: int, rounds: int) -> dict[str, Any]:
    """Ours between two runs of the peer, `rounds` times; the ratio is to the mean of the neighbours."""
    agent = stack.agent(name="bench-echo", runtime="echo")
    _run(stack, agent, min(count, BULK))
    peers = [_peer(stack, count)]
    ours: list[float] = []
    cpu: list[dict[str, float]] = []
    for _ in range(rounds):
        before = cpu_seconds(stack)
        ours.append(_run(stack, agent, count))
        cpu.append({part: (used - before[part]) / count * 1e6 for part, used in cpu_seconds(stack).items()})
        peers.append(_peer(stack, count))
    ratios = [rate / statistics.mean(peers[n : n + 2]) for n, rate in enumerate(ours)]
    return {
        "jobs": count,
        "ours_per_second": [round(rate) for rate in ours],
        "celery_per_second": [round(rate) for rate in peers],
        "ratios": [round(ratio, 2) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 2),
        "our_cpu_us_per_job": {part: round(statistics.median(run[part] for run in cpu)) for part in cpu[0]},
    }


def _peer(stack: Stack, count: int) -> float:
    return drain_rate(stack.redis.url(10), stack.redis.url(11), count)


def _run(stack: Stack, agent: str, count: int) -> float:
    """Jobs per second from the first request until the database says that all succeeded."""
    done = "SELECT count(*) FROM jobs WHERE agent_id = %s AND state = 'succeeded'"
    ((before,),) = stack.sql(done, agent)
    started = time.perf_counter()
    for first in range(0, count, BULK):
        size = min(BULK, count - first)
        tasks = [{"title": f"job {first + n}", "instructions": "echo", "agent_id": agent} for n in range(size)]
        stack.post("/api/v1/tasks/bulk", {"tasks": tasks})
    while stack.sql(done, agent)[0][0] < before + count:
        if time.perf_counter() - started > 300:
            raise TimeoutError("the jobs did not end in five minutes")
        time.sleep(0.02)
    return count / (time.perf_counter() - started)
