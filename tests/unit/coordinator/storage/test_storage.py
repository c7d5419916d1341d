"""What every storage promises, tried on a directory and on a bucket of a real S3 server in this process."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.config import Settings
from coordinator.domains.tasks.storage import (
    ContentMissing,
    Label,
    LocalStorage,
    ObjectStorage,
    Storage,
    make_storage,
)
from shared.errors import PayloadTooLarge, Unavailable
from shared.ids import new_id
from shared.settings import SettingsError

MIB = 1024 * 1024
LABEL = Label("report.txt", "text/plain")


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    endpoint = f"http://127.0.0.1:{port}"
    httpx.put(f"{endpoint}/bucket").raise_for_status()
    yield endpoint
    server.stop()


def settings(url: str, **more: Any) -> Settings:
    return Settings(storage_url=url, storage_access_key="key", storage_secret_key="secret", **more)


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return make_storage(settings(f"file://{tmp_path}/files"))
    endpoint = request.getfixturevalue("s3_endpoint")
    return make_storage(settings(f"s3://bucket/some/prefix?endpoint={endpoint}"))


def key() -> str:
    file_id = new_id()
    return f"{file_id[-2:]}/{file_id}"


def content_of(storage: Storage, name: str, **part: int) -> bytes:
    return b"".join(storage.open(name, **part))


class TestConformance:
    @pytest.mark.parametrize("sizes", [[], [0], [1], [5, 0, 7], [MIB] * 12, [20 * MIB]])
    def test_what_goes_in_comes_out(self, storage: Storage, sizes: list[int]) -> None:
        pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
        name = key()
        storage.put(name, iter(pieces), LABEL)
        digest = hashlib.sha256()
        for piece in storage.open(name):
            digest.update(piece)
        assert digest.digest() == hashlib.sha256(b"".join(pieces)).digest()

    def test_a_large_content_comes_in_pieces(self, storage: Storage) -> None:
        name = key()
        storage.put(name, [b"x" * (5 * MIB)], LABEL)
        assert max(len(piece) for piece in storage.open(name)) < 5 * MIB

    @pytest.mark.parametrize(
        ("part", "expected"),
        [
            ({"start": 0, "end": 4}, b"0123"),
            ({"start": 4}, b"456789"),
            ({"start": 9, "end": 10}, b"9"),
            ({"start": 3, "end": 3}, b""),
            ({"end": 10}, b"0123456789"),
        ],
    )
    def test_a_part_can_be_read(self, storage: Storage, part: dict[str, int], expected: bytes) -> None:
        name = key()
        storage.put(name, [b"0123456789"], LABEL)
        assert content_of(storage, name, **part) == expected

    def test_what_is_missing_is_told_at_once(self, storage: Storage) -> None:
        with pytest.raises(ContentMissing):
            storage.open(key())

    def test_deleted_is_missing_and_deleting_again_is_fine(self, storage: Storage) -> None:
        name, other = key(), key()
        for each in (name, other):
            storage.put(each, [b"x"], LABEL)
        storage.delete(name)
        storage.delete(name)
        with pytest.raises(ContentMissing):
            storage.open(name)
        assert content_of(storage, other) == b"x"

    @pytest.mark.parametrize("first", [b"", b"x", b"x" * (9 * MIB)])
    def test_a_source_that_fails_leaves_nothing_and_its_error_arrives(self, storage: Storage, first: bytes) -> None:
        def source() -> Iterator[bytes]:
            yield first
            raise PayloadTooLarge("too much")

        name = key()
        with pytest.raises(PayloadTooLarge, match="too much"):
            storage.put(name, source(), LABEL)
        with pytest.raises(ContentMissing):
            storage.open(name)

    @pytest.mark.parametrize("bad", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a b", "a\n", "a/"])
    def test_a_key_leads_nowhere_else(self, storage: Storage, bad: str) -> None:
        with pytest.raises(ValueError, match="storage key"):
            storage.open(bad)
        with pytest.raises(ValueError, match="storage key"):
            storage.put(bad, [b"x"], LABEL)

    def test_it_says_that_it_works(self, storage: Storage) -> None:
        storage.check()


class TestLocal:
    def test_nothing_half_written_stays(self, tmp_path: Path) -> None:
        storage = LocalStorage(tmp_path)

        def source() -> Iterator[bytes]:
            yield b"some"
            assert [path.name.startswith(".part-") for path in tmp_path.rglob("*") if path.is_file()] == [True]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            storage.put(key(), source(), LABEL)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_only_its_owner_may_look_in(self, tmp_path: Path) -> None:
        storage, name = LocalStorage(tmp_path / "files"), key()
        storage.put(name, [b"x"], LABEL)
        path = tmp_path / "files" / name
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    def test_it_signs_nothing(self, tmp_path: Path) -> None:
        assert LocalStorage(tmp_path).signed_url(key(), seconds=60) is None

    def test_a_place_that_is_no_directory_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        storage = LocalStorage(tmp_path / "file")
        with pytest.raises(Unavailable):
            storage.check()
        with pytest.raises(Unavailable):
            storage.put(key(), [b"x"], LABEL)


class TestObject:
    def test_a_signed_address_hands_out_an_attachment(self, s3_endpoint: str) -> None:
        storage, name = make_storage(settings(f"s3://bucket?endpoint={s3_endpoint}")), key()
        assert isinstance(storage, ObjectStorage)
        storage.put(name, [b"content"], Label('a "b".txt', "text/plain"))
        address = storage.signed_url(name, seconds=60)
        assert address is not None
        assert address.startswith(f"{s3_endpoint}/bucket/{name}?")
        assert "X-Amz-Expires=60" in address
        assert "secret" not in address
        answer = httpx.get(address)
        assert (answer.status_code, answer.content) == (200, b"content")
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="a _b_.txt"')

    def test_prefixes_keep_apart(self, s3_endpoint: str) -> None:
        one = make_storage(settings(f"s3://bucket/one?endpoint={s3_endpoint}"))
        two = make_storage(settings(f"s3://bucket/two?endpoint={s3_endpoint}"))
        name = key()
        one.put(name, [b"x"], LABEL)
        with pytest.raises(ContentMissing):
            two.open(name)

    def test_a_bucket_that_is_not_there_is_told(self, s3_endpoint: str) -> None:
        storage = make_storage(settings(f"s3://nobucket?endpoint={s3_endpoint}"))
        with pytest.raises(Unavailable):
            storage.check()
        with pytest.raises(Unavailable):
            storage.put(key(), [b"x"], LABEL)


class TestMakeStorage:
    @pytest.mark.parametrize("url", ["", "/var/files", "ftp://x/y", "file://host/x", "s3:///x", "file://"])
    def test_another_address_is_refused_by_name(self, url: str) -> None:
        with pytest.raises(SettingsError, match="LONGSHORE_STORAGE_URL"):
            make_storage(settings(url))

    def test_a_path_may_have_escapes(self, tmp_path: Path) -> None:
        storage = make_storage(settings(f"file://{tmp_path}/my%20files"))
        assert isinstance(storage, LocalStorage)
        assert storage.root == tmp_path / "my files"
