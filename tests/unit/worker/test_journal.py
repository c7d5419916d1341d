"""What the journal keeps through crashes."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from worker.journal import Claimed, Ended, Entry, Forgotten, Granted, Journal

REPORT = b'{"attempt_id":"a1","outcome":"succeeded","result":"x"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def left_over(path: Path) -> list[Entry]:
    with closing(Journal(path)) as journal:
        return journal.left_over()


def test_the_last_word_about_each_attempt_is_left_over(path: Path) -> None:
    journal = Journal(path)
    journal.write([Claimed("a1", "n1"), Claimed("a2", "n2"), Claimed("a3", "n3")], durable=True)
    journal.write([Granted("a1", "t1", "j1"), Granted("a2", "t2", "j2"), Forgotten("a3")], durable=False)
    journal.write([Ended("a1", "t1", REPORT)], durable=True)
    journal.close()
    assert left_over(path) == [Ended("a1", "t1", REPORT), Granted("a2", "t2", "j2")]


def test_what_was_accepted_is_forgotten(path: Path) -> None:
    journal = Journal(path)
    journal.write([Ended("a1", "t1", REPORT)], durable=True)
    journal.write([Forgotten("a1")], durable=False)
    journal.close()
    assert left_over(path) == []


def test_half_a_last_line_is_as_if_it_was_never_written(path: Path) -> None:
    journal = Journal(path)
    journal.write([Granted("a1", "t1", "j1")], durable=True)
    journal.close()
    with path.open("ab") as handle:
        handle.write(b'{"is":"ended","attempt":"a1","tok')
    again = Journal(path)
    assert again.left_over() == [Granted("a1", "t1", "j1")]
    again.write([Forgotten("a1")], durable=True)
    again.close()
    assert left_over(path) == []


def test_a_long_journal_is_written_anew_with_what_still_counts(path: Path) -> None:
    journal = Journal(path, compact_bytes=2000)
    journal.write([Ended("kept", "t", REPORT)], durable=True)
    for number in range(200):
        journal.write([Claimed(f"a{number}", "n")], durable=False)
        journal.write([Forgotten(f"a{number}")], durable=False)
    assert path.stat().st_size < 3000
    assert journal.left_over() == [Ended("kept", "t", REPORT)]
    journal.close()
    assert left_over(path) == [Ended("kept", "t", REPORT)]


def test_large_results_that_still_count_do_not_make_it_write_itself_anew_each_time(path: Path) -> None:
    journal = Journal(path, compact_bytes=1000)
    report = json.dumps({"result": "x" * 5000}).encode()
    journal.write([Ended("big", "t", report)], durable=False)
    inode = path.stat().st_ino
    journal.write([Claimed("a", "n")], durable=False)
    assert path.stat().st_ino == inode
    journal.close()


def test_only_its_owner_reads_it(path: Path) -> None:
    journal = Journal(path)
    journal.write([Granted("a1", "secret", "j1")], durable=True)
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600
