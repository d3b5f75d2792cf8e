"""How much one client may ask, and how much it may send: buckets of credits, bytes and seconds."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocketclip.search.server.config import Limits
from pocketclip.search.server.problems import Refusal, refuse

_CLIENTS = 4096  # buckets that are kept; the one unused for longest goes first, and is full by then
_MOST_HEADERS = 100
_LONGEST_TARGET = 8192  # bytes of path and query
_COSTS = {
    ("GET", "/api/search"): 10,
    ("POST", "/api/search"): 30,
    ("GET", "/api/duplicates"): 100,
    ("GET", "/api/outliers"): 100,
    ("GET", "/api/albums"): 100,
    ("GET", "/api/events"): 10,
}
_FILE_COST = 5
WRONG_TOKEN_COST = 100
"""Credits that a wrong token costs."""


def cost(method: str, path: str) -> int:
    """Credits of a request."""
    return _COSTS.get((method, path), _FILE_COST if path.endswith("/file") else 1)


class Buckets:
    """A bucket of credits for each client, refilled as time goes by.

    Args:
        most: credits of a full bucket.
        per_s: credits that come back.
        clock: seconds, never going back.
    """

    def __init__(self, *, most: float, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._per_s = per_s
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, charge: float) -> float:
        """Takes credits; the bucket may run into debt once, and must be paid up before the next time.

        Returns:
            0 where it was granted, else the seconds to wait.
        """
        now = self._clock()
        level, then = self._levels.pop(client, (self._most, now))
        level = min(self._most, level + (now - then) * self._per_s)
        granted = level > 0
        self._levels[client] = (level - charge if granted else level, now)
        while len(self._levels) > _CLIENTS:
            self._levels.popitem(last=False)
        return 0.0 if granted else max(-level / self._per_s, 1e-3)


def client_of(scope: Scope) -> str:
    """Whom a request is counted for: the address; of IPv6 its network, which belongs to one household."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6 and not address.is_loopback:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


class RateLimit:
    """Refuses clients whose bucket is empty, with the seconds to wait."""

    def __init__(self, app: ASGIApp, *, buckets: Buckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes the request's cost."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wait_s = self._buckets.take(client_of(scope), cost(scope["method"], scope["path"]))
        if wait_s:
            headers = {"retry-after": str(math.ceil(wait_s))}
            await refuse(send, Refusal(429, f"too many requests: wait {wait_s:.1f} s", headers=headers))
            return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses heads and bodies that are too large or too slow; a body is counted while it arrives."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Looks at the head, and hands on a receiver that counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, limits=self._limits)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if _has_body(scope) and not body.is_whole:  # nobody reads the rest
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        try:
            self._check_head(scope)
            await self._app(scope, body.receive, watched)
        except Refusal as refusal:
            if started:
                raise
            await refuse(send, refusal)

    def _check_head(self, scope: Scope) -> None:
        if len(scope["headers"]) > _MOST_HEADERS:
            raise Refusal(431, f"the request has more than {_MOST_HEADERS} headers")
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _LONGEST_TARGET:
            raise Refusal(414, f"the address is longer than {_LONGEST_TARGET} bytes")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced[:20]) > self._limits.upload_bytes:
            raise _too_large(self._limits)


class _Body:
    """A request's body, counted and timed while it arrives."""

    def __init__(self, receive: Receive, *, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._arrived = 0
        self._deadline = time.monotonic() + limits.body_s
        self.is_whole = False

    async def receive(self) -> Message:
        """The next part.

        Raises:
            Refusal: too much, or too slow.
        """
        if self.is_whole:  # what comes now is the client's leaving
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {self._limits.body_s:g} s") from None
        if message["type"] == "http.request":
            self._arrived += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
            if self._arrived > self._limits.upload_bytes:
                raise _too_large(self._limits)
        return message


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the body is larger than {limits.upload_bytes / 2**20:g} MiB")
