"""What it costs to know who is calling: an authenticated read beside an open one, a login beside bare argon2."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from coordinator.domains.identity.passwords import AT_ONCE, COSTS, Passwords
from tests.bench.stack import PASSWORD, Stack

ROUNDS = 5
LOGIN = {"email": "admin@localhost", "password": PASSWORD}


def measure(stack: Stack, *, samples: int) -> dict[str, Any]:
    """Medians in milliseconds, each in turns with its peer; and logins a second while all hashing lanes are busy."""
    opened, known = _reads(stack, samples)
    bare, login = _logins(stack, max(3, samples // 20))
    return {
        "open_read_ms": opened,
        "authenticated_read_ms": known,
        "authentication_ms": round(known - opened, 2),
        "argon2_ms": bare,
        "login_ms": login,
        "login_ratio": round(login / bare, 2),
        **_under_load(stack, max(8, samples // 10)),
    }


def _reads(stack: Stack, samples: int) -> tuple[float, float]:
    """Two reads that ask the database nothing themselves: one that anybody may make, one that asks who is calling."""
    return _in_turns(
        lambda: stack.http.get("/api/v0/version").raise_for_status(),
        lambda: stack.http.get("/api/v1/security/ip-rules").raise_for_status(),
        samples,
    )


def _logins(stack: Stack, samples: int) -> tuple[float, float]:
    hasher, stored = _hashed()
    return _in_turns(
        lambda: hasher.matches(stored, PASSWORD),
        lambda: stack.http.post("/api/v1/auth/login", json=LOGIN).raise_for_status(),
        samples,
    )


def _under_load(stack: Stack, count: int) -> dict[str, Any]:
    """Per second, with as many at once as hash at once in one web process."""
    hasher, stored = _hashed()
    before = _rate(lambda: hasher.matches(stored, PASSWORD), count)
    ours = _rate(
        lambda: httpx.post(f"{stack.url}/api/v1/auth/login", json=LOGIN, timeout=120).raise_for_status(), count
    )
    after = _rate(lambda: hasher.matches(stored, PASSWORD), count)
    bare = (before + after) / 2
    told = {"argon2_per_second": round(bare, 1), "logins_per_second": round(ours, 1)}
    return told | {"load_ratio": round(ours / bare, 2)}


def _hashed() -> tuple[Passwords, str]:
    hasher = Passwords(COSTS["standard"])
    return hasher, hasher.hash(PASSWORD)


def _in_turns(one: Callable[[], object], other: Callable[[], object], samples: int) -> tuple[float, float]:
    """The medians of both, taken in turns, so that a machine that drifts drifts for both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for action, into in ((one, taken[0]), (other, taken[1])):
            action()
            into += [_timed(action) for _ in range(-(-samples // ROUNDS))]
    first, second = (round(statistics.median(each) * 1000, 2) for each in taken)
    return first, second


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _rate(action: Callable[[], object], count: int) -> float:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = time.perf_counter()
        for done in [pool.submit(action) for _ in range(count)]:
            done.result()
        return count / (time.perf_counter() - started)
