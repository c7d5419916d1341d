"""How long one job takes when nothing else waits: without a computer, and in a fresh Docker computer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import docker

from tests.bench.stack import Stack


def echo(stack: Stack, *, samples: int) -> dict[str, Any]:
    """From the POST to the result, one at a time."""
    agent = stack.agent(name="bench-echo-latency", runtime="echo")
    taken = [_execute(stack, agent, {"n": 1})[0] for _ in range(samples + 5)][5:]
    return {"post_to_result": _spread(taken)}


def command(stack: Stack, *, samples: int, driver: str) -> dict[str, Any]:
    """A one-line command in a fresh computer: to its first instruction, and from the claim to the accepted result."""
    computer = {"driver": driver} if driver == "docker" else {}
    agent = stack.agent(name=f"bench-{driver}", runtime="command", computer=computer)
    first: list[float] = []
    claimed: list[float] = []
    for number in range(samples + 3):
        posted = time.time()
        _, view = _execute(stack, agent, {"command": "date +%s.%N"})
        if number < 3:
            continue
        first.append(float(view["result"]["output"]) - posted)
        ((seconds,),) = stack.sql(
            "SELECT extract(epoch FROM ended_at - claimed_at) FROM attempts WHERE job_id = %s", view["id"]
        )
        claimed.append(float(seconds))
    return {"post_to_first_instruction": _spread(first), "claim_to_accepted_result": _spread(claimed)}


def sdk(image: str, base_url: str | None, *, samples: int) -> dict[str, Any]:
    """The peer: create, start, wait and remove through Docker's SDK, with no network."""
    client = docker.DockerClient(base_url=base_url) if base_url else docker.from_env()

    def once() -> None:
        container = client.containers.create(image, ["date"], network_mode="none")
        container.start()
        container.wait()
        container.remove()

    taken = [_timed(once) for _ in range(samples + 2)][2:]
    client.close()
    return _spread(taken)


def _timed(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _execute(stack: Stack, agent: str, given: dict[str, Any]) -> tuple[float, Any]:
    """Seconds until the execution is over, and the execution."""
    started = time.perf_counter()
    made = stack.post(f"/api/v1/agents/{agent}/execute", {"input": given})
    while True:
        view = stack.get(f"/api/v1/executions/{made['id']}")
        if view["status"] not in ("pending", "running"):
            break
        time.sleep(0.005)  # more often, and the asking itself loads the cores it measures
    taken = time.perf_counter() - started
    if view["status"] != "completed":
        raise RuntimeError(f"the execution ended {view['status']}: {view['error']}")
    return taken, view


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"median_ms": round(statistics.median(ordered) * 1000, 1), "p99_ms": round(last * 1000, 1)}
