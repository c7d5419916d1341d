"""Computers on a real Docker daemon and in real sandboxes: every check of the contract, and what one driver has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.services import processes, sandboxes
from tests.services.dockerd import IMAGE, DockerDaemon, DockerMissing
from worker.computer.choose import choose_driver
from worker.computer.contract import (
    CollectLimits,
    Computer,
    ComputerError,
    ComputerLost,
    ComputerSpec,
    DriverInfo,
    DriverUnavailable,
    ExecEnd,
    Feature,
    ImageMissing,
    Isolation,
    Network,
)
from worker.computer.docker.driver import DockerDriver
from worker.computer.process import sandbox
from worker.computer.process.computer import Place, furnish
from worker.computer.process.driver import ProcessDriver
from worker.computer.process.sandbox import Way
from worker.computer.self_check import CHECKS, Verdict, run_check, run_checks
from worker.computer.self_check.checks import Check

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("dockerd")]

SECONDS = 30.0
NEEDED_CHECKS = 40


# ---- the drivers


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerDaemon]:
    try:
        daemon = DockerDaemon(bridge=True)
    except DockerMissing as reason:
        pytest.skip(str(reason))
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def docker(daemon: DockerDaemon) -> Iterator[DockerDriver]:
    driver = _docker(daemon)
    yield driver
    driver.reap([])
    driver.close()


@pytest.fixture(scope="module")
def docker_from_afar(daemon: DockerDaemon) -> Iterator[DockerDriver]:
    """As if the daemon were on another host: nothing is read past its API."""
    driver = _docker(daemon, look_from_host=False)
    yield driver
    driver.reap([])
    driver.close()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessDriver]:
    driver = ProcessDriver(home=tmp_path_factory.mktemp("node"), owner="tests", node="here")
    yield driver
    driver.reap([])
    driver.close()


@pytest.fixture(scope="module")
def unsandboxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessDriver]:
    home = tmp_path_factory.mktemp("bare-node")
    driver = ProcessDriver(home=home, owner="tests", node="here", use_bwrap=False, allow_unsandboxed=True)
    yield driver
    driver.reap([])
    driver.close()


def _docker(daemon: DockerDaemon, **settings: Any) -> DockerDriver:
    given = {"image": IMAGE, "owner": "tests", "node": f"node-{uuid.uuid4().hex[:8]}"} | settings
    return DockerDriver(socket_url=daemon.socket_url, **given)


def _spec(**changes: Any) -> ComputerSpec:
    return replace(ComputerSpec(id=f"test-{uuid.uuid4().hex[:16]}", memory_mb=128, pids=64), **changes)


def _sh(computer: Computer, script: str, **options: Any) -> str:
    done = computer.exec(["sh", "-c", script], **{"timeout_seconds": SECONDS} | options)
    assert (done.end, done.exit_code) == (ExecEnd.exited, 0), done
    return done.stdout.decode().rstrip("\n")


def _docker_api(daemon: DockerDaemon, *words: str) -> str:
    done = subprocess.run(["docker", "-H", daemon.socket_url, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# ---- every promise of the contract


def _topic(item: Check) -> str:
    return item.run.__module__.rpartition(".")[2]


@cache
def _info(driver: DockerDriver | ProcessDriver) -> DriverInfo:
    """Probing makes a computer; once for each driver is enough."""
    info = driver.probe()
    assert info.available, info.reason
    return info


def _assert_kept(item: Check, driver: DockerDriver | ProcessDriver) -> None:
    info = _info(driver)
    result = run_check(item, driver, info)
    if item.needs <= info.features:
        assert result.verdict is Verdict.kept, result.detail
    else:
        assert result.verdict is Verdict.not_promised


def test_there_are_enough_checks_and_each_says_something_else() -> None:
    assert len({item.name for item in CHECKS}) == len(CHECKS) >= NEEDED_CHECKS


@pytest.mark.parametrize("item", CHECKS, ids=lambda item: item.name)
def test_docker_keeps_the_contract(item: Check, docker: DockerDriver) -> None:
    _assert_kept(item, docker)


@pytest.mark.parametrize("item", CHECKS, ids=lambda item: item.name)
def test_processes_keep_the_contract(item: Check, process: ProcessDriver) -> None:
    _assert_kept(item, process)


@pytest.mark.parametrize("item", [c for c in CHECKS if _topic(c) in ("limits", "files")], ids=lambda item: item.name)
def test_docker_on_another_host_keeps_the_contract(item: Check, docker_from_afar: DockerDriver) -> None:
    _assert_kept(item, docker_from_afar)


@pytest.mark.parametrize("item", [c for c in CHECKS if _topic(c) in ("stopping", "life")], ids=lambda item: item.name)
def test_processes_without_a_sandbox_keep_what_they_promise(item: Check, unsandboxed: ProcessDriver) -> None:
    _assert_kept(item, unsandboxed)


def test_docker_promises_everything(docker: DockerDriver) -> None:
    assert docker.probe().features == set(Feature)


def test_a_sandbox_promises_its_walls(process: ProcessDriver) -> None:
    info = process.probe()
    walls = {
        Feature.absolute_work,
        Feature.hidden_host,
        Feature.kills_everything,
        Feature.network_none,
        Feature.no_privileges,
        Feature.pids_limit,
        Feature.private_processes,
        Feature.read_only_root,
        Feature.unprivileged_user,
    }
    assert info.isolation is not None
    assert info.isolation.kind is Isolation.bwrap
    assert walls <= info.features


def test_without_a_sandbox_nothing_is_promised_that_is_not_there(unsandboxed: ProcessDriver) -> None:
    info = unsandboxed.probe()
    assert info.isolation is not None
    assert info.isolation.kind is Isolation.none
    walls = {Feature.hidden_host, Feature.network_none, Feature.no_privileges, Feature.unprivileged_user}
    assert not walls & info.features
    assert any("can do everything that user can" in note for note in info.isolation.notes)


def test_checking_a_node_at_work_leaves_its_computers_alone(process: ProcessDriver) -> None:
    at_work = process.create(_spec())
    lively = [item for item in CHECKS if _topic(item) == "life"]
    results = run_checks(process, only=lively)
    assert [result for result in results if result.verdict is not Verdict.kept] == []
    assert _sh(at_work, "echo well") == "well"
    at_work.destroy()


def test_a_check_that_fails_is_told_as_broken(process: ProcessDriver) -> None:
    broken = Check("It never works", lambda bench: _fail(), frozenset())
    (result,) = run_checks(process, only=[broken])
    assert (result.verdict, result.detail) == (Verdict.broken, "ZeroDivisionError: no")


def _fail() -> None:
    raise ZeroDivisionError("no")


# ---- Docker alone


def test_a_container_is_ours_by_its_labels_and_hardened(docker: DockerDriver, daemon: DockerDaemon) -> None:
    computer = docker.create(_spec(expires_at=2_000_000_000, labels={"team": "blue"}))
    found = json.loads(_docker_api(daemon, "inspect", f"longshore-{computer.spec.id}"))[0]
    host, labels = found["HostConfig"], found["Config"]["Labels"]
    assert labels["longshore.computer"] == labels["longshore.attempt"] == computer.spec.id
    assert (labels["longshore.expires"], labels["team"], labels["longshore.kind"]) == ("2000000000", "blue", "task")
    assert (host["CapDrop"], host["ReadonlyRootfs"], host["Privileged"]) == (["ALL"], True, False)
    assert host["NetworkMode"].startswith("container:")
    computer.destroy()
    assert _docker_api(daemon, "volume", "ls", "-q") == ""


def test_environment_and_secrets_are_in_no_description_of_the_container(
    docker: DockerDriver, daemon: DockerDaemon
) -> None:
    computer = docker.create(_spec())
    _sh(computer, "true", env={"TOKEN": "very-secret"})
    assert "very-secret" not in _docker_api(daemon, "inspect", f"longshore-{computer.spec.id}")
    computer.destroy()


def test_a_name_that_is_taken_by_somebody_else_is_neither_used_nor_removed(
    docker: DockerDriver, daemon: DockerDaemon
) -> None:
    spec = _spec()
    name = f"longshore-{spec.id}"
    _docker_api(daemon, "create", "--name", name, "--network", "none", IMAGE, "true")
    with pytest.raises(ComputerError, match="not ours"):
        docker.create(spec)
    docker.reap([])
    assert _docker_api(daemon, "ps", "-aqf", f"name={name}")
    _docker_api(daemon, "rm", name)


def test_a_dead_container_of_an_earlier_try_makes_room(docker: DockerDriver, daemon: DockerDaemon) -> None:
    first = docker.create(_spec())
    _docker_api(daemon, "kill", f"longshore-{first.spec.id}")
    again = docker.create(first.spec)
    assert _sh(again, "ls; echo well") == "well"
    again.destroy()


def test_an_image_that_is_not_there_is_told(docker: DockerDriver) -> None:
    with pytest.raises(ImageMissing, match="no-such-image"):
        docker.create(_spec(image="no-such-image:1"))


def test_a_foreign_image_has_a_work_directory_that_the_job_may_write(
    docker: DockerDriver, daemon: DockerDaemon, tmp_path: Path
) -> None:
    _docker_api(daemon, "tag", IMAGE, "foreign:1")
    spec = _spec(image="foreign:1")
    computer = docker.create(spec)
    computer.put("input/a", b"given")
    assert _sh(computer, "cat input/a; mkdir artifacts; echo made >artifacts/b; stat -c %u .") == "given1000"
    (artifact,) = computer.collect(tmp_path / "out", CollectLimits()).artifacts
    assert artifact.path.read_bytes() == b"made\n"
    computer.destroy()
    assert _docker_api(daemon, "volume", "ls", "-q") == ""
    _docker_api(daemon, "rmi", "foreign:1")


def test_a_holder_that_was_removed_by_hand_is_replaced(docker: DockerDriver, daemon: DockerDaemon) -> None:
    docker.create(_spec()).destroy()
    holders = _docker_api(daemon, "ps", "-qf", "label=longshore.kind=holder").split()
    _docker_api(daemon, "rm", "-f", *holders)
    computer = docker.create(_spec())
    assert _sh(computer, "echo well") == "well"
    computer.destroy()


def test_a_container_killed_beneath_a_command_is_told_as_lost(docker: DockerDriver, daemon: DockerDaemon) -> None:
    computer = docker.create(_spec())
    name = f"longshore-{computer.spec.id}"
    on = threading.Event()
    killer = threading.Thread(target=lambda: (on.wait(SECONDS), _docker_api(daemon, "kill", name)))
    killer.start()
    with pytest.raises(ComputerLost, match="exited"):
        computer.exec(
            ["sh", "-c", "echo on; sleep 60"], timeout_seconds=SECONDS, on_output=lambda _stream, _chunk: on.set()
        )
    killer.join()
    with pytest.raises(ComputerLost):
        _sh(computer, "true")
    computer.destroy()


def test_holders_of_a_dead_process_are_reaped_and_ours_are_not(docker: DockerDriver, daemon: DockerDaemon) -> None:
    dead = docker.twin()
    dead.create(_spec()).destroy()
    mine = docker.create(_spec())
    before = set(_docker_api(daemon, "ps", "-qf", "label=longshore.kind=holder").split())
    docker.reap([mine.spec.id])
    after = set(_docker_api(daemon, "ps", "-qf", "label=longshore.kind=holder").split())
    assert len(after) == len(before) - 1
    assert _sh(mine, "echo well") == "well"
    mine.destroy()
    dead.close()


def test_closing_leaves_no_container(daemon: DockerDaemon) -> None:
    driver = _docker(daemon, node="closing")
    driver.create(_spec()).destroy()
    assert _docker_api(daemon, "ps", "-aqf", "label=longshore.node=closing")
    driver.close()
    assert not _docker_api(daemon, "ps", "-aqf", "label=longshore.node=closing")


@pytest.mark.slow
def test_a_daemon_without_bridge_refuses_open_networks_and_one_that_dies_starts_clean() -> None:
    daemon = DockerDaemon()
    try:
        driver = _docker(daemon)
        _assert_no_open_network(driver)
        computer = driver.create(_spec())
        daemon.kill()
        assert not driver.answers()
        with pytest.raises(DriverUnavailable):
            _sh(computer, "true")
        daemon.restart()
        assert driver.answers()
        driver.reap([])
        assert driver.list_owned() == []
        again = driver.create(_spec())
        assert _sh(again, "echo well") == "well"
        again.destroy()
        driver.close()
    finally:
        daemon.stop()


def _assert_no_open_network(driver: DockerDriver) -> None:
    """This daemon has no bridge: it would start the container all the same, and the job would wonder."""
    assert Feature.network_open not in driver.probe().features
    spec = _spec(network=Network.open)
    with pytest.raises(DriverUnavailable, match="open network"):
        driver.create(spec)
    assert driver.list_owned() == []


# ---- processes alone


def test_a_sandbox_of_an_ordinary_user_keeps_its_walls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's way is tried everywhere else; here everything from bubblewrap on starts as uid 1000."""
    home = processes.scratch_directory("sandbox")
    driver = ProcessDriver(home=home, owner="tests", node="here", use_groups=False)
    monkeypatch.setattr(driver, "_tools", replace(driver._settle_tools(), way=Way.bwrap))
    become = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"] if os.geteuid() == 0 else []
    start = sandbox.outer_command
    monkeypatch.setattr(sandbox, "outer_command", lambda tools, **words: [*become, *start(tools, **words)])
    monkeypatch.setattr("worker.computer.process.driver.furnish", _furnish_for_1000)
    info = _info(driver)
    results = [run_check(item, driver, info) for item in CHECKS if _topic(item) == "walls"]
    assert [result for result in results if result.verdict is Verdict.broken] == []
    assert sum(result.verdict is Verdict.kept for result in results) > len(results) / 2


def _furnish_for_1000(place: Place, *, owner: int | None) -> None:
    assert owner is None
    furnish(place, owner=1000 if os.geteuid() == 0 else None)
    place.folder.parent.chmod(0o755)
    place.folder.chmod(0o755)


def test_what_a_killed_worker_left_running_is_found_and_ended(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        from pathlib import Path
        from worker.computer.contract import ComputerSpec
        from worker.computer.process.driver import ProcessDriver
        driver = ProcessDriver(
            home=Path({str(tmp_path)!r}), owner="o", node="n", use_bwrap=False, use_groups=False, allow_unsandboxed=True
        )
        computer = driver.create(ComputerSpec(id="left"))
        computer.exec(["sh", "-c", "setsid sleep 300 & echo $! >pid; sleep 300"], timeout_seconds=None)
    """)
    worker = processes.start([sys.executable, "-c", script], log=tmp_path / "log", cwd=Path(__file__).parents[2])
    pid_file = tmp_path / "computers" / "left" / "work" / "pid"
    pid = int(worker.wait_until(lambda: pid_file.read_text().strip() if pid_file.is_file() else "", what="a child"))
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait()
    child = psutil.Process(pid)
    assert child.is_running()
    successor = ProcessDriver(home=tmp_path, owner="o", node="n")
    assert list(successor.list_owned()) == ["left"]
    assert list(successor.reap([])) == ["left"]
    processes.wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, what="its end")
    assert list((tmp_path / "computers").iterdir()) == []


def test_a_sandbox_whose_worker_died_while_it_was_made_is_found_and_ended(tmp_path: Path) -> None:
    name = f"left-{uuid.uuid4().hex[:12]}"
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from worker.computer.contract import ComputerSpec
        from worker.computer.process.driver import ProcessDriver
        from worker.computer.process.entry import StartedProcess
        driver = ProcessDriver(home=Path({str(tmp_path)!r}), owner="o", node="n", use_groups=False)
        computer = driver.create(ComputerSpec(id={name!r}))
        # The command is on its way, and nothing of it is written down.
        StartedProcess.find_init = lambda started: os.kill(os.getpid(), signal.SIGKILL)
        computer.exec(["sleep", "300"], timeout_seconds=None)
    """)
    worker = processes.start([sys.executable, "-c", script], log=tmp_path / "log", cwd=Path(__file__).parents[2])
    assert worker.wait() == -signal.SIGKILL, worker.output()
    # Bubblewrap dies of telling a dead worker; the process it began with waits for ever to be told to go on.
    processes.wait_until(lambda: [one.name() for one in sandboxes.of(name)] == ["bwrap"], what="an orphan")
    successor = ProcessDriver(home=tmp_path, owner="o", node="n", use_groups=False)
    assert list(successor.reap([])) == [name]
    processes.wait_until(lambda: not sandboxes.of(name), what="its end")


def test_without_a_sandbox_the_driver_refuses_unless_it_is_allowed(tmp_path: Path) -> None:
    info = ProcessDriver(home=tmp_path, owner="o", node="n", use_bwrap=False).probe()
    assert not info.available
    assert "may not run without one" in info.reason


def test_a_sandbox_that_cannot_be_made_is_an_error_of_ours_and_not_of_the_job(tmp_path: Path) -> None:
    driver = ProcessDriver(home=tmp_path, owner="o", node="n", use_groups=False)
    computer = driver.create(_spec())
    driver._tools = replace(driver._settle_tools(), links=(("a", "/usr/bin"),))
    broken = driver.create(_spec())
    with pytest.raises(ComputerError, match="sandbox could not be made"):
        _sh(broken, "true")
    assert _sh(computer, "echo well") == "well"
    for made in (computer, broken):
        made.destroy()


# ---- the image


def _computer_image(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[2] / "scripts" / "computer-image"
    environment = {**os.environ, **variables}
    return subprocess.run([str(script), *words], env=environment, capture_output=True, text=True, check=False)


def test_an_image_that_is_there_is_not_built_again(daemon: DockerDaemon) -> None:
    before = _docker_api(daemon, "image", "inspect", "--format", "{{.Id}}", IMAGE)
    done = _computer_image(DOCKER_HOST=daemon.socket_url)
    assert (done.returncode, "there already" in done.stderr) == (0, True)
    assert _docker_api(daemon, "image", "inspect", "--format", "{{.Id}}", IMAGE) == before


def test_the_image_has_what_jobs_are_promised(docker: DockerDriver) -> None:
    computer = docker.create(_spec())
    for program in ("sh", "tar", "python3", "git", "curl", "sha256sum", "find"):
        _sh(computer, f"command -v {program}")
    assert (
        _sh(
            computer,
            "python3 -c 'import json, sqlite3, ssl; print(1)'; id -un; test -s /etc/ssl/certs/ca-certificates.crt",
        )
        == "1\nagent"
    )
    computer.destroy()


def test_the_image_script_names_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    done = _computer_image(DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert "none.sock" in done.stderr


def test_the_image_script_says_exactly_what_is_missing(daemon: DockerDaemon, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in (path for folder in ("/usr/bin", "/bin", "/usr/sbin") for path in Path(folder).iterdir()):
        if program.name != "debootstrap" and not (tools / program.name).is_symlink():
            (tools / program.name).symlink_to(program)
    done = _computer_image(
        "--force",
        DOCKER_HOST=daemon.socket_url,
        PATH=str(tools),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        LONGSHORE_COMPUTER_FROM="debootstrap",
    )
    assert done.returncode == 1
    assert "debootstrap (apt-get install debootstrap)" in done.stderr


@pytest.mark.parametrize(("words", "variables"), [(["--wrong"], {}), ([], {"LONGSHORE_COMPUTER_FROM": "thin air"})])
def test_the_image_script_refuses_what_it_does_not_know(words: list[str], variables: dict[str, str]) -> None:
    assert _computer_image(*words, **variables).returncode == 1


# ---- choosing


def test_docker_is_chosen_when_it_answers_and_the_reason_says_so(daemon: DockerDaemon, tmp_path: Path) -> None:
    choice = choose_driver("auto", home=tmp_path, owner="o", node="n", image=IMAGE, docker_url=daemon.socket_url)
    assert choice.driver.name == "docker"
    assert IMAGE in choice.reason
    choice.driver.close()


@pytest.mark.parametrize("what", ["no daemon", "no image"])
def test_processes_are_chosen_when_docker_cannot_be_and_the_reason_says_why(
    what: str, daemon: DockerDaemon, tmp_path: Path
) -> None:
    url = f"unix://{tmp_path}/none.sock" if what == "no daemon" else daemon.socket_url
    choice = choose_driver("auto", home=tmp_path, owner="o", node="n", image="not-there", docker_url=url)
    assert choice.driver.name == "process"
    assert ("no Docker daemon answers" if what == "no daemon" else "not-there is not on this node") in choice.reason


def test_a_driver_that_was_asked_for_is_not_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable, match="docker"):
        choose_driver(
            "docker", home=tmp_path, owner="o", node="n", image=IMAGE, docker_url=f"unix://{tmp_path}/none.sock"
        )
