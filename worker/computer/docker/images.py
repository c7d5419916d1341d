"""The images that computers are made of, and an empty /work that the job's user may write in whatever image it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPResponse
from urllib.parse import quote

from worker.computer.contract import WORK, ImageMissing
from worker.computer.docker.engine import Engine, EngineError
from worker.computer.docker.recipe import volume_name
from worker.computer.docker.removal import remove_container, remove_volume

_NOT_FOUND = 404


class Images:
    def __init__(self, engine: Engine, default: str, *, fetch: bool) -> None:
        self._engine = engine
        self._fetch_allowed = fetch
        self.default = default

    def require(self, image: str) -> None:
        """Returns when the image is there; fetches it first where the node allows that."""
        if self._is_there(image):
            return
        if not self._fetch_allowed:
            hint = "; scripts/computer-image builds it" if image == self.default else ""
            raise ImageMissing(f"the image {image} is not on this node{hint}", image=image)
        self._fetch(image)
        if not self._is_there(image):
            raise ImageMissing(f"the image {image} could not be fetched", image=image)

    def work_volume(self, computer_id: str, image: str, labels: Mapping[str, str]) -> str | None:
        """None for our own image, whose /work an anonymous volume copies, owner and all.

        In a foreign image /work is missing or root's. A volume takes the owner from the first container that is
        created with it, so ours is created (never started) once to lend its own.
        """
        if image == self.default:
            return None
        volume = volume_name(computer_id)
        self._engine.post("/volumes/create", body={"Name": volume, "Labels": dict(labels)})
        try:
            self._lend_owner(volume, labels)
        except BaseException:
            remove_volume(self._engine, volume)
            raise
        return volume

    def _lend_owner(self, volume: str, labels: Mapping[str, str]) -> None:
        mount = {"Type": "volume", "Source": volume, "Target": WORK}
        body = {
            "Image": self.default,
            "Cmd": ["true"],
            "Labels": {**labels, "longshore.kind": "lender"},
            "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
        }
        lender = str(self._engine.post("/containers/create", body=body)["Id"])
        remove_container(self._engine, lender)

    def _is_there(self, image: str) -> bool:
        try:
            self._engine.get(f"/images/{quote(image, safe='/:@')}/json")
        except EngineError as error:
            if error.status_code == _NOT_FOUND:
                return False
            raise
        return True

    def _fetch(self, image: str) -> None:
        name = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
        try:
            with self._engine.post_stream("/images/create", {"fromImage": name}) as progress:
                failure = _failure(progress)
        except EngineError as error:
            failure = error.reason
        if failure:
            raise ImageMissing(f"the image {image} could not be fetched: {failure}", image=image)


def _failure(progress: HTTPResponse) -> str | None:
    """The daemon answers 200 at once and tells of a failure in one of the lines that follow."""
    for line in progress:
        if line.strip() and (error := json.loads(line).get("error")):
            return str(error)
    return None
