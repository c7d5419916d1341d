"""Files are uploaded, listed, downloaded, signed, used by work, brought out of it and deleted."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from coordinator.config import Settings
from coordinator.domains.identity.rights import Role
from coordinator.domains.tasks.service import files as file_service
from coordinator.domains.tasks.service import tasks
from coordinator.domains.tasks.storage import LocalStorage
from coordinator.resources import Resources
from shared.clock import FrozenClock
from shared.errors import Unavailable
from shared.ids import new_id
from tests.factories.fleet import TestNode, job_of
from tests.factories.work import API, Person, attached, multipart, refused, run_one, start_one, told

MIB = 1024 * 1024


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small limits, so that tests need not be large."""
    limits = {"max_file_bytes": 3 * MIB, "max_artifacts": 3, "max_artifacts_bytes": 4 * MIB}
    return settings.model_copy(update=limits)


@pytest.fixture
def operator(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources)


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=8).approve()


def stored(resources: Resources) -> list[str]:
    """The names of all that lies in the storage, half-written or not."""
    assert isinstance(resources.storage, LocalStorage)
    return sorted(path.name for path in resources.storage.root.rglob("*") if path.is_file())


class TestUpload:
    @pytest.mark.parametrize("path", ["/files/upload", "/files"])
    def test_a_file_is_kept_with_its_digest(self, operator: Person, path: str) -> None:
        content = b"some content"
        answer = operator.upload(content, "report.txt", path=path)
        file = told(answer, 201)
        assert answer.headers["Location"] == f"/api/v1/files/{file['id']}"
        assert (file["filename"], file["size"]) == ("report.txt", len(content))
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["created_by"] == operator.id
        assert told(operator.get(f"/files/{file['id']}")) == file
        assert operator.get(f"/files/{file['id']}/download").data == content

    def test_an_empty_file_is_a_file(self, operator: Person) -> None:
        file = operator.file(b"", "empty")
        assert (file["size"], operator.get(f"/files/{file['id']}/download").data) == (0, b"")

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("../../etc/passwd", "passwd"),
            ("..", "file"),
            ("a\u202egnp.exe", "agnp.exe"),
            ("größe.txt", "größe.txt"),
        ],
    )
    def test_its_name_is_made_harmless(self, operator: Person, given: str, kept: str) -> None:
        assert told(operator.upload(b"x", given), 201)["filename"] == kept

    @pytest.mark.parametrize(
        ("name", "told_type", "kept"),
        [
            ("a.html", "text/html", "application/octet-stream"),
            ("a.svg", "image/svg+xml", "application/octet-stream"),
            ("a.js", "", "application/octet-stream"),
            ("a.bin", "TEXT/HTML; charset=utf-8", "application/octet-stream"),
            ("a.png", "image/png", "image/png"),
            ("a.csv", "application/octet-stream", "text/csv"),
            ("a", "not a type", "application/octet-stream"),
        ],
    )
    def test_its_type_is_never_one_that_browsers_run(
        self, operator: Person, name: str, told_type: str, kept: str
    ) -> None:
        file = told(operator.upload(b"<script>", name, content_type=told_type), 201)
        assert file["content_type"] == kept
        assert operator.get(f"/files/{file['id']}/download").headers["Content-Type"] == kept

    def test_it_may_belong_to_a_task(self, operator: Person) -> None:
        task = operator.task()
        file = told(operator.upload(b"x", path=f"/files/upload?task_id={task['id']}"), 201)
        assert (file["task_id"], file["execution_id"]) == (task["id"], None)
        listed = told(operator.get(f"/files?task_id={task['id']}"))["files"]
        assert [item["id"] for item in listed] == [file["id"]]
        assert told(operator.get(f"/tasks/{task['id']}"))["output_files"] == []

    def test_a_task_that_is_not_there_is_not_found_and_nothing_is_kept(
        self, operator: Person, resources: Resources
    ) -> None:
        assert operator.upload(b"x", path=f"/files/upload?task_id={new_id()}").status_code == 404
        assert stored(resources) == []

    def test_more_than_the_limit_is_refused_before_it_is_read(self, operator: Person, resources: Resources) -> None:
        unread = io.BytesIO(b"never read")
        answer = operator.client.post(
            f"{API}/files",
            headers=operator.headers,
            content_type="multipart/form-data; boundary=x",
            input_stream=unread,
            environ_overrides={"CONTENT_LENGTH": str(10 * MIB)},
        )
        assert refused(answer, 413)["code"] == "PAYLOAD_TOO_LARGE"
        assert unread.tell() == 0

    def test_a_body_of_untold_length_ends_at_the_limit(self, operator: Person, resources: Resources) -> None:
        body = multipart(file=attached(b"x" * (4 * MIB), "big"))
        untold = {"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
        answer = operator.client.post(f"{API}/files", headers=operator.headers, environ_overrides=untold, **body)
        assert answer.status_code == 413
        assert stored(resources) == []

    def test_a_file_just_over_the_limit_leaves_nothing_behind(self, operator: Person, resources: Resources) -> None:
        assert refused(operator.upload(b"x" * (3 * MIB + 1)), 413)["limit"] == 3 * MIB
        assert stored(resources) == []
        assert told(operator.upload(b"x" * (3 * MIB)), 201)["size"] == 3 * MIB

    @pytest.mark.parametrize(
        "content",
        [
            random.Random(1).randbytes(3 * MIB),
            b"\n" + b"x" * (3 * MIB - 1),
            b"\r" * (3 * MIB),
            b"\r\n--" * (3 * MIB // 4),
        ],
        ids=["noise", "one line", "returns", "half a boundary"],
    )
    def test_whatever_is_in_it_comes_back(self, operator: Person, content: bytes) -> None:
        file = operator.file(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert operator.get(f"/files/{file['id']}/download").data == content

    def test_a_body_without_the_field_is_told_so(self, operator: Person) -> None:
        answer = operator.post("/files", **multipart(other=attached(b"x", "a")))
        assert refused(answer, 422)["field"] == "file"
        assert operator.post("/files", {"file": "x"}).status_code == 415

    def test_a_broken_body_is_a_bad_request(self, operator: Person) -> None:
        answer = operator.post("/files", data=b"nothing", content_type="multipart/form-data; boundary=x")
        assert refused(answer, 400)["code"] == "BAD_REQUEST"

    def test_a_viewer_may_not(self, app: Flask, resources: Resources) -> None:
        viewer = Person.make(app, resources, Role.VIEWER)
        assert viewer.upload(b"x").status_code == 403


class TestListFiles:
    def test_the_newest_come_first(self, operator: Person) -> None:
        ids = [operator.file(name=f"f{number}")["id"] for number in range(3)]
        page = told(operator.get("/files?limit=2"))
        assert [file["id"] for file in page["files"]] == ids[:0:-1]
        assert page["pagination"]["total"] == 3


class TestDownload:
    def test_it_is_an_attachment_that_nobody_sniffs(self, operator: Person) -> None:
        file = operator.file(b"abc", "näme 1.txt")
        answer = operator.get(f"/files/{file['id']}/download")
        assert answer.headers["Content-Disposition"] == (
            "attachment; filename=\"n_me 1.txt\"; filename*=UTF-8''n%C3%A4me%201.txt"
        )
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Length"] == "3"

    @pytest.mark.parametrize(
        ("wanted", "status", "content", "where"),
        [
            ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
            ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
            ("bytes=-2", 206, b"89", "bytes 8-9/10"),
            ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
            ("bytes=10-", 416, b"", "bytes */10"),
            ("bytes=0-1,4-5", 200, b"0123456789", None),
            ("lines=0-1", 200, b"0123456789", None),
        ],
    )
    def test_a_range_is_honoured(
        self, operator: Person, wanted: str, status: int, content: bytes, where: str | None
    ) -> None:
        file = operator.file(b"0123456789")
        answer = operator.get(f"/files/{file['id']}/download", headers={"Range": wanted})
        assert (answer.status_code, answer.data) == (status, content)
        assert answer.headers.get("Content-Range") == where

    def test_a_large_file_comes_whole(self, operator: Person) -> None:
        content = bytes(range(256)) * (3 * MIB // 256)
        file = operator.file(content)
        assert operator.get(f"/files/{file['id']}/download").data == content

    def test_a_viewer_may(self, app: Flask, resources: Resources, operator: Person) -> None:
        viewer = Person.make(app, resources, Role.VIEWER)
        assert viewer.get(f"/files/{operator.file()['id']}/download").status_code == 200

    def test_nobody_else_may(self, operator: Person) -> None:
        file = operator.file()
        assert operator.client.get(f"{API}/files/{file['id']}/download").status_code == 401


class TestUrl:
    def signed(self, operator: Person) -> tuple[dict[str, Any], str]:
        file = operator.file(b"abc", "a.txt")
        answer = told(operator.get(f"/files/{file['id']}/url"))
        assert (answer["filename"], answer["expires_in"]) == ("a.txt", 3600)
        parts = urlsplit(answer["url"])
        assert parts.scheme == "http"
        return file, f"{parts.path}?{parts.query}"

    def test_anybody_may_download_from_it(self, operator: Person) -> None:
        _, address = self.signed(operator)
        answer = operator.client.get(address)
        assert (answer.status_code, answer.data) == (200, b"abc")
        assert answer.headers["Content-Disposition"].startswith("attachment")

    def test_it_ends_after_an_hour(self, operator: Person, clock: FrozenClock) -> None:
        _, address = self.signed(operator)
        clock.advance(3599)
        assert operator.client.get(address).status_code == 200
        clock.advance(2)
        assert operator.client.get(address).status_code == 403

    def test_a_changed_address_is_refused(self, operator: Person) -> None:
        file, address = self.signed(operator)
        other = operator.file(b"secret")
        assert operator.client.get(address.replace(file["id"], other["id"])).status_code == 403
        assert operator.client.get(address.replace("expires=", "expires=9")).status_code == 403
        assert operator.client.get(address[:-1] + ("0" if address[-1] != "0" else "1")).status_code == 403
        assert operator.client.get(address.partition("&")[0]).status_code == 422

    def test_it_ends_with_the_file(self, operator: Person) -> None:
        file, address = self.signed(operator)
        assert operator.delete(f"/files/{file['id']}").status_code == 204
        assert operator.client.get(address).status_code == 404


class TestDelete:
    def test_the_content_goes_too(self, operator: Person, resources: Resources) -> None:
        file = operator.file()
        assert stored(resources) == [file["id"]]
        assert operator.delete(f"/files/{file['id']}").status_code == 204
        assert stored(resources) == []
        assert operator.get(f"/files/{file['id']}").status_code == 404
        assert operator.delete(f"/files/{file['id']}").status_code == 404

    def test_unfinished_work_that_needs_it_forbids_it(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        file = operator.file()
        agent = operator.agent()
        waiting = operator.task(input_files=[file["id"]])
        operator.execution(agent["id"], input_files=[file["id"]])
        assert refused(operator.delete(f"/files/{file['id']}"), 409)["unfinished"] == 2
        told(operator.post(f"/tasks/{waiting['id']}/cancel"))
        assert refused(operator.delete(f"/files/{file['id']}"), 409)["unfinished"] == 1
        run_one(resources, node)
        assert operator.delete(f"/files/{file['id']}").status_code == 204

    def test_it_cannot_go_while_work_is_accepted_with_it(
        self, app: Flask, operator: Person, resources: Resources
    ) -> None:
        file = operator.file()
        answers: list[TestResponse] = []
        other = Person(app.test_client(), operator.headers, operator.id, operator.name)
        deleting = threading.Thread(target=lambda: answers.append(other.delete(f"/files/{file['id']}")))
        with resources.database.write() as tx:
            body = {"title": "t", "input_files": [file["id"]]}
            tasks.create(tx, resources, body, space="default", by=operator.id)
            deleting.start()
            deleting.join(0.3)
            assert deleting.is_alive(), "the deletion did not wait for the task to be accepted"
        deleting.join(30)
        assert refused(answers[0], 409)["unfinished"] == 1

    def test_a_storage_that_fails_does_not_bring_the_file_back(
        self, operator: Person, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = operator.file()

        def fails(_storage: LocalStorage, _key: str) -> None:
            raise Unavailable("the file storage does not answer")

        with monkeypatch.context() as patched:
            patched.setattr(LocalStorage, "delete", fails)
            assert operator.delete(f"/files/{file['id']}").status_code == 204
        assert operator.get(f"/files/{file['id']}").status_code == 404
        assert stored(resources) == [file["id"]]
        assert file_service.purge(resources) == 1
        assert stored(resources) == []
        assert file_service.purge(resources) == 0


class Bench:
    """A node that runs one task with one input file."""

    def __init__(self, operator: Person, node: TestNode, resources: Resources, *, runtime: str = "command") -> None:
        self.operator, self.node = operator, node
        self.file = operator.file(b"input bytes", "in.txt")
        agent = operator.agent(runtime=runtime)
        self.task = operator.task(agent_id=agent["id"], input_files=[self.file["id"]], retry={"base_seconds": 0})
        self.start(resources)

    def start(self, resources: Resources) -> None:
        self.attempt_id = start_one(resources, self.node).attempt_id
        self.token = self.node.held[self.attempt_id]

    @property
    def headers(self) -> dict[str, str]:
        return {**self.node.headers, "X-Attempt-Token": self.token}

    def fetch(self, file_id: str, **headers: str) -> TestResponse:
        path = f"{API}/workers/{self.node.id}/attempts/{self.attempt_id}/files/{file_id}"
        return self.operator.client.get(path, headers={**self.headers, **headers})

    def hand_in(self, filename: str, content: bytes = b"out", **form: str) -> TestResponse:
        path = f"{API}/workers/{self.node.id}/attempts/{self.attempt_id}/artifacts"
        body = multipart(file=attached(content, filename), **form)
        return self.operator.client.post(path, headers=self.headers, **body)


@pytest.fixture
def bench(operator: Person, node: TestNode, resources: Resources) -> Bench:
    return Bench(operator, node, resources)


class TestInputs:
    def test_the_spec_names_them_and_the_node_fetches_them(self, bench: Bench, resources: Resources) -> None:
        (told_of,) = job_of(resources, bench.task["id"]).spec["input_files"]
        assert told_of == {name: bench.file[name] for name in ("id", "filename", "size", "sha256")}
        assert bench.task["input_files"] == [bench.file["id"]]
        answer = bench.fetch(told_of["id"])
        assert (answer.status_code, answer.data) == (200, b"input bytes")

    def test_other_files_are_none_of_its_business(self, bench: Bench) -> None:
        other = bench.operator.file(b"secret", "other")
        assert bench.fetch(other["id"]).status_code == 404

    def test_a_wrong_token_gets_nothing(self, bench: Bench) -> None:
        assert refused(bench.fetch(bench.file["id"], **{"X-Attempt-Token": "wrong"}), 409)["code"] == "STALE_ATTEMPT"

    def test_another_node_gets_nothing(self, bench: Bench, client: FlaskClient, resources: Resources) -> None:
        other = TestNode(client, resources).approve()
        assert bench.fetch(bench.file["id"], **other.headers).status_code == 403

    def test_people_do_not_come_in_this_way(self, bench: Bench) -> None:
        assert bench.fetch(bench.file["id"], **bench.operator.headers).status_code == 403


class TestArtifacts:
    def test_they_are_the_tasks_output(self, bench: Bench) -> None:
        file = told(bench.hand_in("x.png", b"picture", name="plots/x.png"), 201)
        bench.node.report(bench.attempt_id, result=1)
        shown = told(bench.operator.get(f"/tasks/{bench.task['id']}"))
        expected = {"id": file["id"], "filename": "plots/x.png", "size": 7, "sha256": file["sha256"]}
        assert shown["output_files"] == [expected]
        assert told(bench.operator.get("/tasks"))["tasks"][0]["output_files"] == [expected]
        assert (file["task_id"], file["attempt_id"]) == (bench.task["id"], bench.attempt_id)
        answer = bench.operator.get(f"/files/{file['id']}/download")
        assert answer.data == b"picture"
        assert 'filename="x.png"' in answer.headers["Content-Disposition"]

    def test_the_same_again_gets_the_same_answer(self, bench: Bench, resources: Resources) -> None:
        first, again = (told(bench.hand_in("a", b"same"), 201) for _ in range(2))
        assert first == again
        assert len(stored(resources)) == 2
        assert bench.hand_in("a", b"other").status_code == 409

    def test_a_name_cannot_lead_anywhere(self, bench: Bench) -> None:
        assert told(bench.hand_in("x", name="../../etc/./passwd"), 201)["filename"] == "etc/passwd"

    def test_damage_on_the_way_is_noticed(self, bench: Bench, resources: Resources) -> None:
        assert refused(bench.hand_in("a", b"x", sha256="0" * 64), 422)["field"] == "sha256"
        assert stored(resources) == [bench.file["id"]]

    def test_there_may_be_only_so_many(self, bench: Bench, resources: Resources) -> None:
        for number in range(3):
            told(bench.hand_in(f"f{number}"), 201)
        assert refused(bench.hand_in("one too many"), 413)["limit"] == 3
        assert len(stored(resources)) == 4

    def test_together_they_may_have_only_so_many_bytes(self, bench: Bench) -> None:
        told(bench.hand_in("big", b"x" * (3 * MIB)), 201)
        assert refused(bench.hand_in("bigger", b"x" * (2 * MIB)), 413)["limit"] == 4 * MIB

    def test_a_stale_attempt_hands_in_nothing(self, bench: Bench, resources: Resources) -> None:
        bench.node.report(bench.attempt_id, result=1)
        assert refused(bench.hand_in("late"), 409)["code"] == "STALE_ATTEMPT"
        assert stored(resources) == [bench.file["id"]]

    def test_only_the_accepted_attempts_files_count(self, bench: Bench, resources: Resources) -> None:
        told(bench.hand_in("first"), 201)
        failure = {"error": {"code": "EXIT_NONZERO", "message": "exit 1", "retryable": True}, "exit_code": 1}
        bench.node.report(bench.attempt_id, "failed", **failure)
        assert self.names(bench) == ["first"]
        bench.start(resources)
        told(bench.hand_in("second"), 201)
        bench.node.report(bench.attempt_id, result=1)
        assert self.names(bench) == ["second"]
        listed = told(bench.operator.get(f"/files?task_id={bench.task['id']}"))["files"]
        assert sorted(file["filename"] for file in listed) == ["first", "second"]

    def names(self, bench: Bench) -> list[str]:
        shown = told(bench.operator.get(f"/tasks/{bench.task['id']}"))
        return [file["filename"] for file in shown["output_files"]]
