"""What is counted of HTTP, in a Prometheus registry of its own (so that several apps live in one process).

Labels are route, method and status: never a path, which would make as many series as there are files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})


class Certificates(Protocol):
    """The certificate files of one listener (or dialer), as metrics show them."""

    name: str
    failures: int

    @property
    def expires_ms(self) -> int | None: ...


class HttpMetrics:
    """Counters of one HTTP server. Others may add theirs to ``registry``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "raftfs_http_request_seconds",
            "Time from a request's headers to the end of its answer; its count is the number of requests",
            ("route", "method", "status"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._in = Counter("raftfs_http_request_bytes", "Body bytes received", ("route",), registry=self.registry)
        self._out = Counter("raftfs_http_response_bytes", "Bytes sent, headers included", ("route",),
                            registry=self.registry)  # fmt: skip
        self.in_flight = Gauge("raftfs_http_requests_in_flight", "Requests being answered", registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._children: dict[tuple[str, str, int], Histogram] = {}
        self._bytes: dict[str, tuple[Counter, Counter]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Count one request. Methods nobody knows are counted as OTHER, so that garbage makes no series."""
        key = (route, method, status)
        child = self._children.get(key)
        if child is None:
            name = method if method in _METHODS else "OTHER"
            child = self._seconds.labels(route, name, str(status))
            if name == method:
                self._children[key] = child
        child.observe(seconds)
        counters = self._bytes.get(route)
        if counters is None:
            counters = self._bytes[route] = (self._in.labels(route), self._out.labels(route))
        if bytes_in:
            counters[0].inc(bytes_in)
        if bytes_out:
            counters[1].inc(bytes_out)

    def show_certificates(self, certificates: Sequence[Certificates]) -> None:
        """From now on, say when these expire."""
        self.registry.register(_CertificateCollector(certificates))

    def response(self) -> web.Response:
        """The registry in Prometheus' text format."""
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _CertificateCollector(Collector):
    def __init__(self, certificates: Sequence[Certificates]) -> None:
        self._certificates = certificates

    def collect(self) -> Iterable[Metric]:
        expiry = GaugeMetricFamily(
            "raftfs_certificate_expiry_timestamp_seconds",
            "When the certificate that is shown to new connections expires, in seconds since the epoch",
            labels=["listener"],
        )
        failures = CounterMetricFamily(
            "raftfs_certificate_reload_failures",
            "How often certificate files that had changed could not be used, so that the old ones stayed in use",
            labels=["listener"],
        )
        for each in self._certificates:
            if each.expires_ms is not None:
                expiry.add_metric([each.name], each.expires_ms / 1000)
            failures.add_metric([each.name], each.failures)
        return [expiry, failures]
