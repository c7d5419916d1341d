"""The recipes of deploy/ name only what exists: commands, options, variables, files; and leave no variable out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import flower.options
import pytest
import yaml
from pydantic_settings import BaseSettings

import coordinator.config
import worker.config
from coordinator.app import domain_slices
from coordinator.http.slice import Endpoint
from coordinator.http.sockets import WS
from scripts.reference_pages import described_variables
from tests.commands import refusal_of
from worker.daemon import CREDENTIAL_VOID

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
UNIT_NAMES = [unit.name for unit in UNITS]
COORDINATOR = coordinator.config.Settings
WORKER = worker.config.Settings
PREFIX = "LONGSHORE_"
OTHERS_VARIABLES = {"CELERY_BROKER_URL", "TMPDIR"}
INSTALLED = "/opt/longshore/bin/"


# ---- what exists


def _variables_of(settings: type[BaseSettings]) -> set[str]:
    return {f"{PREFIX}{name.upper()}" for name in settings.model_fields}


def _is_known(variable: str) -> bool:
    if variable.startswith("FLOWER_"):
        return variable.removeprefix("FLOWER_").lower() in flower.options.default_options
    known = _variables_of(COORDINATOR) | _variables_of(WORKER) | OTHERS_VARIABLES
    return variable in known or (variable.startswith(PREFIX) and variable.removesuffix("_FILE") in known)


@pytest.mark.parametrize(
    "words", ["coordinator serv", "coordinator serve --port 1", "worker start --slots many", "celery beat"]
)
def test_a_command_that_does_not_exist_is_refused(words: str) -> None:
    assert refusal_of(words.split()) is not None


def test_a_variable_that_does_not_exist_is_unknown() -> None:
    assert not any(map(_is_known, ("LONGSHORE_DATABASE", "FLOWER_READONLY", "REDIS_URL")))


# ---- env.example


@cache
def _example() -> Mapping[str, str]:
    found = [(item.name, item.shown) for item in described_variables((DEPLOY / "env.example").read_text())]
    names = [name for name, _ in found]
    assert sorted(names) == sorted(set(names)), "a variable stands there twice"
    return dict(found)


def test_the_example_names_every_variable_and_no_other() -> None:
    ours = {name for name in _example() if name.startswith(PREFIX)}
    assert ours == _variables_of(COORDINATOR) | _variables_of(WORKER)
    assert [name for name in _example() if not _is_known(name)] == []


def test_the_example_says_what_each_of_our_variables_is_for() -> None:
    items = described_variables((DEPLOY / "env.example").read_text())
    assert [item.name for item in items if item.name.startswith(PREFIX) and not item.text.endswith(".")] == []


@pytest.mark.parametrize("settings", [COORDINATOR, WORKER], ids=["coordinator", "worker"])
def test_the_example_shows_the_defaults(settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = settings()
    for name, shown in _example().items():
        # An empty value stands for "not given", which is what the variable's absence says.
        if shown and name in _variables_of(settings):
            monkeypatch.setenv(name, str(Path(shown).expanduser()))
    assert settings() == plain


# ---- compose


@cache
def _compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def _ours() -> Mapping[str, dict[str, Any]]:
    return {name: one for name, one in _compose()["services"].items() if one["image"].startswith("longshore:")}


def test_compose_has_every_part_of_an_installation() -> None:
    assert _compose()["services"].keys() >= {"postgres", "redis", "coordinator", "dispatcher", "flower", "node"}


def test_compose_runs_commands_that_exist() -> None:
    assert [refusal for one in _ours().values() if (refusal := refusal_of(one["command"]))] == []


def test_compose_sets_variables_that_exist() -> None:
    assert [(name, key) for name, one in _ours().items() for key in one["environment"] if not _is_known(key)] == []


def test_compose_gives_each_side_its_own_variables_alone() -> None:
    services = _ours()
    assert set(services["coordinator"]["environment"]) <= _variables_of(COORDINATOR) | {"TMPDIR"}
    assert set(services["dispatcher"]["environment"]) <= _variables_of(COORDINATOR)
    assert set(services["node"]["environment"]) <= _variables_of(WORKER)


def test_compose_asks_for_nothing_that_its_example_does_not_name() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    example = dict(_assignments((DEPLOY / "compose.env.example").read_text(), commented=True))
    asked = dict(re.findall(r"(?<!\$)\$\{([A-Z_]+):([-?])", text))
    assert asked.keys() == example.keys()
    # What has no default stands there uncommented and empty, so that nobody installs a known password.
    required = {name for name, sign in asked.items() if sign == "?"}
    given = dict(_assignments((DEPLOY / "compose.env.example").read_text(), commented=False))
    assert given == dict.fromkeys(required, "")


def test_compose_and_its_example_agree_on_defaults() -> None:
    defaults = re.findall(r"(?<!\$)\$\{([A-Z_]+):-([^}]*)\}", (DEPLOY / "compose.yaml").read_text())
    shown = dict(_assignments((DEPLOY / "compose.env.example").read_text(), commented=True))
    assert [(name, default) for name, default in defaults if shown[name] != default] == []


def test_only_the_node_gets_the_docker_socket_and_only_when_asked_for() -> None:
    with_socket = [name for name, one in _compose()["services"].items() if "docker.sock" in str(one.get("volumes"))]
    assert with_socket == ["node"]
    assert _compose()["services"]["node"]["profiles"] == ["node"]


def test_no_container_of_ours_may_gain_rights_or_write_its_own_image() -> None:
    for one in _ours().values():
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert one["read_only"] is True
        assert "privileged" not in one


def test_ports_are_published_on_this_machine_alone() -> None:
    ports = [port for one in _compose()["services"].values() for port in one.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_composes_redis_keeps_what_it_is_given() -> None:
    command = " ".join(_compose()["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "requirepass" in command
    # In the arguments everybody on the host could read it.
    assert "--requirepass" not in command


def test_composes_flower_is_read_only_behind_a_password() -> None:
    environment = _ours()["flower"]["environment"]
    assert environment["FLOWER_READ_ONLY"] == "true"
    assert ":?" in environment["FLOWER_BASIC_AUTH"]


def test_compose_waits_for_the_schema_before_it_serves() -> None:
    assert _ours()["migrate"]["command"] == ["coordinator", "db", "upgrade"]
    for name in ("coordinator", "dispatcher"):
        assert _ours()[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_composes_database_has_a_connection_for_every_web_thread() -> None:
    services = _compose()["services"]
    most = int(re.findall(r"max_connections=(\d+)", " ".join(services["postgres"]["command"]))[0])
    environment = services["coordinator"]["environment"]
    workers, threads = (int(environment[f"LONGSHORE_WEB_{name}"].strip("${}").split(":-")[1]) for name in _WEB)
    assert most > workers * threads * 2 + 20


_WEB = ("WORKERS", "THREADS")


# ---- Dockerfile


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, continuation lines joined."""

    name: str
    rest: str


@cache
def _dockerfile() -> Sequence[Instruction]:
    text = (DEPLOY / "Dockerfile").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [Instruction(*line.split(None, 1)) for line in lines if line.strip()]


def _last_stage() -> Sequence[Instruction]:
    starts = [index for index, one in enumerate(_dockerfile()) if one.name == "FROM"]
    return _dockerfile()[starts[-1] :]


def test_the_image_starts_a_command_that_exists() -> None:
    (command,) = [yaml.safe_load(one.rest) for one in _last_stage() if one.name == "CMD"]
    assert refusal_of(command) is None


def test_the_image_sets_variables_that_exist() -> None:
    given = [word.partition("=")[0] for one in _dockerfile() if one.name == "ENV" for word in shlex.split(one.rest)]
    assert [name for name in given if name.startswith(PREFIX) and not _is_known(name)] == []


def test_the_image_runs_as_nobody_in_particular_and_checks_its_health() -> None:
    (user,) = [one.rest for one in _last_stage() if one.name == "USER"]
    assert not user.startswith(("0", "root"))
    (check,) = [one.rest for one in _last_stage() if one.name == "HEALTHCHECK"]
    assert "/health" in check


def test_the_image_leaves_its_build_tools_behind() -> None:
    assert not any("pip install" in one.rest for one in _last_stage())


def test_the_image_is_made_with_the_pinned_dependencies() -> None:
    assert any("--constraint deploy/constraints.txt" in one.rest for one in _dockerfile())


def test_the_image_copies_files_that_exist_and_that_reach_the_daemon() -> None:
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for one in _dockerfile():
        if one.name != "COPY" or "--from" in one.rest:
            continue
        for source in one.rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in allowed), source


# ---- systemd


def _service(unit: Path) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "Service" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            values.setdefault(name, []).append(value)
    return values


def _commands(unit: Path) -> Iterator[list[str]]:
    service = _service(unit)
    for line in service["ExecStart"] + service.get("ExecStartPre", []):
        assert line.startswith(INSTALLED), line
        yield shlex.split(line.removeprefix(INSTALLED))


def test_there_is_a_unit_for_each_part() -> None:
    assert UNIT_NAMES == [
        "longshore-coordinator.service",
        "longshore-dispatcher.service",
        "longshore-flower.service",
        "longshore-worker@.service",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=UNIT_NAMES)
def test_units_run_commands_that_exist(unit: Path) -> None:
    assert [refusal for command in _commands(unit) if (refusal := refusal_of(command))] == []


@pytest.mark.parametrize("unit", UNITS, ids=UNIT_NAMES)
def test_units_set_variables_that_exist(unit: Path) -> None:
    given = [word.partition("=")[0] for line in _service(unit).get("Environment", []) for word in shlex.split(line)]
    assert [name for name in given if not _is_known(name)] == []


@pytest.mark.parametrize("unit", UNITS, ids=UNIT_NAMES)
def test_units_stop_in_order_and_in_time(unit: Path) -> None:
    service = _service(unit)
    # A node's keeper has to outlive a daemon that crashes.
    assert service["KillMode"] == ["process" if unit.name == "longshore-worker@.service" else "mixed"]
    assert service["TimeoutStopSec"][0].isdigit()
    assert service["Restart"] == ["always"]


@pytest.mark.parametrize("unit", UNITS, ids=UNIT_NAMES)
def test_units_are_hardened_and_not_root(unit: Path) -> None:
    service = _service(unit)
    assert service.get("User", ["root"]) != ["root"] or service.get("DynamicUser") == ["yes"]
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictSUIDSGID"):
        assert service[name] == ["yes"], name
    assert service["ProtectSystem"] == ["strict"]
    assert service["CapabilityBoundingSet"] == [""]


def test_a_node_whose_credential_is_void_is_not_started_again() -> None:
    assert _service(DEPLOY / "systemd/longshore-worker@.service")["RestartPreventExitStatus"] == [str(CREDENTIAL_VOID)]


# ---- nginx


Block = list[tuple[list[str], "Block | None"]]


def _parsed(tokens: list[str]) -> Block:
    """Directives of a block, each with its words and the block behind it; consumes `tokens`."""
    found: Block = []
    words: list[str] = []
    while tokens:
        token = tokens.pop(0)
        if token in (";", "{"):
            assert words, "a directive without a name"
            found.append((words, _parsed(tokens) if token == "{" else None))
            words = []
        elif token == "}":
            break
        else:
            words.append(token)
    assert not words, f"{words} is not ended"
    return found


@cache
def _nginx() -> Block:
    text = re.sub(r"^\s*#.*$", "", (DEPLOY / "nginx.conf").read_text(), flags=re.MULTILINE)
    tokens = re.findall(r"'[^']*'|\"[^\"]*\"|[{};](?=\s|$)|(?:[^\s;{}'\"]|\$\{\w+\}|;(?=\S)|[{}](?=\S))+", text)
    assert tokens.count("{") == tokens.count("}")
    return _parsed(tokens)


def _within(block: Block, name: str) -> Iterator[tuple[list[str], Block]]:
    for words, below in block:
        if words[0] == name and below is not None:
            yield words[1:], below


def _site() -> Block:
    (site,) = [below for _, below in _within(_nginx(), "server") if _values(below, "ssl_certificate")]
    return site


def _values(block: Block, name: str) -> list[list[str]]:
    return [words[1:] for words, _ in block if words[0] == name]


def _location(path: str) -> Block:
    """The location that nginx would choose: the first expression that matches, else the prefix /."""
    for words, below in _within(_site(), "location"):
        if words[0] == "~" and re.search(words[1], path):
            return below
    return next(below for words, below in _within(_site(), "location") if words == ["/"])


def _bytes(size: str) -> int:
    return int(size[:-1]) * 1024 * 1024


def test_nginx_speaks_tls_alone() -> None:
    assert _values(_site(), "listen") == [["443", "ssl"], ["[::]:443", "ssl"]]
    (plain,) = [below for _, below in _within(_nginx(), "server") if below is not _site()]
    assert _values(plain, "return") == [["301", "https://$host$request_uri"]]
    assert not list(_within(plain, "location"))


def test_nginx_writes_no_query_into_its_log() -> None:
    (written,) = _values(_nginx(), "log_format")
    told = " ".join(written)
    assert not re.search(r"\$(request_uri|args|query_string|request\b(?!_)|http_referer|arg_|http_authorization)", told)
    assert _values(_site(), "access_log")[0][1] == written[0]
    assert _values(_site(), "error_log")[0][-1] == "crit"


def _paths(wanted: Callable[[Endpoint], bool]) -> list[str]:
    """Where the coordinator serves such endpoints, under both spellings of the prefix."""
    found = [endpoint.path for one in domain_slices() for endpoint in one.endpoints if wanted(endpoint)]
    assert found
    paths = [re.sub(r"<[^>]+>", "0190", path) for path in found]
    return sorted(f"{prefix}{path}{slash}" for path in paths for prefix in ("/api/v1", "/v1") for slash in ("", "/"))


@pytest.mark.parametrize("path", _paths(lambda endpoint: endpoint.method == WS))
def test_nginx_hands_websockets_through(path: str) -> None:
    headers = dict(_values(_location(path), "proxy_set_header"))
    assert headers["Upgrade"] == "$http_upgrade"
    # Headers of a location replace those of the server altogether.
    assert headers.keys() >= {words[0] for words in _values(_site(), "proxy_set_header")}
    assert _values(_location(path), "proxy_read_timeout") == [["1h"]]


@pytest.mark.parametrize("path", _paths(lambda endpoint: endpoint.accepts == "multipart"))
def test_nginx_lets_the_largest_file_through(path: str) -> None:
    ((size,),) = _values(_location(path), "client_max_body_size")
    assert _bytes(size) >= COORDINATOR().max_file_bytes + 64 * 1024


def test_nginx_stops_other_bodies_a_little_above_the_coordinators_limit() -> None:
    ((size,),) = _values(_site(), "client_max_body_size")
    most = COORDINATOR().max_body_bytes
    assert most < _bytes(size) <= most * 2
    assert not _values(_location("/api/v1/agents"), "client_max_body_size")


def test_nginx_keeps_slow_clients_away_from_the_coordinator() -> None:
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout"):
        ((value,),) = _values(_site(), name)
        assert int(value.removesuffix("s")) <= 30
    assert _values(_site(), "proxy_request_buffering") == [["on"]]


def test_nginx_bounds_what_one_address_can_hold_and_how_large_headers_are() -> None:
    assert _values(_site(), "limit_conn")
    assert _values(_site(), "large_client_header_buffers") == [["4", "8k"]]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/auth/login",
        "/api/v0/auth/login",
        "/v1/auth/login/",
        "/api/v0/auth/internal",
        "/api/v0/auth/external",
        "/api/v0/operators/ada/login",
        "/api/v1/auth/mfa/verify",
        "/api/v1/auth/register",
        "/login",
    ],
)
def test_nginx_slows_down_whoever_guesses_passwords(path: str) -> None:
    assert _values(_location(path), "limit_req")


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/metrics", "/v1/metrics"])
def test_nginx_shows_metrics_to_the_monitoring_alone(path: str) -> None:
    assert _values(_location(path), "deny") == [["all"]]


def test_nginx_overwrites_what_a_client_says_about_itself() -> None:
    headers = dict(_values(_site(), "proxy_set_header"))
    assert headers["X-Forwarded-For"] == "$remote_addr"


# ---- small things


def _assignments(text: str, *, commented: bool) -> list[tuple[str, str]]:
    return re.findall(rf"^{'#?' if commented else ''}([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE)
