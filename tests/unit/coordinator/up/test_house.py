"""The lock on a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.up.house import House
from shared.errors import Conflict


def test_a_home_is_taken_once_and_free_again_afterwards(tmp_path: Path) -> None:
    first, second = House(tmp_path), House(tmp_path)
    assert first.try_lock()
    assert not second.try_lock()
    assert second.owner() == os.getpid()

    first.release()

    assert second.try_lock()
    second.release()


def test_the_refusal_names_the_process(tmp_path: Path) -> None:
    first = House(tmp_path)
    first.try_lock()

    refusal = House(tmp_path).refuse()

    assert isinstance(refusal, Conflict)
    assert f"process {os.getpid()}" in refusal.message
    first.release()


def test_a_child_holds_the_home_for_as_long_as_it_lives(tmp_path: Path) -> None:
    first = House(tmp_path)
    first.try_lock()
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(first.descriptor,), text=True
    )
    first.release()

    assert not House(tmp_path).try_lock()
    child.communicate("end\n")
    again = House(tmp_path)
    assert again.try_lock()
    again.release()


def test_without_the_lock_there_is_nothing_to_inherit(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        _ = House(tmp_path).descriptor
