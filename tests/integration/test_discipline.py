"""The rules that every test lives under are enforced: shown by small test runs that break them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _with_the_rules(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)
    pytester.makeconftest("pytest_plugins = ('tests.fixtures.discipline',)")


def _run(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


@pytest.mark.parametrize(
    "test",
    [
        "import pytest\ndef test_it(): pytest.skip('no reason')",
        "import pytest\npytest.skip('no reason', allow_module_level=True)",
    ],
    ids=["a test", "a module"],
)
def test_a_skip_is_a_failure_in_ci_and_fine_elsewhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, test: str
) -> None:
    assert _run(pytester, test).ret in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)

    monkeypatch.setenv("CI", "true")
    result = _run(pytester, test)

    assert result.ret in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    result.stdout.fnmatch_lines("*CI=true allows no skips*no reason*")


@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "socket.getaddrinfo('longshore.invalid', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.create_connection(('2001:db8::1', 80), timeout=1)",
    ],
)
def test_the_world_beyond_loopback_is_refused(pytester: pytest.Pytester, call: str) -> None:
    result = _run(pytester, f"import socket\ndef test_it(): {call}")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*PermissionError: tests talk to loopback only*")


def test_loopback_is_open(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        "import socket\n"
        "def test_it():\n"
        "    with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "        socket.create_connection(('localhost', server.getsockname()[1])).close()\n",
    )

    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("arguments", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "side by side"])
def test_a_process_that_a_test_leaves_running_fails_the_run(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    result = _run(
        pytester,
        "from tests.services import processes\n"
        "def test_it(tmp_path): processes.start(['sleep', '800'], log=tmp_path / 'log')\n",
        *arguments,
    )

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines("*left running*")
    result.stdout.fnmatch_lines("*sleep 800")


def test_settings_of_the_machine_do_not_reach_the_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_SECRET_KEY", "of the machine")

    result = _run(pytester, "import os\ndef test_it(): assert 'LONGSHORE_SECRET_KEY' not in os.environ")

    result.assert_outcomes(passed=1)
