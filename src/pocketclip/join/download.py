"""One picture over HTTP, with limits on everything that a stranger's server decides."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message

from pocketclip.join.config import DownloadConfig

_CHUNK = 1 << 16
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_FORBIDDING = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_LONGEST_WAIT_S = 60.0  # that a server may ask for


class DownloadError(Exception):
    """A picture that could not be had.

    Attributes:
        reason: one line.
        may_pass: whether another attempt may succeed.
        wait_s: that the server asks for before it, or None.
    """

    def __init__(self, reason: str, *, may_pass: bool, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_pass = may_pass
        self.wait_s = wait_s


def download(url: str, *, config: DownloadConfig) -> bytes:
    """Downloads a picture: http and https alone, redirects followed, what a site forbids machines left.

    Raises:
        DownloadError: no answer, another status than 200, too many bytes or too slow.
    """
    headers = {"User-Agent": config.user_agent, "Accept": "image/*,*/*;q=0.5"}
    deadline = time.monotonic() + 3 * config.timeout_s
    try:
        request = urllib.request.Request(_ascii(url), headers=headers)
        with _opener().open(request, timeout=config.timeout_s) as answer:
            _check_allowed(answer.headers)
            return _body(answer, deadline=deadline, config=config)
    except urllib.error.HTTPError as error:
        with error:
            raise DownloadError(
                f"HTTP {error.code}", may_pass=error.code in _MAY_PASS, wait_s=_asked_wait(error.headers)
            ) from None
    except urllib.error.URLError as error:
        raise _failed(error.reason if isinstance(error.reason, OSError) else error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _failed(error) from None
    except (ValueError, UnicodeError) as error:  # an address that is none
        raise DownloadError(f"the address cannot be used ({error})", may_pass=False) from None


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https and nothing else, wherever a redirect points."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _body(answer: http.client.HTTPResponse, *, deadline: float, config: DownloadConfig) -> bytes:
    too_large = DownloadError(f"more than {config.max_bytes:,} bytes", may_pass=False)
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > config.max_bytes:
        raise too_large
    parts: list[bytes] = []
    num_bytes = 0
    while part := answer.read1(_CHUNK):
        parts.append(part)
        num_bytes += len(part)
        if num_bytes > config.max_bytes:
            raise too_large
        if time.monotonic() > deadline:
            raise DownloadError(f"took longer than {3 * config.timeout_s:g} s", may_pass=True)
    if length.isdigit() and num_bytes < int(length):
        raise DownloadError("cut off", may_pass=True)
    return b"".join(parts)


def _check_allowed(headers: Message) -> None:
    for value in headers.get_all("X-Robots-Tag", []):
        agent, separator, directives = value.rpartition(":")
        words = {word.strip().casefold() for word in directives.split(",")}
        if words & _FORBIDDING and (not separator or agent.strip() in ("", "*")):
            raise DownloadError(f"the site forbids it (X-Robots-Tag {value.strip()})", may_pass=False)


def _failed(error: Exception) -> DownloadError:
    if isinstance(error, TimeoutError):
        return DownloadError("no answer in time", may_pass=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return DownloadError("the server's certificate is not valid", may_pass=False)
    if isinstance(error, socket.gaierror):
        return DownloadError("no such host", may_pass=error.errno == socket.EAI_AGAIN)
    if isinstance(error, http.client.IncompleteRead):
        return DownloadError("cut off", may_pass=True)
    if isinstance(error, http.client.InvalidURL):
        return DownloadError("the address cannot be used", may_pass=False)
    text = " ".join(str(error).split()) or type(error).__name__
    return DownloadError(f"the connection failed ({text})", may_pass=True)


def _asked_wait(headers: Message) -> float | None:
    text = headers.get("Retry-After", "")
    return min(float(text), _LONGEST_WAIT_S) if text.isdigit() else None


def _ascii(url: str) -> str:
    """An address as it may be sent: spaces and letters beyond ASCII escaped, a host beyond ASCII encoded."""
    parts = urllib.parse.urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not http or https")
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    safe = "%/:=&?~#+!$,;'@()*[]|"
    path, query = (urllib.parse.quote(part, safe=safe) for part in (parts.path, parts.query))
    return urllib.parse.urlunsplit((parts.scheme, host, path or "/", query, ""))
