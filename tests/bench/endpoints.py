"""Requests per second of the main endpoints, from a few keep-alive connections on the same machine."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from tests.bench.stack import Stack

CONNECTIONS = 8


def measure(stack: Stack, *, seconds: float) -> dict[str, Any]:
    """Requests per second and the 99th percentile of each endpoint. The client shares the cores: read as ratios."""
    agent = stack.agent(name="bench-endpoints", runtime="echo")
    stack.post(f"/api/v1/agents/{agent}/stop", {})
    task = stack.post("/api/v1/tasks", {"title": "one", "instructions": "x", "agent_id": agent})["id"]
    one = {"title": "one", "instructions": "x", "agent_id": agent}
    calls: dict[str, tuple[str, str, Any]] = {
        "GET /health": ("GET", "/health", None),
        "GET /tasks": ("GET", "/api/v1/tasks?limit=20", None),
        "GET /tasks/{id}": ("GET", f"/api/v1/tasks/{task}", None),
        "GET /agents": ("GET", "/api/v1/agents", None),
        "POST /tasks": ("POST", "/api/v1/tasks", one),
        "POST /tasks/bulk (100)": ("POST", "/api/v1/tasks/bulk", {"tasks": [one] * 100}),
    }
    return {name: _load(stack, *call, seconds=seconds) for name, call in calls.items()}


def _load(stack: Stack, method: str, path: str, body: Any, *, seconds: float) -> dict[str, float]:
    taken: list[float] = []
    failures: list[int] = []
    until = time.perf_counter() + seconds
    threads = [
        threading.Thread(target=_client, args=(stack, method, path, body, until, taken, failures))
        for _ in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{method} {path} answered {sorted(set(failures))}")
    ordered = sorted(taken)
    return {"per_second": round(len(taken) / seconds), "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1)}


def _client(
    stack: Stack, method: str, path: str, body: Any, until: float, taken: list[float], failures: list[int]
) -> None:
    host = urlsplit(stack.url)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
    headers = {"Authorization": stack.http.headers["Authorization"], "Content-Type": "application/json"}
    payload = None if body is None else json.dumps(body)
    while time.perf_counter() < until:
        started = time.perf_counter()
        connection.request(method, path, body=payload, headers=headers)
        answer = connection.getresponse()
        answer.read()
        taken.append(time.perf_counter() - started)
        if answer.status >= 400:
            failures.append(answer.status)
            break
    connection.close()
