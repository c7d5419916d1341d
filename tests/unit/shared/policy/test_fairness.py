"""The order of work: by priority that ages inside an agent, in turns between agents."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shared.policy.fairness import Entry, Line, Sharing, Turns, rank_of

CRITICAL, HIGH, MEDIUM, LOW = 3, 2, 1, 0
HOUR = 3_600_000
NOW = 100 * HOUR


def entry(name: str, *, priority: int = MEDIUM, created_ms: int = NOW) -> Entry[str]:
    return Entry(rank_of(created_ms=created_ms, priority=priority, aging_seconds=300), name, created_ms, name)


def turns(
    *lines: Line[str], sharing: Sharing | None = None, now_ms: int = NOW, busy: dict[str, int] | None = None
) -> Turns[str]:
    taken = {(agent, True): count for agent, count in (busy or {}).items()}
    return Turns(lines, sharing or Sharing(), now_ms=now_ms, places={True: 8}, busy=taken)


def taken(of: Turns[str]) -> list[str]:
    names = []
    while (line := of.next()) is not None:
        names.append(line.head.item)
        of.took(line)
    return names


class TestRank:
    def test_each_step_of_priority_counts_like_five_minutes_of_waiting(self) -> None:
        ranks = [rank_of(created_ms=0, priority=priority, aging_seconds=300) for priority in (3, 2, 1, 0)]
        assert ranks == [0, 300_000, 600_000, 900_000]

    def test_low_work_stands_before_critical_work_that_comes_a_quarter_of_an_hour_later(self) -> None:
        low = rank_of(created_ms=0, priority=LOW, aging_seconds=300)
        assert rank_of(created_ms=899_999, priority=CRITICAL, aging_seconds=300) < low
        assert rank_of(created_ms=900_001, priority=CRITICAL, aging_seconds=300) > low


class TestInsideAnAgent:
    def test_ranks_decide_over_all_its_lines(self) -> None:
        first = Line("a", [entry("1", priority=CRITICAL), entry("4", priority=LOW)])
        second = Line("a", [entry("2", priority=HIGH), entry("3", priority=MEDIUM)])
        assert taken(turns(first, second)) == ["1", "2", "3", "4"]

    def test_work_that_waited_long_goes_before_urgent_work(self) -> None:
        line = [entry("old", priority=LOW, created_ms=NOW - HOUR), entry("new", priority=CRITICAL)]
        assert taken(turns(Line("a", line))) == ["old", "new"]

    @given(some.lists(some.lists(some.integers(0, 20), max_size=6), max_size=6))
    def test_every_job_comes_once_and_each_agents_jobs_in_their_order(self, ranks: list[list[int]]) -> None:
        lines = [
            Line(
                f"agent-{index % 2}",
                [Entry(rank, f"{index}.{n}", 0, f"{rank:02}") for n, rank in enumerate(sorted(own))],
            )
            for index, own in enumerate(ranks)
        ]
        seen: dict[str, list[str]] = {"agent-0": [], "agent-1": []}
        round_of = turns(*(line for line in lines if not line.is_empty))
        while (line := round_of.next()) is not None:
            seen[line.agent_id].append(line.head.item)
            round_of.took(line)
        assert all(names == sorted(names) for names in seen.values())
        assert sum(map(len, seen.values())) == sum(map(len, ranks))


class TestBetweenAgents:
    def test_a_large_old_backlog_takes_turns_with_a_few_new_jobs(self) -> None:
        old = Line("hoarder", [entry(f"old-{n}", created_ms=NOW - 5 * HOUR + n) for n in range(100)])
        new = Line("guest", [entry(f"new-{n}", created_ms=NOW - 1000) for n in range(10)])
        order = taken(turns(old, new))
        assert sum(name.startswith("new") for name in order[:22]) == 10

    def test_who_has_fewer_places_comes_first(self) -> None:
        lines = [Line(agent, [entry(agent)]) for agent in ("a", "b", "c")]
        assert taken(turns(*lines, busy={"a": 5, "b": 1})) == ["c", "b", "a"]

    def test_urgent_work_of_one_goes_before_ordinary_work_of_another(self) -> None:
        lines = [
            Line("a", [entry("medium", created_ms=NOW - 60_000)]),
            Line("b", [entry("critical", priority=CRITICAL)]),
        ]
        assert taken(turns(*lines)) == ["critical", "medium"]

    def test_an_agent_speaks_for_its_most_urgent_job_even_behind_one_that_waited_long(self) -> None:
        mixed = Line("a", [entry("old", priority=LOW, created_ms=NOW - HOUR), entry("urgent", priority=CRITICAL)])
        plain = Line("b", [entry("plain", created_ms=NOW - 1000)])
        remembered = Sharing(served_ms={"a": NOW - 1000, "b": NOW - 1000})
        assert taken(turns(mixed, plain, sharing=remembered)) == ["old", "urgent", "plain"]

    def test_a_line_that_was_closed_leaves_the_others_their_turns(self) -> None:
        lines = [Line("a", [entry("1"), entry("2")]), Line("a", [entry("3")]), Line("b", [entry("4")])]
        round_of = turns(*lines)
        first = round_of.next()
        assert first is lines[0]
        round_of.close(lines[0])
        assert sorted(taken(round_of)) == ["3", "4"]

    @given(some.lists(some.integers(1, 30), min_size=2, max_size=8))
    def test_equal_agents_get_equal_numbers_while_they_have_work(self, sizes: list[int]) -> None:
        lines = [Line(str(n), [entry(f"{n}.{k}") for k in range(size)]) for n, size in enumerate(sizes)]
        counts: Counter[str] = Counter()
        round_of = turns(*lines)
        while all(counts[str(n)] < size for n, size in enumerate(sizes)):
            line = round_of.next()
            assert line is not None
            counts[line.agent_id] += 1
            round_of.took(line)
        assert max(counts.values()) - min(counts[str(n)] for n in range(len(sizes))) <= 1


class Fleet:
    """A fleet in miniature: `places` jobs run at a time, each for `seconds`; agents hand in work as told."""

    def __init__(self, places: int, seconds: int, arrivals: Callable[[int], Iterable[tuple[str, int]]]) -> None:
        self.places, self.seconds, self.arrivals = places, seconds, arrivals
        self.waiting: dict[str, list[Entry[str]]] = {}
        self.running: deque[tuple[int, str]] = deque()
        self.served: list[tuple[int, str, int]] = []
        self.sharing = Sharing()

    def run(self, until: int) -> Sequence[tuple[int, str, int]]:
        """(when, whose, how long it had waited) of everything that was placed, in seconds."""
        for now in range(until):
            while self.running and self.running[0][0] <= now:
                self.running.popleft()
            for agent, priority in self.arrivals(now):
                line = self.waiting.setdefault(agent, [])
                line.append(entry(f"{now:06}-{len(line):06}", priority=priority, created_ms=NOW + now * 1000))
            self._place(now)
        return self.served

    def _place(self, now: int) -> None:
        lines = {
            agent: Line(agent, sorted(own, key=lambda e: (e.rank, e.id))) for agent, own in self.waiting.items() if own
        }
        busy = {(agent, True): count for agent, count in Counter(agent for _, agent in self.running).items()}
        places = {True: self.places}
        round_of = Turns(lines.values(), self.sharing, now_ms=NOW + now * 1000, places=places, busy=busy)
        while len(self.running) < self.places and (line := round_of.next()) is not None:
            head = line.head
            self.waiting[line.agent_id].remove(head)
            self.served.append((now, line.agent_id, now - (head.created_ms - NOW) // 1000))
            self.running.append((now + self.seconds, line.agent_id))
            round_of.took(line)


class TestOverTime:
    @pytest.mark.parametrize("places", [1, 2, 8])
    def test_ten_jobs_are_through_although_hundreds_were_there_before(self, places: int) -> None:
        def arrivals(now: int) -> list[tuple[str, int]]:
            return [("hoarder", MEDIUM)] * 500 if now == 0 else [("guest", MEDIUM)] * 10 if now == 300 else []

        served = Fleet(places, 5, arrivals).run(300 + 10 * 2 * 5 // places + 20)
        assert sum(agent == "guest" for _, agent, _ in served) == 10

    @pytest.mark.parametrize("places", [1, 4])
    def test_low_work_waits_a_quarter_of_an_hour_at_most_behind_its_own_agents_critical_work(self, places: int) -> None:
        def arrivals(now: int) -> list[tuple[str, int]]:
            return [("one", CRITICAL)] * places + ([("one", LOW)] if now == 100 else [])

        served = Fleet(places, 1, arrivals).run(1100)
        assert max(waited for _, _, waited in served) <= 901

    @pytest.mark.parametrize("places", [1, 4])
    def test_low_work_of_another_agent_is_not_shut_out_either(self, places: int) -> None:
        def arrivals(now: int) -> list[tuple[str, int]]:
            return [("loud", CRITICAL)] * places + ([("quiet", LOW)] if now == 100 else [])

        waits = [waited for _, agent, waited in Fleet(places, 1, arrivals).run(1100) if agent == "quiet"]
        assert len(waits) == 1
        assert waits[0] <= 901

    def test_low_work_keeps_a_share_of_a_fleet_that_critical_work_of_others_would_fill(self) -> None:
        def arrivals(now: int) -> list[tuple[str, int]]:
            return [("loud", CRITICAL)] * 20 + [("quiet", LOW)] * 20 if now % 10 == 0 else []

        served = Fleet(16, 10, arrivals).run(600)
        share = sum(agent == "quiet" for _, agent, _ in served) / len(served)
        assert 0.2 <= share <= 0.4
