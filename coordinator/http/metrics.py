"""Prometheus metrics: requests counted in every web process, gauges asked of the database at each scrape."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.store.database import Database, Transaction
from shared.errors import Unavailable

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GaugeSample:
    """One value of one gauge; samples of the same name carry the same label names."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


Gauges = Callable[[Transaction], Iterable[GaugeSample]]
_gauges: list[Gauges] = []


def register_gauges(gauges: Gauges) -> None:
    """Ask `gauges` for its samples at every scrape, in a reading transaction."""
    if gauges not in _gauges:
        _gauges.append(gauges)


def share_between_processes(directory: Path) -> None:
    """Keep the counts of all processes that are forked from here in `directory`, which begins empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    # prometheus_client takes the directory from nowhere else, and fixes the kind of its values when it is imported.
    os.environ[DIRECTORY_VARIABLE] = str(directory)  # noqa: TID251
    values.ValueClass = multiprocess_values()


def multiprocess_values() -> type:
    """The class of values that live in files of the shared directory."""
    made: type = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    return made


def shared_directory() -> str | None:
    """Where the counts of all processes are, None when this process counts alone."""
    return os.environ.get(DIRECTORY_VARIABLE) or None  # noqa: TID251


class RequestMetrics:
    """Counts and times the requests of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "longshore_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "longshore_http_request_seconds",
            "Time to answer a request.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. `route` is the rule, never the raw path, so that labels stay few."""
        key = (method, route, status)
        found = self._series.get(key)
        if found is None:
            known = method if method in METHODS else "OTHER"
            found = self._requests.labels(known, route, str(status)), self._seconds.labels(known, route)
            if known == method:
                self._series[key] = found
        counter, histogram = found
        counter.inc()
        histogram.observe(seconds)

    def exposition(self, database: Database) -> bytes:
        """Everything in Prometheus' text format."""
        shown = self.registry
        if shared_directory() is not None:
            shown = CollectorRegistry()
            multiprocess.MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        domain = CollectorRegistry()
        domain.register(DomainGauges(database))
        return generate_latest(shown) + generate_latest(domain)


class DomainGauges(Collector):
    """What the domains read from the database now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        up = GaugeMetricFamily("longshore_database_up", "Whether the database answered this scrape.")
        try:
            with self._database.read() as tx:
                for sample in (sample for gauges in _gauges for sample in gauges(tx)):
                    _add(families, sample)
            up.add_metric([], 1)
        except Unavailable as error:
            # The counts of requests matter most when the database is away.
            log.warning("metrics.without_database", reason=error.message)
            families.clear()
            up.add_metric([], 0)
        yield up
        yield from families.values()

    def describe(self) -> list[Metric]:
        return []


def _add(families: dict[str, GaugeMetricFamily], sample: GaugeSample) -> None:
    names = sorted(sample.labels)
    if sample.name not in families:
        families[sample.name] = GaugeMetricFamily(sample.name, sample.help, labels=names)
    families[sample.name].add_metric([sample.labels[name] for name in names], sample.value)


def forget_process(pid: int) -> None:
    """A web process has ended: its live values no longer count, its totals stay."""
    if shared_directory() is not None:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
