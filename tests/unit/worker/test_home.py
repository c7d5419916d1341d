"""What a node keeps on its disk, its settings, and its unit file."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

import pytest

from shared.settings import SettingsError
from worker.config import load_settings
from worker.home import Home, HomeError, Identity
from worker.unit import unit_text

IDENTITY = Identity("n1", "http://c:9000", "name", "lsn_secret")


def test_an_identity_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    with Home(tmp_path / "node") as home:
        assert home.identity() is None
        home.remember(IDENTITY)
        assert home.identity() == IDENTITY
        assert (home.path / "identity.json").stat().st_mode & 0o777 == 0o600
        assert home.path.stat().st_mode & 0o777 == 0o700
    assert "lsn_secret" not in repr(IDENTITY)


def test_a_broken_identity_is_told_rather_than_replaced(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        (tmp_path / "identity.json").write_text("{half")
        with pytest.raises(HomeError, match="cannot be read"):
            home.identity()


def test_a_home_has_one_daemon_and_names_it(tmp_path: Path) -> None:
    with Home(tmp_path):
        assert Home(tmp_path).running_pid() == os.getpid()
        with pytest.raises(HomeError, match=f"process id {os.getpid()}"):
            Home(tmp_path).open()
    assert Home(tmp_path).running_pid() is None


def test_a_process_id_that_a_crash_left_behind_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "daemon.pid").write_text("1\n")
    assert Home(tmp_path).running_pid() is None
    Home(tmp_path).open().close()


def test_a_home_keeps_its_own_name(tmp_path: Path) -> None:
    assert Home(tmp_path).installation == Home(tmp_path).installation


def test_settings_come_from_the_environment_and_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("lse_x\n")
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path))
    monkeypatch.setenv("LONGSHORE_ENROL_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("LONGSHORE_NODE_LABELS", "gpu=yes, rack=7")
    monkeypatch.setenv("LONGSHORE_COORDINATOR_URL", "https://c:9000/")
    monkeypatch.setenv("DOCKER_HOST", "unix:///x.sock")
    settings = load_settings(slots=None, driver="process")
    assert settings.enrol_token.get_secret_value() == "lse_x"
    assert settings.node_labels == {"gpu": "yes", "rack": "7"}
    assert (settings.coordinator_url, settings.slots, settings.driver) == ("https://c:9000", 4, "process")
    assert settings.node_home == tmp_path / "node"
    assert settings.docker_socket == "unix:///x.sock"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLOTS", "many"),
        ("SLOTS", "0"),
        ("COORDINATOR_URL", "c:9000"),
        ("DRIVER", "vm"),
        ("NODE_LABELS", "gpu"),
        ("ENROL_TOKEN_FILE", "/does/not/exist"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"LONGSHORE_{name}", value)
    with pytest.raises(SettingsError, match=f"LONGSHORE_{name}"):
        load_settings()


@pytest.mark.parametrize("with_docker", [True, False])
def test_the_unit_starts_the_node_hardened_and_gives_it_time_to_stop(with_docker: bool) -> None:
    text = unit_text(
        command=["/opt/long shore/worker", "start"],
        home=Path("/var/lib/longshore"),
        user="longshore",
        with_docker=with_docker,
        void_exit_code=3,
    )
    parsed = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(text)
    service = parsed["Service"]
    assert service["ExecStart"] == "'/opt/long shore/worker' start"
    assert service["RestartPreventExitStatus"] == "3"
    assert service["NoNewPrivileges"] == "yes"
    assert int(service["TimeoutStopSec"]) > 60
    assert ("SupplementaryGroups" in service) is with_docker
