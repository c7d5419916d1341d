"""A real `worker start` with a real Redis and a real Celery, against a coordinator that keeps the protocol strictly."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis as redis_library
from celery.events.state import State

from shared.queue.app import make_app
from shared.queue.names import consumer_name, node_queue
from shared.queue.tickets import ping_message, run_message
from tests.fakes.coordinator import FakeCoordinator, Refusal
from tests.services import processes
from tests.services.node import RUNNING_MARK, Node
from tests.services.redis import RedisServer


def sleepers() -> list[psutil.Process]:
    """What `RUNNING_MARK` started and still runs."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] == RUNNING_MARK.split():
            found.append(process)
    return found


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis_library.Redis]:
    redis_server.flushall()
    with redis_server.client() as client:
        yield client


@pytest.fixture
def coordinator(redis_server: RedisServer) -> Iterator[FakeCoordinator]:
    with FakeCoordinator(broker=redis_server.url(), heartbeat_seconds=0.5) as fake:
        yield fake


@pytest.fixture
def node(tmp_path: Path, coordinator: FakeCoordinator, redis_client: redis_library.Redis) -> Iterator[Node]:
    made = Node(tmp_path / "home", coordinator, redis_client)
    yield made
    made.kill_all()


class TestEnrolling:
    def test_a_node_says_who_it_is_and_keeps_its_credential_to_itself(self, node: Node) -> None:
        node.start_and_listen("--group", "rack", "--label", "gpu=yes", "--slots", "2")
        enrolled = node.coordinator.enrolled
        assert (enrolled["name"], enrolled["group"], enrolled["labels"]) == ("tester", "rack", {"gpu": "yes"})
        assert (enrolled["slots"], enrolled["computers"]["driver"]) == (2, "process")
        identity = node.home / "node" / "identity.json"
        assert identity.stat().st_mode & 0o777 == 0o600
        assert node.coordinator.credential not in node.child.output()

    def test_a_second_start_is_the_same_node(self, node: Node) -> None:
        node.start_and_listen()
        assert node.child.stop() == 0
        first = node.coordinator.epoch
        node.start_and_listen()
        assert node.coordinator.epoch != first

    def test_an_unapproved_node_says_so_once_and_gets_no_broker(self, node: Node) -> None:
        node.coordinator.is_approved = False
        node.start()
        node.coordinator.wait(lambda: len(node.coordinator.beats) >= 3, what="third beat")
        assert node.child.output().count("waiting for an admin") == 1
        assert "broker_given" not in node.child.output()
        node.coordinator.change(is_approved=True)
        node.wait_listening()
        assert node.run("echo", input=[1]).report["result"] == [1]

    def test_two_daemons_never_share_a_home(self, node: Node) -> None:
        first = node.start_and_listen()
        second = node.start()
        assert second.wait() == 1
        assert f"process id {first.pid}" in second.output()
        assert first.stop() == 0

    def test_a_node_waits_for_a_coordinator_that_is_not_there_yet(self, node: Node) -> None:
        with node.coordinator.failing("/register", lambda: Refusal(503, "UNAVAILABLE")):
            node.start()
            node.child.wait_for_text("cannot be reached yet")
        node.wait_listening()

    def test_a_refused_token_is_told_in_words(self, node: Node) -> None:
        node.coordinator.node_id = "taken"
        assert node.start().wait() == 1
        assert "the enrolment token is unknown or was used" in node.child.output()


class TestJobs:
    def test_echo_answers_its_input(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run("echo", input={"deep": [1, "ä"]})
        assert attempt.state == "succeeded"
        assert attempt.report["result"] == {"deep": [1, "ä"]}

    def test_a_command_gets_its_files_and_leaves_a_result_a_log_and_artifacts(self, node: Node) -> None:
        node.start_and_listen()
        script = """
            wc -c < "$WORK/input/in put.txt"
            echo trouble >&2
            mkdir -p "$WORK/artifacts/sub" && echo made > "$WORK/artifacts/sub/a.txt"
            printf '{"job": "%s", "attempt": %s, "own": "%s"}' "$JOB_ID" "$ATTEMPT" "$OWN" > "$WORK/result.json"
        """
        file = node.coordinator.add_file("in put.txt", b"12345")
        attempt = node.run("command", script=script, input_files=[file], env={"OWN": "mine", "JOB_ID": "forged"})
        assert attempt.report["result"] == {"job": attempt.ticket.job, "attempt": 1, "own": "mine"}
        assert attempt.artifacts == {"sub/a.txt": b"made\n"}
        assert {(line["stream"], line["level"], line["message"]) for line in attempt.lines.values()} == {
            ("stdout", "info", "5"),
            ("stderr", "warning", "trouble"),
        }
        usage = attempt.report["usage"]
        assert (usage["bytes_in"], usage["log_bytes"]) == (5, len("5\ntrouble\n"))
        assert usage["wall_ms"] > 0

    def test_without_a_result_file_what_it_printed_is_the_result(self, node: Node) -> None:
        node.start_and_listen()
        assert node.run("python", script="print('one')\nprint('two')").report["result"] == "one\ntwo"

    def test_a_large_script_with_every_quote_arrives_unchanged(self, node: Node) -> None:
        node.start_and_listen()
        text = "'\"`$HOME\\" * 30_000
        script = f"import hashlib\ntext = {text!r}\nprint(hashlib.sha256(text.encode()).hexdigest())"
        assert node.run("python", script=script).report["result"] == hashlib.sha256(text.encode()).hexdigest()

    def test_a_script_does_not_read_itself_as_its_input(self, node: Node) -> None:
        node.start_and_listen()
        assert node.run("command", script="cat\necho after").report["result"] == "after"

    def test_a_failure_tells_its_exit_code_and_still_hands_in_what_there_is(self, node: Node) -> None:
        node.start_and_listen()
        script = 'mkdir -p "$WORK/artifacts"; echo why > "$WORK/artifacts/why.txt"; exit 3'
        attempt = node.run("command", script=script)
        assert (attempt.state, attempt.report["reason_code"], attempt.report["exit_code"]) == (
            "failed",
            "exit_nonzero",
            3,
        )
        assert attempt.report["error"] == {
            "code": "EXIT_NONZERO",
            "message": "the command ended with exit code 3",
            "retryable": True,
        }
        assert attempt.artifacts == {"why.txt": b"why\n"}

    def test_a_timeout_ends_everything_that_was_started(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run("command", script=f"setsid {RUNNING_MARK} & {RUNNING_MARK}", timeout_seconds=0.5)
        assert (attempt.state, attempt.report["reason_code"]) == ("failed", "timeout")
        assert not sleepers()

    def test_a_result_that_is_no_json_fails_and_is_kept_to_be_seen(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run("command", script='echo "{half" > "$WORK/result.json"')
        assert (attempt.state, attempt.report["error"]["code"]) == ("failed", "RESULT_INVALID")
        assert attempt.artifacts == {"result.json": b"{half\n"}

    def test_a_broken_input_file_is_fetched_again_and_then_told(self, node: Node) -> None:
        node.start_and_listen()
        file = node.coordinator.add_file("a", b"right")
        node.coordinator.files[file["id"]] = b"wrong"
        attempt = node.run("command", script="true", input_files=[file])
        assert (attempt.state, attempt.report["reason_code"]) == ("lost", "input_broken")

    def test_a_log_beyond_its_limit_says_so_once_and_the_job_goes_on(self, node: Node) -> None:
        node.coordinator.limits = {"max_log_bytes": 1024}
        node.start_and_listen()
        attempt = node.run("command", script="seq 1 2000; echo done > $WORK/artifacts/x || true; exit 0")
        assert attempt.state == "succeeded"
        assert attempt.text[-1].startswith("truncated")
        assert sum(text.startswith("truncated") for text in attempt.text) == 1
        assert attempt.text[:3] == ["1", "2", "3"]

    def test_computers_wait_for_a_slot_and_light_jobs_do_not(self, node: Node) -> None:
        node.start_and_listen("--slots", "1")
        long = node.run_endless()
        second = node.coordinator.add("command", script="true")
        node.send(second)
        assert node.run("echo", input=1).state == "succeeded"
        assert (second.state, len(sleepers())) == ("running", 1)
        node.coordinator.change()
        long.want = "stop"
        node.coordinator.wait_ended(long, second)
        assert (long.state, second.state) == ("cancelled", "succeeded")

    def test_a_runtime_of_the_future_fails_without_another_try(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run("llm")
        assert (attempt.state, attempt.report["error"]["code"]) == ("failed", "RUNTIME_UNKNOWN")
        assert attempt.report["error"]["retryable"] is False


class TestTickets:
    def test_a_ticket_that_comes_many_times_runs_once(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.coordinator.add("command", script='date +%N > "$WORK/artifacts/x" 2>/dev/null; sleep 0.3')
        node.send(*[attempt] * 20)
        node.coordinator.wait_ended(attempt)
        node.send(attempt)
        node.run("echo")
        assert len(attempt.reports) == 1

    def test_tickets_of_others_and_of_a_newer_format_are_dropped(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.coordinator.add("echo")
        newer = json.loads(run_message(attempt.ticket))
        newer["body"] = json.dumps([[], {"v": 99, "node": node.coordinator.node_id}, None])
        newer["properties"]["body_encoding"] = None
        bodies = [newer["body"], "[]", "7", '[[], {"light": true}, null]', '[[], {"light": true, "v": 1}, null]']
        for body in bodies:
            node.push(json.dumps({**newer, "body": body}).encode())
        assert node.run("echo", input=1).state == "succeeded"
        assert node.run("command", script="true").state == "succeeded"
        assert attempt.claims == 0
        assert "consumer_restarted" not in node.child.output()

    def test_a_claim_whose_reply_is_lost_is_asked_again_with_the_same_nonce(self, node: Node) -> None:
        node.start_and_listen()
        node.coordinator.lose_reply("/sync")
        attempt = node.run("echo", input=7)
        assert (attempt.claims, attempt.report["result"]) == (2, 7)

    def test_a_report_whose_reply_is_lost_is_sent_again_and_counts_once(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless("sleep 0.4")
        node.coordinator.lose_reply("/sync")
        node.coordinator.wait_ended(attempt)
        node.coordinator.wait(lambda: '"is":"forgotten"' in node.journal(), what="end in the journal")
        assert len(attempt.reports) == 1

    def test_a_canary_is_heard(self, node: Node) -> None:
        node.start_and_listen()
        node.push(ping_message(node.coordinator.node_id or ""))
        node.coordinator.wait(lambda: node.coordinator.beats[-1]["vitals"]["queue"]["pings"] == 1, what="canary")

    def test_a_consumer_that_is_told_to_start_anew_leaves_what_runs_alone(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless("sleep 1.2; echo end")
        node.coordinator.change(restart_consumer=True)
        node.child.wait_for_text("consumer_restarted")
        assert node.run("echo", input=5).report["result"] == 5
        node.coordinator.wait_ended(attempt)
        assert attempt.report["result"] == "here\nend"

    def test_a_broker_that_dies_and_comes_back_is_heard_again(self, node: Node, redis_server: RedisServer) -> None:
        node.start_and_listen()
        redis_server.restart()
        node.coordinator.wait(lambda: node.coordinator.beats[-1]["queue_ok"] is True, what="consumer")
        assert node.run("echo", input=5).report["result"] == 5


class TestStopping:
    def test_cancelling_ends_everything_before_it_is_told(self, node: Node) -> None:
        node.coordinator.heartbeat_seconds = 30
        node.start_and_listen()
        attempt = node.run_endless(f"trap '' TERM; setsid {RUNNING_MARK} & {RUNNING_MARK}", cancel_grace_seconds=0.3)
        attempt.want = "stop"
        node.nudge()
        node.coordinator.wait_ended(attempt, seconds=10)
        assert (attempt.state, attempt.report["reason_code"]) == ("cancelled", "cancelled")
        assert not sleepers()

    def test_an_attempt_that_is_not_ours_is_killed_without_a_word(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless(cancel_grace_seconds=60)
        node.wait_held(attempt)
        attempt.want = "kill"
        node.coordinator.wait(lambda: not node.coordinator.beats[-1]["attempts"], what="beat without the attempt")
        assert not sleepers()
        assert attempt.reports == []

    def test_sigterm_hands_back_what_runs_and_leaves_nothing(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless()
        assert node.child.stop() == 0
        assert (attempt.state, attempt.report["reason_code"]) == ("returned", "node_stopping")
        assert not sleepers()
        assert list((node.home / "node" / "scratch").iterdir()) == []

    def test_a_second_signal_ends_all_patience(self, node: Node) -> None:
        node.start_and_listen(LONGSHORE_STOP_GRACE_SECONDS="60")
        attempt = node.run_endless(f"trap '' TERM; while :; do {RUNNING_MARK}; done", cancel_grace_seconds=60)
        node.child.send(signal.SIGINT)
        node.child.wait_for_text("stopping")
        node.child.send(signal.SIGINT)
        assert node.child.wait(seconds=20) == 0
        assert attempt.state == "returned"

    def test_a_drained_node_finishes_what_it_has_and_ends(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless("sleep 0.7; echo end")
        drain = processes.start(
            [sys.executable, "-m", "worker", "drain", "--home", str(node.home)],
            log=node.home.parent / "drain.log",
        )
        assert drain.wait() == 0
        assert node.child.wait() == 0
        assert attempt.report["result"] == "here\nend"
        assert node.coordinator.beats[-1]["draining"] is True

    def test_a_drain_with_an_end_hands_back_what_still_runs_then(self, node: Node) -> None:
        node.start_and_listen(LONGSHORE_STOP_GRACE_SECONDS="0.2")
        attempt = node.run_endless()
        argv = [sys.executable, "-m", "worker", "drain", "--within", "0.5s", "--home", str(node.home)]
        drain = processes.start(argv, log=node.home.parent / "drain.log")
        assert drain.wait() == 0
        assert (attempt.state, node.child.wait()) == ("returned", 0)
        assert not sleepers()

    def test_a_drain_that_an_admin_asked_for_ends_in_time_and_the_node_goes_on_beating(self, node: Node) -> None:
        node.start_and_listen(LONGSHORE_STOP_GRACE_SECONDS="0.2")
        attempt = node.run_endless()
        node.coordinator.change(drain=True, drain_in_seconds=0.5)
        node.coordinator.wait_ended(attempt)
        assert attempt.state == "returned"
        beats = len(node.coordinator.beats)
        node.coordinator.wait(lambda: len(node.coordinator.beats) > beats + 2, what="further beats")
        assert node.child.is_running

    def test_a_deadline_is_kept_while_the_coordinator_is_away(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.coordinator.add("command", script=f"echo here; {RUNNING_MARK}", cancel_grace_seconds=0.2)
        attempt.deadline_in_seconds = 2.0
        node.send(attempt)
        node.coordinator.wait(lambda: attempt.lines, what="first line")
        with node.coordinator.failing("", lambda: Refusal(503, "UNAVAILABLE")):
            node.coordinator.wait(lambda: '"is":"ended"' in node.journal(), what="end in the journal")
            assert not sleepers()
        node.coordinator.wait_ended(attempt)
        assert (attempt.state, attempt.report["reason_code"]) == ("failed", "deadline_exceeded")

    def test_beginning_anew_hands_back_what_cannot_go_on_and_is_the_same_process(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless(cancel_grace_seconds=0.2)
        epoch, beats = node.coordinator.epoch, len(node.coordinator.beats)
        argv = [sys.executable, "-m", "worker", "restart", "--home", str(node.home)]
        restart = processes.start(argv, log=node.home.parent / "restart.log")
        assert restart.wait(seconds=60) == 0, restart.output()
        node.wait_listening(since=beats + 1)
        assert attempt.state == "returned"
        assert node.coordinator.epoch != epoch
        assert node.run("echo", input=1).state == "succeeded"

    def test_a_node_stops_soon_though_nobody_takes_its_reports(self, node: Node) -> None:
        node.start_and_listen(LONGSHORE_STOP_GRACE_SECONDS="0.2")
        attempt = node.run_endless()
        with node.coordinator.failing("", lambda: Refusal(503, "UNAVAILABLE")):
            node.child.wait_for_text("heartbeat_missed")
            node.child.send(signal.SIGTERM)
            assert node.child.wait(seconds=20) == 0
        assert '"is":"ended"' in node.journal()
        assert not sleepers()
        node.start()
        node.coordinator.wait_ended(attempt)
        assert attempt.state == "returned"

    def test_a_rejected_node_stops_everything_at_once_and_waits(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless()
        node.wait_held(attempt)
        node.coordinator.change(is_approved=False)
        node.coordinator.wait(lambda: not node.coordinator.beats[-1]["attempts"], what="beat without the attempt")
        assert not sleepers()
        node.child.wait_for_text("no longer approved")
        late = node.coordinator.add("echo")
        node.send(late)
        beats = len(node.coordinator.beats)
        node.coordinator.wait(lambda: len(node.coordinator.beats) > beats + 2, what="further beats")
        assert (late.claims, attempt.reports) == (0, [])

    def test_a_removed_node_stops_everything_and_ends(self, node: Node) -> None:
        node.start_and_listen()
        node.run_endless()
        node.coordinator.change(is_removed=True)
        assert node.child.wait(seconds=20) == 3
        assert "no longer knows this node" in node.child.output()
        assert not sleepers()


class TestTrouble:
    def test_a_result_waits_for_a_coordinator_that_is_away(self, node: Node) -> None:
        node.start_and_listen()
        attempt = node.run_endless("sleep 0.3; echo end")
        with node.coordinator.failing("", lambda: Refusal(503, "UNAVAILABLE")):
            node.child.wait_for_text("heartbeat_missed")
            node.coordinator.wait(lambda: '"is":"ended"' in node.journal(), what="result in the journal")
        node.coordinator.wait_ended(attempt)
        assert attempt.report["result"] == "here\nend"

    def test_after_a_crash_an_unsent_result_is_sent_and_what_ran_is_told_lost(self, node: Node) -> None:
        node.start_and_listen()
        running, finished = node.run_endless(), node.run_endless("sleep 0.2; echo end")

        def refuse_reports() -> Refusal:
            return Refusal(503, "UNAVAILABLE")

        with node.coordinator.failing("/sync", refuse_reports):
            node.coordinator.wait(lambda: '"is":"ended"' in node.journal(), what="result in the journal")
            node.kill()
            beats = len(node.coordinator.beats)
            node.start()
            node.coordinator.wait(lambda: len(node.coordinator.beats) > beats, what="beat of the new daemon")
        node.coordinator.wait_ended(running, finished)
        assert finished.report["result"] == "here\nend"
        assert (running.state, running.report["reason_code"]) == ("lost", "node_restarted")
        assert not sleepers()
        node.wait_listening(since=beats)
        assert node.run("echo", input=1).state == "succeeded"

    def test_a_node_that_cannot_reach_the_coordinator_ends_what_it_runs_before_the_lease_is_over(
        self, node: Node
    ) -> None:
        node.coordinator.lease_seconds = 2.0
        node.start_and_listen()
        attempt = node.run_endless(cancel_grace_seconds=0.2)
        with node.coordinator.failing("", lambda: Refusal(503, "UNAVAILABLE")):
            node.child.wait_for_text("coordinator_silent")
            node.coordinator.wait(lambda: not sleepers(), what="end of the command", seconds=3)
        node.coordinator.wait_ended(attempt)
        assert (attempt.state, attempt.report["reason_code"]) == ("lost", "node_fenced")

    def test_one_item_that_the_coordinator_refuses_takes_no_other_with_it(self, node: Node) -> None:
        node.start_and_listen()
        node.coordinator.limits = {"max_result_bytes": 4 * 1024 * 1024}
        attempts = [node.coordinator.add("echo", input=number) for number in range(20)]
        asked = iter(range(1000))

        def refuse_the_first_two() -> Refusal | None:
            return Refusal(422, "VALIDATION_ERROR", "one of them is bad") if next(asked) < 2 else None

        with node.coordinator.failing("/sync", refuse_the_first_two):
            node.send(*attempts)
            node.coordinator.wait(
                lambda: sum(attempt.state == "succeeded" for attempt in attempts) >= 18, what="end of the others"
            )

    def test_log_lines_of_a_slow_coordinator_are_neither_lost_nor_doubled(self, node: Node) -> None:
        node.start_and_listen()
        asked = iter(range(1000))

        def refuse_every_other() -> Refusal | None:
            return Refusal(503, "UNAVAILABLE") if next(asked) % 2 else None

        node.coordinator.lose_reply("/logs")
        with node.coordinator.failing("/logs", refuse_every_other):
            attempt = node.run("command", script="for i in 1 2 3 4 5; do seq 1 300; sleep 0.05; done")
        assert attempt.text == [str(number) for _ in range(5) for number in range(1, 301)]


class TestFlower:
    @pytest.fixture
    def onlooker(self, redis_server: RedisServer, redis_client: redis_library.Redis) -> Iterator[State]:
        """What Flower sees: an event receiver with Celery's own state."""
        state = State()
        app = make_app(redis_server.url())
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": state.event})
            watcher = threading.Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
            watcher.start()
            _wait(redis_client.pubsub_numpat)
            yield state
            receiver.should_stop = True
            watcher.join(5)

    def test_an_onlooker_sees_nodes_and_tickets_as_they_are(self, node: Node, onlooker: State) -> None:
        node.start_and_listen()
        good = node.run("echo", input=1)
        bad = node.run("command", script="sleep 0.2; exit 4")
        ids = [attempt.ticket.attempt for attempt in (good, bad)]
        _wait(lambda: all(task in onlooker.tasks and onlooker.tasks[task].ready for task in ids))
        first, second = (onlooker.tasks[task] for task in ids)
        assert (first.state, first.name) == ("SUCCESS", "agent.run")
        assert first.args == f"tester job={good.ticket.job} try=1"
        assert (second.state, second.exception) == ("FAILURE", "failed: the command ended with exit code 4")
        assert second.runtime >= 0.2
        assert second.started is not None
        worker = onlooker.workers[consumer_name(node.coordinator.node_id or "")]
        assert worker.alive
        assert second.worker.hostname == worker.hostname

    def test_a_refused_ticket_and_a_cancelled_job_are_seen_as_such(self, node: Node, onlooker: State) -> None:
        node.start_and_listen()
        refused = node.coordinator.add("echo")
        refused.state = "expired"
        node.send(refused)
        cancelled = node.run_endless()
        cancelled.want = "stop"
        node.coordinator.wait_ended(cancelled)
        ids = [attempt.ticket.attempt for attempt in (refused, cancelled)]
        _wait(lambda: [onlooker.tasks[task].state for task in ids if task in onlooker.tasks] == ["REJECTED", "REVOKED"])


class TestCommands:
    def test_check_finds_nothing_missing_where_nothing_is(self, node: Node) -> None:
        node.start_and_listen()
        code, told = _check(node, "--driver", "process")
        assert code == 0
        assert {item["name"]: item["ok"] for item in told["findings"]} == {
            "daemon": None,
            "disk": True,
            "computers": True,
            "coordinator": True,
            "clock": True,
            "approval": True,
            "broker": True,
        }

    def test_check_asks_for_the_broker_where_no_daemon_runs(self, node: Node, redis_server: RedisServer) -> None:
        node.start_and_listen()
        node.child.stop()
        assert _check(node, "--driver", "process")[0] == 0
        node.coordinator.broker = "redis://127.0.0.1:1/0"
        code, told = _check(node, "--driver", "process")
        assert code == 1
        assert [item["name"] for item in told["findings"] if item["ok"] is False] == ["broker"]

    def test_check_without_anything_says_what_is_missing(self, tmp_path: Path) -> None:
        child = processes.start(
            [sys.executable, "-m", "worker", "check", "--home", str(tmp_path), "--driver", "docker"],
            log=tmp_path / "check.log",
            env={"PATH": "/usr/bin:/bin", "DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock"},
        )
        assert child.wait() == 1
        assert "MISSING computers" in child.output()
        assert "MISSING coordinator" in child.output()


def _check(node: Node, *options: str) -> tuple[int, dict[str, list[dict[str, object]]]]:
    log = node.home.parent / f"check-{len(list(node.home.parent.glob('check*')))}.log"
    argv = [sys.executable, "-m", "worker", "check", "--json", "--home", str(node.home), *options]
    child = processes.start(argv, log=log, env={"PATH": "/usr/bin:/bin", "LONGSHORE_ALLOW_UNSANDBOXED": "1"})
    code = child.wait()
    return code, json.loads(child.output())


def _wait(probe: Callable[[], object], seconds: float = 20) -> None:
    """For what no process of ours could signal: the broker's own view."""
    give_up = threading.Event()
    timer = threading.Timer(seconds, give_up.set)
    timer.start()
    try:
        while not probe():
            assert not give_up.wait(0.02), "it did not come about"
    finally:
        timer.cancel()


def test_a_node_reads_its_own_queue_alone(node: Node, redis_client: redis_library.Redis) -> None:
    node.start_and_listen()
    redis_client.lpush(node_queue("another"), b"not for us")
    assert node.run("echo", input=1).state == "succeeded"
    assert redis_client.llen(node_queue("another")) == 1
