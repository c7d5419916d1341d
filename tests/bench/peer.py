"""The peer: bare Celery on the same Redis, with a threads pool and Redis results."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import redis
from celery import Celery

from tests.services import processes

app = Celery("peer", broker=os.environ.get("PEER_BROKER"), backend=os.environ.get("PEER_RESULTS"))
app.conf.update(worker_prefetch_multiplier=4, task_serializer="json", broker_connection_retry_on_startup=True)
RAMP = 0.02


@app.task(name="peer.empty")
def empty(value: object) -> object:
    """A task that does nothing, as our echo job does nothing."""
    return value


def drain_rate(broker: str, results: str, count: int) -> float:
    """Tasks per second while a fresh worker drains `count` queued tasks; its start-up is left out."""
    env = {**os.environ, "PEER_BROKER": broker, "PEER_RESULTS": results}
    client = redis.Redis.from_url(results)
    client.flushdb()
    producer = Celery("peer", broker=broker, backend=results)
    for number in range(count):
        producer.send_task("peer.empty", args=[{"n": number}], queue="peer")
    directory = processes.scratch_directory("peer")
    argv = [str(Path(sys.executable).parent / "celery"), "-A", "tests.bench.peer", "worker", "-P", "threads", "-c", "4"]
    child = processes.start([*argv, "-Q", "peer", "--loglevel", "WARNING"], env=env, log=directory / "peer.log")
    try:
        child.wait_until(lambda: client.dbsize() >= count * RAMP, what="the peer's first results", seconds=60)
        first, started = client.dbsize(), time.perf_counter()
        child.wait_until(lambda: client.dbsize() >= count, what="the peer's last result", seconds=300)
        return float(count - first) / (time.perf_counter() - started)
    finally:
        child.stop()
        client.close()
        producer.close()
