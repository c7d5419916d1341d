"""The quickstart: starts everything on this machine, and does one real job through the REST API, step by step."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from coordinator.config import Settings, load_settings
from coordinator.up import ports
from coordinator.up.child import Tie, last_words
from shared.client.http import API, Connection
from shared.errors import LongshoreError

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".longshore"
JOB = ROOT / "scripts" / "quickstart_job.py"
AGENT = "quickstart"
DEFAULT_BIND, DEFAULT_FLOWER_PORT = "127.0.0.1:9000", 5555
ONLINE_SECONDS, TASK_SECONDS, STOP_SECONDS = 30.0, 120.0, 40.0
WAIT_SECONDS = 10.0
FINAL = ("completed", "failed", "cancelled")
STEP = re.compile(r"\[(\d+)/(\d+)\] ")

Json = dict[str, Any]
console = Console(highlight=False)


class Failed(Exception):
    """The quickstart did not get where it wanted; the text says why."""


# ---- everything on this machine


class Town:
    """`coordinator up` as our child."""

    def __init__(self, settings: Settings, *, tied: bool) -> None:
        self.log = settings.home / "logs" / "up.log"
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        bind = DEFAULT_BIND if ports.is_free(DEFAULT_BIND) else f"127.0.0.1:{ports.free_port()}"
        flower = DEFAULT_FLOWER_PORT if ports.is_free(f"127.0.0.1:{DEFAULT_FLOWER_PORT}") else ports.free_port()
        words = ["up", "--home", str(settings.home), "--bind", bind, "--flower-port", str(flower)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "coordinator", *words, "--require-approval", "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                # Killed with us, unless it is to stay.
                preexec_fn=Tie(os.getpid()) if tied else None,  # noqa: PLW1509 - there are no threads yet
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> Json:
        """What runs where, as it tells when all is ready."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise Failed(f"coordinator up ended with {self._process.returncode}:\n{last_words(self.log, 20)}")
        told: Json = json.loads(line)
        return told

    def require_running(self) -> None:
        if self._process.poll() is not None:
            raise Failed(f"coordinator up has ended:\n{last_words(self.log, 20)}")

    def wait(self) -> None:
        """Until it ends by itself."""
        self._process.wait()
        raise Failed(f"coordinator up has ended:\n{last_words(self.log, 20)}")

    def stop(self) -> None:
        """End it in order; asked again meanwhile, at once."""
        while self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except KeyboardInterrupt:
                console.print("At once, then.")
            except subprocess.TimeoutExpired:
                self._process.kill()


@contextmanager
def town(settings: Settings, *, keep: bool) -> Iterator[Town]:
    """Everything, for as long as we need it."""
    running = Town(settings, tied=not keep)
    try:
        yield running
    except BaseException:
        running.stop()
        raise
    if keep:
        console.print(f"\nLeft running in the background: [bold]kill {running.pid}[/] stops everything.")
    else:
        running.stop()


# ---- the steps


def say(title: str, text: str = "") -> None:
    line(f"[bold green]✓[/] [bold]{escape(title)}[/]" + (f"  {escape(text)}" if text else ""))


def line(text: str) -> None:
    """One line, as long as it is: a terminal folds it, and what was copied from it stays whole."""
    console.print(text, soft_wrap=True)


def log_in(url: str, settings: Settings) -> Connection:
    """A connection as the admin."""
    password = settings.admin_password.get_secret_value()
    with Connection(url) as anonymous:
        tokens = anonymous.call("POST", f"{API}/auth/login", {"email": settings.admin_name, "password": password})
    api = Connection(url, token=tokens["access_token"], timeout=WAIT_SECONDS + 20)
    me = api.call("GET", f"{API}/auth/me")
    say("Logged in", f"as {me['name']}, role {me['role']}")
    return api


def let_nodes_in(api: Connection, told: Json) -> None:
    """Approve the nodes that wait for it, as an admin does, and wait until they are online."""
    for started in told["nodes"]:
        node = api.call("GET", f"{API}/workers/{started['id']}")
        if node["is_approved"]:
            say("Node known", f"{node['name']} was approved before")
        else:
            line(f"  {node['name']} is {node['status']}: {node['status_reason'] or 'it waits for an admin'}")
            node = api.call("PATCH", f"{API}/admin/workers/{node['id']}/approve", {"is_approved": True})
            say("Node approved", node["name"])
        node = await_online(api, node["id"])
        computers = node["computers"]
        say("Node online", f"{node['slots']} slots, computers by {computers['driver']}: {computers['reason']}")
        if computers["isolation"] == "none":
            line("[bold yellow]! Its jobs run WITHOUT ISOLATION: they can read what you can read.[/]")


def await_online(api: Connection, node_id: str) -> Json:
    deadline = time.monotonic() + ONLINE_SECONDS
    while True:
        node: Json = api.call("GET", f"{API}/workers/{node_id}")
        if node["status"] == "online":
            return node
        if time.monotonic() > deadline:
            raise Failed(f"the node is {node['status']} ({node['status_reason']}), not online")
        time.sleep(0.1)


def put_file(api: Connection, path: Path) -> Json:
    """The file on the coordinator: from an earlier run when it is the same, else uploaded."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for known in api.call("GET", f"{API}/files?limit=200")["files"]:
        if known["filename"] == path.name and known["sha256"] == digest and not known["task_id"]:
            found: Json = known
            say("File known", f"{path.name}, {found['size']} bytes, uploaded by an earlier run")
            return found
    response = api.send("POST", f"{API}/files/upload", files={"file": (path.name, content, "text/markdown")})
    uploaded: Json = response.json()
    say("File uploaded", f"{path.name}, {uploaded['size']} bytes")
    return uploaded


def have_agent(api: Connection) -> Json:
    """The agent of an earlier run, or a new one."""
    for known in api.call("GET", f"{API}/agents?search={AGENT}&limit=200")["agents"]:
        if known["name"] == AGENT and known["runtime"] == "python":
            found: Json = known
            say("Agent known", f"{AGENT}, made by an earlier run")
            return found
    made: Json = api.call(
        "POST",
        f"{API}/agents",
        {
            "name": AGENT,
            "runtime": "python",
            "description": "Runs the Python that a task brings, in a computer of its own",
            "computer": {"cpus": 1, "memory_mb": 256, "timeout_seconds": 60},
            "tags": ["quickstart"],
        },
    )
    say("Agent created", f"{AGENT}, runtime python")
    return made


def submit(api: Connection, agent: Json, source: Json) -> Json:
    task: Json = api.call(
        "POST",
        f"{API}/tasks",
        {
            "title": f"What is true of {source['filename']}",
            "instructions": JOB.read_text(),
            "agent_id": agent["id"],
            "input_files": [source["id"]],
            "priority": "high",
        },
    )
    say("Task submitted", f"{task['id']} ({task['status']})")
    return task


# ---- the live log


def follow(api: Connection, task_id: str, require_running: Callable[[], None]) -> float | None:
    """Print the task's log as it comes; the moment of the first line, on our clock."""
    columns = (TextColumn("  {task.description}"), BarColumn(30), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("waiting for a node", total=6)
        return _follow(api, task_id, lambda event: _show(progress, bar, event), require_running)


def _follow(
    api: Connection, task_id: str, show: Callable[[Json], None], require_running: Callable[[], None]
) -> float | None:
    deadline, after, first_line = time.monotonic() + TASK_SECONDS, 0, None
    while True:
        page = api.call("GET", f"{API}/tasks/{task_id}/events?after={after}&wait={WAIT_SECONDS:g}")
        for event in page["events"]:
            show(event)
            if event["type"] == "log" and first_line is None:
                first_line = time.monotonic()
        after = page["next_after"]
        if page["done"]:
            return first_line
        require_running()
        if time.monotonic() > deadline:
            task = api.call("GET", f"{API}/tasks/{task_id}")
            raise Failed(
                f"the task is {task['status']} after {TASK_SECONDS:g} s ({task['hold_reason'] or 'no reason'})"
            )


def _show(progress: Progress, bar: TaskID, event: Json) -> None:
    message = escape(event["message"])
    if event["type"] != "log":
        progress.update(bar, description=message)
        progress.console.print(f"  [dim]{event['timestamp'][11:23]} {message}[/]", soft_wrap=True)
        return
    progress.console.print(f"  [cyan]{event['timestamp'][11:23]}[/] {message}", soft_wrap=True)
    if found := STEP.match(event["message"]):
        progress.update(bar, completed=int(found[1]), total=int(found[2]), description="running")


# ---- the result


def check_result(task: Json, source: Path) -> Json:
    """The task's result, if it is true."""
    if task["status"] != "completed":
        raise Failed(f"the task is {task['status']}: {(task['error'] or {}).get('message', 'no reason given')}")
    content = source.read_bytes()
    expected = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "lines": len(content.decode().splitlines()),
        "bytes": len(content),
    }
    result: Json = task["result"]
    wrong = {name: result.get(name) for name, value in expected.items() if result.get(name) != value}
    if wrong:
        raise Failed(f"the result is wrong: {wrong} instead of {expected}")
    say("Result right", "the SHA-256 from inside the computer is the one of the local file")
    return result


def fetch_artifacts(api: Connection, task: Json, home: Path) -> list[Path]:
    """The files that the task made, below home."""
    if not task["output_files"]:
        raise Failed("the task has brought no artifact")
    directory = home / "results" / task["id"]
    directory.mkdir(parents=True, exist_ok=True)
    fetched = []
    for file in task["output_files"]:
        content = api.send("GET", f"{API}/files/{file['id']}/download").content
        if hashlib.sha256(content).hexdigest() != file["sha256"]:
            raise Failed(f"{file['filename']} was damaged on its way")
        target = directory / Path(file["filename"]).name
        target.write_bytes(content)
        fetched.append(target)
    return fetched


def show_result(task: Json, result: Json, artifacts: list[Path], timings: dict[str, float]) -> None:
    line("\n[bold]Result[/]")
    for name, value in result.items():
        line(f"  {name:<20} {escape(value if isinstance(value, str) else json.dumps(value))}")
    for path in artifacts:
        line(f"[bold]Artifact[/]  {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    attempt, usage = task["attempts"][-1], task["usage"] or {}
    peak = usage.get("peak_memory_bytes")
    memory = f", {peak / 1024**2:.0f} MiB at most" if peak else ""
    computer = attempt["computer"] or {}
    line(
        f"[bold]Attempt[/]   {attempt['number']} on {attempt['node_name']}, computer by {computer.get('driver')} "
        f"(isolation {computer.get('isolation')}), {usage.get('wall_ms')} ms of wall time{memory}"
    )
    line("[bold]Timings[/]   " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in timings.items()))


def show_places(told: Json, settings: Settings, task: Json) -> None:
    places = {
        "API": f"{told['url']}{API}   (this task: {API}/tasks/{task['id']})",
        "Swagger UI": told["swagger_ui"],
        "Flower": told["flower"],
        "Metrics": f"{told['url']}/metrics",
        "Login": f"{settings.admin_name} / {settings.admin_password.get_secret_value()}",
    }
    line("\n[bold]Where[/]")
    for name, place in places.items():
        line(f"  {name:<11} {escape(place)}")


# ---- all of it


def do_the_job(running: Town, settings: Settings) -> None:
    """From nothing to a verified result."""
    began = time.monotonic()
    with console.status("Starting Redis, API, dispatcher, Flower and a node …"):
        told = running.wait_until_ready()
    started = time.monotonic()
    say("Everything runs", f"{told['url']}, state in {told['home']}")
    with log_in(told["url"], settings) as api:
        let_nodes_in(api, told)
        path = ROOT / "README.md"
        source, agent = put_file(api, path), have_agent(api)
        submitted = time.monotonic()
        task = submit(api, agent, source)
        first_line = follow(api, task["id"], running.require_running)
        ended = time.monotonic()
        task = api.call("GET", f"{API}/tasks/{task['id']}")
        result = check_result(task, path)
        timings = {
            "start": started - began,
            "submit to first line": (first_line or ended) - submitted,
            "submit to result": ended - submitted,
            "all": time.monotonic() - began,
        }
        show_result(task, result, fetch_artifacts(api, task, settings.home), timings)
        show_places(told, settings, task)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the result")
    parser.add_argument("--keep", action="store_true", help="leave everything running in the background")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = load_settings(home=HOME)
        with town(settings, keep=asked.keep) as running:
            do_the_job(running, settings)
            if not asked.once and not asked.keep:
                console.print("\nServing until Ctrl-C.")
                _serve(running)
    except (Failed, LongshoreError) as reason:
        _give_up(str(reason))
    except KeyboardInterrupt:
        console.print("Stopped before there was a result.")
        sys.exit(130)


def _serve(running: Town) -> None:
    try:
        running.wait()
    except KeyboardInterrupt:
        console.print("\nStopping.")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _give_up(reason: str) -> NoReturn:
    Console(stderr=True, highlight=False).print(f"[bold red]quickstart:[/] {escape(reason)}")
    print(f"The logs are in {HOME / 'logs'}.", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
