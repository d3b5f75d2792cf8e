"""Who may ask at all: the right Host, no other site's page, the token; and what browsers may do with answers.

A page of another site can make a browser send requests to this machine, and a name of that site can be pointed at
127.0.0.1 (DNS rebinding) so that its scripts read the answers. Both are refused by what the browser says of itself:
Host must be a name of ours, Origin and Sec-Fetch-Site must not be another site's.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocketclip.search.server.config import ServerConfig, is_literal
from pocketclip.search.server.limits import WRONG_TOKEN_COST, Buckets, client_of
from pocketclip.search.server.problems import Refusal, refuse

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
"""What the page may load: its own files; no text is ever made into script."""

FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""What a picture may do that is opened by itself: nothing (browsers style their own view of it)."""

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    b"content-security-policy": PAGE_POLICY.encode(),
    b"cache-control": b"no-store",
}
_COOKIE_S = 30 * 24 * 3600
_SEEN = b"""<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=./">
<title>pocketclip</title><p><a href="./">Go on to your pictures</a></p></html>"""
_UNKNOWN = b"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>pocketclip</title><h1>A token is needed</h1>
<p>Open the address that <code>pocketclip serve</code> printed: it ends with <code>?token=</code> and the token.</p>
</html>"""


class SafeHeaders:
    """Adds the headers that keep browsers from doing more than they should; a route's own come first."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds what is not there."""

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message = {
                    **message,
                    "headers": given
                    + [(name, value) for name, value in _HEADERS.items() if name not in names],
                }
            await send(message)

        await self._app(scope, receive, safe)


class OwnSite:
    """Refuses requests that name another host, or that another site's page makes."""

    def __init__(self, app: ASGIApp, *, config: ServerConfig) -> None:
        self._app = app
        self._hosts = config.hosts
        self._literals = not config.is_private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Looks at Host, Origin and Sec-Fetch-Site."""
        if scope["type"] == "http":
            headers = _headers(scope)
            host = _host_name(headers.get("host", ""))
            if not (host in self._hosts or (self._literals and is_literal(host))):
                sentence = "this server does not go by that name: use its address, or start it with --name"
                await refuse(send, Refusal(421, sentence))
                return
            if _is_foreign(scope, headers):
                await refuse(send, Refusal(403, "pages of other sites may not ask this server"))
                return
        await self._app(scope, receive, send)


class Token:
    """Lets in who shows the token: in the Authorization header, in a cookie, or once in the page's address."""

    def __init__(self, app: ASGIApp, *, config: ServerConfig, buckets: Buckets) -> None:
        self._app = app
        self._token = config.token
        self._cookie = f"pocketclip-{config.port}"
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Looks for the token."""
        if self._token is None or scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        if scope["path"] == "/" and scope["method"] == "GET" and self._is_right(_asked(scope)):
            await _send_page(send, 200, _SEEN, cookie=f"{self._cookie}={self._token}")
        elif self._is_right(_bearer(headers)) or self._is_right(_cookie(headers, self._cookie)):
            await self._app(scope, receive, send)
        else:
            if _asked(scope) or _bearer(headers) or _cookie(headers, self._cookie):
                self._buckets.take(client_of(scope), WRONG_TOKEN_COST)
            if "text/html" in headers.get("accept", ""):
                await _send_page(send, 401, _UNKNOWN)
                return
            sentence = "a token is needed: send it as `Authorization: Bearer TOKEN`"
            await refuse(send, Refusal(401, sentence, headers={"www-authenticate": "Bearer"}))

    def _is_right(self, shown: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(shown.encode(), self._token.encode())


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _host_name(host: str) -> str:
    """`Host` without its port; empty where it is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_foreign(scope: Scope, headers: dict[str, str]) -> bool:
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return True
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    opens_the_page = (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )
    return not (opens_the_page and scope["method"] == "GET" and scope["path"] == "/")


def _asked(scope: Scope) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]


def _bearer(headers: dict[str, str]) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _cookie(headers: dict[str, str], name: str) -> str:
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


async def _send_page(send: Send, status: int, body: bytes, *, cookie: str | None = None) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if cookie is not None:
        settings = f"; Path=/; Max-Age={_COOKIE_S}; HttpOnly; SameSite=Strict"
        headers.append((b"set-cookie", (cookie + settings).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
