"""Reading the end of a table whose ids become visible out of order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.domains.live.tail import MOST_GAPS, PATIENCE_SECONDS, Tail


def test_an_empty_table_is_read_from_its_beginning() -> None:
    tail = Tail([], 0)
    assert (tail.cursor, tail.gaps) == (0, [])


def test_reading_begins_behind_what_is_there_and_remembers_what_is_missing_among_it() -> None:
    tail = Tail([5, 6, 9], 0)
    assert (tail.cursor, tail.gaps) == (9, [(7, 8)])


def test_ids_that_are_passed_over_become_a_gap_and_leave_it_one_by_one() -> None:
    tail = Tail([1], 0)
    tail.advance([2, 6], 1)
    assert (tail.cursor, tail.gaps) == (6, [(3, 5)])
    tail.fill([4])
    assert tail.gaps == [(3, 3), (5, 5)]
    tail.fill([3, 5])
    assert tail.gaps == []


def test_what_stays_missing_for_long_was_rolled_back() -> None:
    tail = Tail([1], 0)
    tail.advance([3], 0)
    tail.advance([], PATIENCE_SECONDS - 1)
    assert tail.gaps == [(2, 2)]
    tail.advance([], PATIENCE_SECONDS)
    assert tail.gaps == []


def test_only_so_many_gaps_are_remembered() -> None:
    tail = Tail([1], 0)
    tail.advance(range(3, 5 * MOST_GAPS, 2), 0)
    assert len(tail.gaps) == MOST_GAPS


@given(st.permutations(range(1, 30)), st.lists(st.integers(1, 5), min_size=30, max_size=30))
def test_whatever_the_order_of_commits_each_id_is_read_exactly_once(order: list[int], sizes: list[int]) -> None:
    committed: set[int] = set()
    tail, seen = Tail([], 0), []
    waiting = list(order)
    for size in sizes:
        committed |= set(waiting[:size])
        waiting = waiting[size:]
        late = sorted(n for n in committed if any(low <= n <= high for low, high in tail.gaps))
        fresh = sorted(n for n in committed if n > tail.cursor)
        tail.fill(late)
        tail.advance(fresh, 0)
        seen += late + fresh
    assert sorted(seen) == sorted(order)
