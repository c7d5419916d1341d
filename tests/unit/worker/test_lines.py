"""From bytes to lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.lines import MAX_LINE, Budget, LineSplitter


def lines_of(*chunks: bytes, stream: str = "stdout") -> list[str]:
    found: list[str] = []
    splitter = LineSplitter(lambda _stream, line: found.append(line))
    for chunk in chunks:
        splitter.feed(stream, chunk)
    splitter.finish()
    return found


def test_lines_are_cut_at_their_ends_and_the_last_needs_none() -> None:
    assert lines_of(b"one\ntwo\r\n\nthree") == ["one", "two", "", "three"]


def test_a_character_that_comes_in_two_pieces_is_one() -> None:
    euro = "€".encode()
    assert lines_of(b"a" + euro[:1], euro[1:] + b"b\n") == ["a€b"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert lines_of(b"a\xff\xfeb\n") == ["a\ufffd\ufffdb"]


def test_terminal_escapes_and_control_characters_are_taken_out_and_tabs_stay() -> None:
    assert lines_of(b"\x1b[31mred\x1b[0m\ta\x07b\x00c\x1b]0;title\x07d\n") == ["red\tabcd"]


def test_each_state_of_a_progress_display_is_a_line() -> None:
    assert lines_of(b"10%\r20%", b"\r30%\r\n") == ["10%", "20%", "30%"]


def test_a_line_without_an_end_is_cut_before_it_fills_the_memory() -> None:
    assert [len(line) for line in lines_of(b"x" * (2 * MAX_LINE + 5))] == [MAX_LINE, MAX_LINE, 5]


def test_the_two_streams_do_not_mix() -> None:
    found: list[tuple[str, str]] = []
    splitter = LineSplitter(lambda stream, line: found.append((stream, line)))
    splitter.feed("stdout", b"out")
    splitter.feed("stderr", b"err\n")
    splitter.feed("stdout", b"put\n")
    splitter.finish()
    assert found == [("stderr", "err"), ("stdout", "output")]


@given(st.lists(st.text(alphabet="abc äß€\t", max_size=20), max_size=20), st.integers(1, 7))
def test_how_the_bytes_come_in_changes_nothing(texts: list[str], size: int) -> None:
    whole = "".join(f"{text}\n" for text in texts).encode()
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert lines_of(*chunks) == texts


def test_a_budget_is_spent_by_the_first_line_that_does_not_fit() -> None:
    budget = Budget(10)
    assert [budget.take("1234"), budget.take("12345"), budget.take("")] == [True, False, False]
    assert budget.is_spent
