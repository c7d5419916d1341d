"""The `worker` command."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from shared import logs
from shared.errors import LongshoreError
from shared.settings import SettingsError
from worker.checks import check as check_all
from worker.computer.choose import Choice, choose_driver
from worker.config import Settings, load_settings, parse_labels
from worker.daemon import AGAIN, CREDENTIAL_VOID, Daemon
from worker.enrolling import identity_of
from worker.home import Home, HomeError
from worker.keeping import Keepers
from worker.unit import unit_text

OWNER = "longshore"
_UNITS = {"s": 1, "m": 60, "h": 3600}
_MOST_SECONDS = 30 * 24 * 3600

app = typer.Typer(help="A Longshore node: runs jobs in isolated computers.", no_args_is_help=True, add_completion=False)

HomeOption = Annotated[Path | None, typer.Option("--home", help="Where the node keeps its identity and journal.")]
CoordinatorOption = Annotated[str | None, typer.Option("--coordinator", metavar="URL")]
DriverOption = Annotated[str | None, typer.Option("--driver", metavar="auto|docker|process")]
UnsandboxedOption = Annotated[
    bool | None, typer.Option("--allow-unsandboxed", help="Run jobs without isolation where nothing better works.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _root() -> None:
    """A Longshore node: runs jobs in isolated computers."""


@app.command()
def start(
    coordinator: CoordinatorOption = None,
    enrol_token: Annotated[str | None, typer.Option("--enrol-token", help="Needed once.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="A label; the host's name otherwise.")] = None,
    group: Annotated[str | None, typer.Option("--group")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE")] = None,
    slots: Annotated[int | None, typer.Option("--slots", help="Computers at a time.")] = None,
    driver: DriverOption = None,
    home: HomeOption = None,
    allow_unsandboxed: UnsandboxedOption = None,
) -> None:
    """Be a node: enrol if need be, wait for approval, run jobs until stopped."""
    settings = _settings(
        coordinator_url=coordinator,
        enrol_token=enrol_token,
        node_name=name,
        node_group=group,
        node_labels=_labels(label),
        slots=slots,
        driver=driver,
        home=home,
        allow_unsandboxed=allow_unsandboxed,
    )
    _configure_logs(settings)
    try:
        with Home(settings.node_home) as opened:
            code, is_clean = _run(settings, opened)
    except HomeError as error:
        raise _fail(str(error)) from None
    if code == AGAIN:
        _begin_anew()
    if not is_clean:
        # Python would wait for the threads of the pool, and one of them hangs. Its computer is gone already.
        logging.shutdown()
        os._exit(code or 1)
    raise typer.Exit(code)


@app.command()
def check(
    coordinator: CoordinatorOption = None,
    driver: DriverOption = None,
    home: HomeOption = None,
    allow_unsandboxed: UnsandboxedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say in words what a node needs and does not have; the exit code is 1 when something is missing."""
    settings = _settings(coordinator_url=coordinator, driver=driver, home=home, allow_unsandboxed=allow_unsandboxed)
    findings = check_all(settings)
    is_ok = all(finding.ok is not False for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": is_ok, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        marks = {True: "ok     ", False: "MISSING", None: "-      "}
        for finding in findings:
            typer.echo(f"{marks[finding.ok]} {finding.name}: {finding.message}")
    raise typer.Exit(0 if is_ok else 1)


@app.command()
def drain(
    home: HomeOption = None,
    within: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Hand back what still runs after that: 90s, 10m, 2h.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the node has ended.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Let the node of this home finish what it runs, take nothing new, and end."""
    seconds = None if within is None else _seconds(within)
    place = Home(_settings(home=home).node_home)
    pid = _running(place)
    place.ask_drain_within(seconds)
    os.kill(pid, signal.SIGUSR1)
    while wait and place.running_pid() == pid:
        time.sleep(0.2)
    told = {"pid": pid, "ended": wait}
    typer.echo(json.dumps(told) if as_json else f"process {pid} {'has ended' if wait else 'drains'}")


@app.command()
def restart(
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until the node runs again.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Let the node of this home begin anew, with the code that is installed now; what runs in Docker goes on.

    Jobs of the process driver are handed back and run elsewhere.
    """
    place = Home(_settings(home=home).node_home)
    pid, before = _running(place), place.running_since()
    os.kill(pid, signal.SIGHUP)
    while wait and place.running_since() in (None, before):
        if not _is_alive(pid):
            raise _fail(f"process {pid} has ended and does not run again; see its log")
        time.sleep(0.1)
    told = {"pid": pid, "runs_again": wait}
    typer.echo(json.dumps(told) if as_json else f"process {pid} {'has begun anew' if wait else 'begins anew'}")


@app.command("install-service")
def install_service(
    home: Annotated[Path, typer.Option("--home")] = Path("/var/lib/longshore"),
    user: Annotated[str, typer.Option("--user")] = "longshore",
    driver: DriverOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a hardened systemd unit for a node; save it as /etc/systemd/system/longshore-worker.service."""
    program = shutil.which("worker") or str(Path(sys.argv[0]).absolute())
    command = [program, "start", *(["--driver", driver] if driver else [])]
    text = unit_text(
        command=command, home=home, user=user, with_docker=driver != "process", void_exit_code=CREDENTIAL_VOID
    )
    typer.echo(json.dumps({"unit": text}) if as_json else text, nl=as_json)


def main() -> None:
    """Entry point of the `worker` script."""
    app()


def _begin_anew() -> None:
    """Become the program that is installed now. The process id, and so the service, stays the same."""
    # Until the new one listens, a further wish to begin anew is as good as granted.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the very words we were started with


def _running(place: Home) -> int:
    pid = place.running_pid()
    if pid is None:
        raise _fail(f"no node runs from {place.path}")
    return pid


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _seconds(text: str) -> float:
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        raise _fail(f"--within: {text!r} is not a duration such as 90s, 10m or 2h") from None
    if not 0 <= seconds < _MOST_SECONDS:
        raise _fail(f"--within: {text!r} is out of range")
    return seconds


def _run(settings: Settings, home: Home) -> tuple[int, bool]:
    keepers = Keepers(home.path)
    keepers.look()
    choice = _driver(settings, home)
    _say(f"computers: {choice.reason}")
    try:
        identity = identity_of(settings, home, choice, say=_say)
    except HomeError:
        choice.driver.close()
        raise
    _say(f"node {identity.name} ({identity.id}) of {identity.coordinator_url}")
    keeping = keepers.keep_for(choice.driver)
    daemon = Daemon(settings, home=home, identity=identity, choice=choice, keeping=keeping, say=_say)
    return daemon.run(), daemon.is_clean


def _configure_logs(settings: Settings) -> None:
    logs.configure(settings.log_format)
    for chatty in ("httpx", "celery", "kombu"):
        # A line for each request and each ticket, all of which we tell in our own words where it matters.
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _driver(settings: Settings, home: Home) -> Choice:
    try:
        return choose_driver(
            settings.driver,
            home=home.path,
            owner=OWNER,
            node=home.installation,
            image=settings.computer_image,
            docker_url=settings.docker_socket,
            runtime=settings.computer_runtime,
            allow_unsandboxed=settings.allow_unsandboxed,
            fetch_images=settings.fetch_images,
        )
    except LongshoreError as error:
        raise HomeError(error.message) from error


def _settings(**overrides: Any) -> Settings:
    try:
        return load_settings(**overrides)
    except SettingsError as error:
        raise _fail(str(error)) from None


def _labels(items: list[str] | None) -> dict[str, str] | None:
    try:
        return parse_labels(items) if items else None
    except ValueError as error:
        raise _fail(f"--label: {error}") from None


def _say(text: str) -> None:
    """To whoever started it; the log tells programs."""
    typer.echo(f"worker: {text}", err=True)


def _fail(text: str) -> typer.Exit:
    typer.echo(f"worker: {text}", err=True)
    return typer.Exit(1)
