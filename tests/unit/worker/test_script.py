"""How a script is put into its computer and started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from worker.jobs.script import COMMAND, starting


@pytest.mark.parametrize(("given", "code", "printed"), [("echo whole", 0, "whole\n"), ("echo wh", 126, "")])
def test_a_script_runs_only_when_all_of_it_arrived(tmp_path: Path, given: str, code: int, printed: str) -> None:
    argv = starting(COMMAND, len("echo whole"))

    environment = {"WORK": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(argv, input=given, env=environment, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (code, printed)
