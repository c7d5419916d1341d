"""The `coordinator` command as scripts use it: what it prints, and with which code it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.cli import main
from coordinator.cli.root import COMMANDS
from coordinator.config import load_settings
from coordinator.domains.identity import logins
from coordinator.resources import make_resources
from tests.services import processes
from tests.services.ports import free_port
from tests.services.redis import RedisServer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return _environment(tmp_path / "home")


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Runs one command to its end, in a home of the test's own."""
    return partial(_run, environment)


@pytest.fixture(scope="module")
def migrated_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `coordinator db upgrade` leaves it."""
    home = tmp_path_factory.mktemp("migrated") / "home"
    assert _run(_environment(home), "db", "upgrade").returncode == 0
    return home


@pytest.fixture
def migrated(run: Run, migrated_home: Path, tmp_path: Path) -> Run:
    """Runs one command in a home of the test's own whose database is migrated."""
    shutil.copytree(migrated_home, tmp_path / "home")
    return run


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "LONGSHORE_HOME": str(home), "LONGSHORE_PASSWORD_COST": "low"}


def _run(environment: Mapping[str, str], *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "coordinator", *words]
    return subprocess.run(argv, env={**environment, **env}, capture_output=True, text=True, timeout=60, check=False)


# ---- settings


def test_a_wrong_setting_is_named_with_code_2_and_without_a_traceback(run: Run) -> None:
    ended = run("check", LONGSHORE_BIND="nowhere", LONGSHORE_WEB_WORKERS="many")

    assert ended.returncode == 2
    assert "LONGSHORE_BIND: " in ended.stderr
    assert "LONGSHORE_WEB_WORKERS: " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [("serve",), ("dispatch",), ("up",), ("check",)], ids=" ".join)
def test_a_broker_that_celery_or_we_cannot_use_is_refused_with_the_reason(run: Run, command: tuple[str, ...]) -> None:
    cluster = run(*command, LONGSHORE_REDIS_URL="redis+cluster://:hidden@one:7000/0")
    rabbit = run(*command, LONGSHORE_NODE_REDIS_URL="amqp://user:hidden@one//")

    assert (cluster.returncode, rabbit.returncode) == (2, 2)
    assert "LONGSHORE_REDIS_URL: Celery does not work on Redis Cluster" in cluster.stderr
    assert "LONGSHORE_NODE_REDIS_URL: RabbitMQ is not supported" in rabbit.stderr
    assert "hidden" not in cluster.stderr + rabbit.stderr


def test_an_option_overrides_its_variable(run: Run, tmp_path: Path) -> None:
    run("db", "upgrade", "--home", str(tmp_path / "other"))

    assert (tmp_path / "other" / "longshore.db").exists()
    assert not (tmp_path / "home").exists()


def test_the_command_names_all_its_commands(run: Run) -> None:
    whole = run("--help").stdout

    assert [command for command in COMMANDS if f" {command} " not in whole] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: that each can be run by itself is what the other tests show."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert (ended.value.code, "Usage: " in capsys.readouterr().out) == (0, True)


def test_what_serves_and_dispatches_starts_without_what_migrates() -> None:
    modules = "coordinator.cli.serving, coordinator.cli.dispatching"
    script = f"import sys, {modules}; sys.exit(sorted({{'alembic', 'mako'}} & set(sys.modules)) or 0)"

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_command_that_does_not_exist_is_wrong_use(run: Run) -> None:
    assert run("frobnicate").returncode == 2


# ---- db


def test_upgrade_brings_the_schema_and_the_first_admin(run: Run, tmp_path: Path) -> None:
    before = run("db", "check", "--json")
    assert (before.returncode, json.loads(before.stdout)["ok"]) == (1, False)

    upgraded = json.loads(run("db", "upgrade", "--json").stdout)

    assert upgraded["before"] is None
    after = run("db", "check", "--json")
    assert (after.returncode, json.loads(after.stdout)["problems"]) == (0, [])
    assert run("db", "upgrade").stdout == f"The database is at revision {upgraded['after']} already.\n"
    assert _can_log_in(tmp_path / "home", "admin", (tmp_path / "home" / "admin_password").read_text().strip())


def test_a_database_that_does_not_answer_is_told_in_words(run: Run) -> None:
    ended = run("db", "upgrade", LONGSHORE_DATABASE_URL=f"postgresql://u:hush-hush@127.0.0.1:{free_port()}/x")

    assert ended.returncode == 1
    assert "the database does not answer" in ended.stderr
    assert "hush-hush" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_revision_needs_a_message(run: Run) -> None:
    assert run("db", "revision").returncode == 2


# ---- admin create


def test_an_admin_is_made_with_a_password_from_a_file(migrated: Run, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("a long enough password\n")

    made = migrated("admin", "create", "--name", "eve", "--email", "eve@here", "--password-file", str(secret), "--json")

    assert json.loads(made.stdout).keys() == {"id", "name", "email"}
    assert _can_log_in(tmp_path / "home", "eve", "a long enough password")


def test_without_a_file_a_password_is_made_up_and_shown(migrated: Run, tmp_path: Path) -> None:
    made = json.loads(migrated("admin", "create", "--name", "eve", "--json").stdout)

    assert _can_log_in(tmp_path / "home", "eve", made["password"])


def test_a_name_that_is_taken_and_a_short_password_are_refused(migrated: Run, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("short")

    assert "already" in migrated("admin", "create", "--name", "admin").stderr
    ended = migrated("admin", "create", "--name", "eve", "--password-file", str(secret))
    assert (ended.returncode, "shorter than" in ended.stderr) == (1, True)


# ---- admin reset-password


def test_whoever_has_the_host_lets_somebody_back_in(migrated: Run, tmp_path: Path) -> None:
    shown = json.loads(migrated("admin", "reset-password", "admin@localhost", "--json").stdout)

    assert shown["name"] == "admin"
    assert _can_log_in(tmp_path / "home", "admin", shown["password"])


def test_a_password_is_reset_to_what_a_file_says_and_for_nobody_to_nothing(migrated: Run, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("a long enough password\n")

    shown = json.loads(
        migrated("admin", "reset-password", "admin", "--password-file", str(secret), "--keep-mfa", "--json").stdout
    )

    assert shown.keys() == {"id", "name", "email"}
    assert _can_log_in(tmp_path / "home", "admin", "a long enough password")
    unknown = migrated("admin", "reset-password", "nobody")
    assert (unknown.returncode, "nobody of this name" in unknown.stderr) == (1, True)


# ---- enrol-token create


def test_an_enrolment_token_is_printed_alone(migrated: Run) -> None:
    ended = migrated("enrol-token", "create", "--note", "rack 7", "--group", "gpu")

    assert ended.stdout.count("\n") == 1
    assert ended.stdout.startswith("lse_")


def test_with_json_the_token_comes_with_what_is_known_of_it(migrated: Run) -> None:
    told = json.loads(migrated("enrol-token", "create", "--group", "gpu", "--expires-in", "60", "--json").stdout)

    assert told["token"].startswith("lse_")
    assert told["group"] == "gpu"
    assert told["expires_at"].endswith("Z")


def test_before_the_migrations_it_says_what_to_do(run: Run) -> None:
    ended = run("enrol-token", "create")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "run `coordinator db upgrade`" in ended.stderr


# ---- check


def _findings(ended: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in json.loads(ended.stdout)["findings"]}


def test_check_names_each_part_that_is_missing(run: Run) -> None:
    ended = run(
        "check", "--json", LONGSHORE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0", LONGSHORE_SECRET_KEY="short"
    )

    found = _findings(ended)
    assert ended.returncode == 1
    missing = {name for name, finding in found.items() if finding["ok"] is False}
    assert missing == {"secret key", "migrations", "redis"}
    assert "coordinator db upgrade" in found["migrations"]["message"]


def test_check_tells_of_a_redis_that_forgets_and_evicts(migrated: Run, redis_server: RedisServer) -> None:
    ended = migrated("check", "--json", LONGSHORE_REDIS_URL=redis_server.url())

    found = _findings(ended)
    assert ended.returncode == 1
    assert {name for name, finding in found.items() if finding["ok"] is False} == {"redis appendonly"}
    assert found["redis maxmemory-policy"]["ok"] is True
    assert found["node logins"]["ok"] is True
    assert found["redis without login"]["ok"] is True
    assert found["clock"]["ok"] is True


def test_check_tells_of_a_redis_that_makes_no_logins_and_of_one_that_asks_for_none(
    migrated: Run, redis_server: RedisServer
) -> None:
    url = f"redis://modest:pw@127.0.0.1:{redis_server.port}/0"
    with redis_server.client() as client:
        client.acl_setuser("modest", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], categories=["+@all"])
        client.acl_setuser("modest", enabled=True, commands=["-acl", "-config"], keys=["*"], categories=["+@all"])
        try:
            client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"])
            shared = _findings(migrated("check", "--json", LONGSHORE_REDIS_URL=url, LONGSHORE_ENV="production"))
            own = _findings(migrated("check", "--json", LONGSHORE_REDIS_URL=url, LONGSHORE_NODE_BROKER_LOGINS="own"))
        finally:
            client.acl_deluser("modest")
            client.acl_setuser("default", enabled=True, passwords=[f"+{redis_server.password}"])

    assert (shared["node logins"]["ok"], own["node logins"]["ok"]) == (None, False)
    assert "all nodes share one" in shared["node logins"]["message"]
    assert "nodes get none" in own["node logins"]["message"]
    assert (shared["redis without login"]["ok"], own["redis without login"]["ok"]) == (False, None)
    assert shared["redis maxmemory-policy"]["message"] == "may not be asked here; it should be noeviction"


def test_check_is_content_with_everything_in_place(migrated: Run) -> None:
    server = RedisServer(persistent=True)
    try:
        ended = migrated("check", LONGSHORE_REDIS_URL=server.url())
    finally:
        server.stop()

    assert ended.returncode == 0, ended.stdout
    assert "MISSING" not in ended.stdout


def test_check_says_what_is_wrong_with_the_address_of_the_storage(migrated: Run) -> None:
    ended = migrated("check", LONGSHORE_STORAGE_URL="ftp://somewhere")

    assert ended.returncode == 1
    assert "MISSING settings: LONGSHORE_STORAGE_URL" in ended.stdout


# ---- routes, openapi


def test_routes_show_the_right_of_each_endpoint(run: Run) -> None:
    lines = json.loads(run("routes", "--json").stdout)

    found = {(line["method"], line["path"]): line["right"] for line in lines}
    assert found["POST", "/api/v1/auth/login"] == "OPEN"
    assert found["PATCH", "/api/v1/admin/workers/<id:worker_id>/approve"] == "workers:approve"


def test_the_document_is_the_same_on_standard_output_and_in_a_file(run: Run, tmp_path: Path) -> None:
    printed = run("openapi").stdout
    run("openapi", "--output", str(tmp_path / "openapi.json"))

    assert json.loads(printed)["openapi"].startswith("3.1")
    assert json.loads((tmp_path / "openapi.json").read_text()) == json.loads(printed)


# ---- serve, dispatch


def test_serve_refuses_a_database_that_was_not_migrated(run: Run) -> None:
    ended = run("serve", "--bind", f"127.0.0.1:{free_port()}")

    assert ended.returncode == 1
    assert "run `coordinator db upgrade`" in ended.stderr


@pytest.fixture
def served(migrated: Run, environment: dict[str, str], redis_server: RedisServer, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    argv = [sys.executable, "-m", "coordinator", "serve", "--bind", f"127.0.0.1:{port}"]
    env = {**environment, "LONGSHORE_REDIS_URL": redis_server.url(), "LONGSHORE_WEB_THREADS": "8"}
    child = processes.start(argv, log=tmp_path / "serve.log", env=env)
    url = f"http://127.0.0.1:{port}"
    child.wait_until(lambda: _answers(url), what="an answer")
    yield url
    assert child.stop(seconds=20) == 0


def test_serve_and_dispatch_are_ready_together_and_stop_when_told(
    served: str, environment: dict[str, str], redis_server: RedisServer, tmp_path: Path
) -> None:
    assert httpx.get(f"{served}/health/ready", trust_env=False).status_code == 503
    env = {**environment, "LONGSHORE_REDIS_URL": redis_server.url()}

    child = processes.start([sys.executable, "-m", "coordinator", "dispatch"], log=tmp_path / "dispatch.log", env=env)
    ready = f"{served}/health/ready"
    child.wait_until(lambda: httpx.get(ready, trust_env=False).status_code == 200, what="readiness")

    child.send(signal.SIGTERM)
    assert child.wait() == 0
    # It resigned: nobody has to wait for its term to end.
    assert httpx.get(ready, trust_env=False).status_code == 503


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _can_log_in(home: Path, name: str, password: str) -> bool:
    resources = make_resources(load_settings(home=home, password_cost="low"))
    try:
        return logins.log_in(resources, name, password).principal.name == name
    finally:
        resources.database.dispose()
