"""What an earlier daemon left behind: results are sent, what still runs is taken over, the rest is told lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from shared.contracts.node import JobSpec
from worker.answer import Answer
from worker.attempts import Attempt, Attempts
from worker.jobs.computers import Computers
from worker.jobs.ending import lost
from worker.jobs.runner import Runner
from worker.jobs.script import Script
from worker.journal import Claimed, Ended, Entry, Granted
from worker.lifelines import Lifelines, Story
from worker.uplink import Uplink, Verdict

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Remnant:
    """One attempt of an earlier daemon; with its story when it can be gone on with or told again."""

    entry: Granted | Ended
    attempt: Attempt
    story: Story | None

    @property
    def runs_on(self) -> bool:
        return self.story is not None and isinstance(self.entry, Granted)


class Recovery:
    """`hold` before the first heartbeat, `run` once everything is up."""

    def __init__(
        self,
        left_over: Sequence[Entry],
        *,
        lifelines: Lifelines,
        scripts: Mapping[str, Script],
        attempts: Attempts,
        computers: Computers,
        uplink: Uplink,
    ) -> None:
        self._lifelines = lifelines
        self._scripts = scripts
        self._attempts = attempts
        self._computers = computers
        self._uplink = uplink
        self._unclear = [entry.attempt for entry in left_over if isinstance(entry, Claimed)]
        self._remnants = [self._remnant(entry) for entry in left_over if isinstance(entry, Granted | Ended)]

    @property
    def goes_on(self) -> bool:
        """Whether there is anything that runs."""
        return any(item.runs_on for item in self._remnants)

    def hold(self) -> None:
        """Name them in the heartbeats from the first one on, so that the coordinator waits for our word."""
        for item in self._remnants:
            self._attempts.add(item.attempt)
            if item.runs_on:
                self._computers.reserve(item.attempt)
        running = {item.attempt.id for item in self._remnants if item.runs_on}
        self._lifelines.clear(running=running, told={item.attempt.id for item in self._remnants if item.story})

    def run(self, runner: Runner) -> None:
        """Remove the computers that nobody needs, go on with what runs, report the rest.

        Returns once every report was answered; what runs on goes its own way.
        """
        self._computers.reap(())
        for attempt_id in self._unclear:
            # Nobody knows whether it was granted. Nothing was started; its lease ends by itself.
            self._uplink.forget(attempt_id)
        waiting = []
        for item in self._remnants:
            if item.story is not None and isinstance(item.entry, Granted):
                self._resume(runner, item.attempt, item.story)
                continue
            if item.story is not None:
                self._scripts[item.attempt.spec.runtime].tell_again(item.attempt, item.story)
                runner.send_last_lines(item.attempt)
            waiting.append((item.attempt, self._report(item)))
        for attempt, answer in waiting:
            log.info("left_over_reported", attempt=attempt.id, verdict=str(answer.result()))
            self._lifelines.cut(attempt.id)
            self._attempts.remove(attempt.id)

    def _can_use(self, story: Story, *, is_over: bool) -> bool:
        """Without its stream, which may have gone with the keeper, nobody knows what a command printed since."""
        return story.spec["runtime"] in self._scripts and (is_over or self._lifelines.is_held(story.attempt))

    def _resume(self, runner: Runner, attempt: Attempt, story: Story) -> None:
        log.info("attempt_resumed", attempt=attempt.id, job=attempt.job_id)
        runner.resume(attempt, partial(self._scripts[attempt.spec.runtime].resume, story=story))

    def _report(self, item: Remnant) -> Answer[Verdict]:
        if isinstance(item.entry, Ended):
            return self._uplink.resend(item.entry)
        ending = lost("node_restarted", "the node's daemon was started anew while the job ran")
        return self._uplink.hand_in(ending.report(item.attempt))

    def _remnant(self, entry: Granted | Ended) -> Remnant:
        story = self._lifelines.story(entry.attempt)
        if story is not None and not self._can_use(story, is_over=isinstance(entry, Ended)):
            story = None
        attempt = story.told(entry.token) if story is not None else _nameless(entry)
        attempt.phase = "running" if story is not None and isinstance(entry, Granted) else "reporting"
        return Remnant(entry, attempt, story)


def _nameless(entry: Granted | Ended) -> Attempt:
    job = entry.job if isinstance(entry, Granted) else ""
    spec = JobSpec(kind="", agent="", runtime="")
    return Attempt(attempt_id=entry.attempt, job_id=job, number=0, token=entry.token, spec=spec)
