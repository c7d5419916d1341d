"""`scripts/bench`: everything measured side by side in one run, as a table and as JSON."""

from __future__ import annotations

import argparse
import platform
import subprocess
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import access, endpoints, latency, throughput
from tests.bench.stack import Stack, as_json, running
from tests.services import processes
from tests.services.dockerd import DockerDaemon

IMAGE = "longshore-computer"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples: seconds instead of minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--only", choices=["throughput", "latency", "docker", "endpoints", "access"], help="just this part"
    )
    options = parser.parse_args()
    figures = _measure(quick=options.quick, only=options.only)
    _print(figures)
    if options.json:
        options.json.write_text(as_json(figures) + "\n")


def _measure(*, quick: bool, only: str | None) -> dict[str, Any]:
    figures: dict[str, Any] = {"about": _about()}
    wanted = {only} if only else {"throughput", "latency", "docker", "endpoints", "access"}
    with ExitStack() as exits:
        docker_url = exits.enter_context(DockerDaemon()).socket_url if "docker" in wanted else None
        # Somebody who logs in over and over is what the limit is made against.
        env = {"LONGSHORE_RATE_LOGIN_PER_MINUTE": "0"} | ({"DOCKER_HOST": docker_url} if docker_url else {})
        stack = exits.enter_context(running(**env))
        home = processes.scratch_directory("bench-node")
        driver = "docker" if docker_url else "process"
        options = [] if docker_url else ["--allow-unsandboxed"]
        stack.start_node(home, "--slots", "4", "--driver", driver, *options)
        if "throughput" in wanted:
            figures["throughput"] = throughput.measure(stack, count=600 if quick else 3000, rounds=1 if quick else 3)
        if "latency" in wanted:
            figures["latency"] = latency.echo(stack, samples=20 if quick else 100)
        if docker_url:
            figures["docker"] = _docker_figures(stack, docker_url, samples=5 if quick else 25)
        if "access" in wanted:
            figures["access"] = access.measure(stack, samples=50 if quick else 500)
        if "endpoints" in wanted:
            figures["endpoints"] = endpoints.measure(stack, seconds=1 if quick else 5)
    return figures


def _docker_figures(stack: Stack, docker_url: str, *, samples: int) -> dict[str, Any]:
    before = latency.sdk(IMAGE, docker_url, samples=samples)
    ours = latency.command(stack, samples=samples, driver="docker")
    after = latency.sdk(IMAGE, docker_url, samples=samples)
    peer = (before["median_ms"] + after["median_ms"]) / 2
    ratio = ours["claim_to_accepted_result"]["median_ms"] / peer
    return {**ours, "sdk_create_start_wait_remove_ms": round(peer, 1), "claim_to_result_ratio": round(ratio, 2)}


def _about() -> dict[str, str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


def _print(figures: dict[str, Any]) -> None:
    table = Table(title="Longshore, measured beside its peers", show_header=False)
    for part, values in figures.items():
        table.add_section()
        for name, value in values.items():
            table.add_row(
                part, name, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
