"""Numbers for Prometheus: requests, how long they took, refusals, the size of the index."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ENDLESS = "/api/events"


class Meters:
    """The numbers of one server.

    Args:
        num_items: asks the index's size.
        generation: asks how often the index has changed.
    """

    def __init__(self, *, num_items: Callable[[], int], generation: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "pocketclip_requests_total", "Requests", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "pocketclip_request_seconds",
            "From a request's head to the end of its answer",
            ("route",),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.search_seconds = Histogram(
            "pocketclip_search_seconds",
            "Model and index, without the wait for a thread",
            ("kind",),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.rate_limited = Counter(
            "pocketclip_rate_limited_total", "Requests refused for their rate", registry=self.registry
        )
        self.streams = Gauge("pocketclip_event_streams", "Clients that follow events", registry=self.registry)
        items = Gauge("pocketclip_index_items", "Items of the index", registry=self.registry)
        items.set_function(num_items)
        changes = Gauge("pocketclip_index_generation", "Changes of the index", registry=self.registry)
        changes.set_function(generation)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)


class Measured:
    """Counts and times every request, by route and not by address: the number of rows stays small."""

    def __init__(self, app: ASGIApp, *, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, and counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "refused or unknown")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._meters.requests.labels(method, route, str(status)).inc()
            if status == 429:
                self._meters.rate_limited.inc()
            if route != _ENDLESS:
                self._meters.seconds.labels(route).observe(time.perf_counter() - started)
