"""What a server is told before it starts: which index, at which address, and how much it lets itself be asked."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass, field, fields
from pathlib import Path

from pocketclip.data.picture import MAX_PIXELS

LEAST_TOKEN = 8
"""Characters of a token that is given by hand."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server lets itself be asked. All must be above 0.

    Attributes:
        upload_bytes: of a request's body.
        upload_px: pixels that an uploaded picture's header may claim; it is refused before decoding.
        body_s: seconds in which a body must have arrived.
        header_s: seconds in which a request's head must have arrived.
        answer_s: seconds after which an answer is given up.
        credits: that a client starts with; a thumbnail costs 1, a search 10, an upload 30 (see `limits.cost`).
        credits_per_s: that it gets back.
        streams: clients that follow `/api/events` at the same time.
        waiting: searches that may wait for a thread.
        connections: open at the same time.
    """

    upload_bytes: int = 32 * 2**20
    upload_px: int = MAX_PIXELS
    body_s: float = 30
    header_s: float = 10
    answer_s: float = 30
    credits: float = 3000
    credits_per_s: float = 600
    streams: int = 32
    waiting: int = 64
    connections: int = 256

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ValueError(f"{limit.name} is {getattr(self, limit.name)}: it must be above 0")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What to serve, and where.

    Attributes:
        index: folder written by `pocketclip index`.
        model: the exported model; None takes the one that the index remembers.
        host: address to bind to.
        port: 0 for any that is free.
        token: that clients must show; None for none, which is refused outside of this machine.
        names: further names under which browsers may reach the server, behind a proxy for instance.
        threads: of the network; None for one per core.
        watch: look after the index's folders beside serving.
        limits: how much it lets itself be asked.

    Raises:
        ValueError: a port or a token that cannot be used, or no token where others reach the server.
    """

    index: Path
    model: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    names: tuple[str, ...] = ()
    threads: int | None = None
    watch: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"port is {self.port}: it must be between 0 and 65535")
        if self.token is not None:
            _check_token(self.token)
        elif not is_loopback(self.host):
            raise ValueError(f"host is {self.host}, which others can reach: give a token")

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)

    @property
    def hosts(self) -> frozenset[str]:
        """Names that a request's Host may have, besides literal addresses where the server is not private."""
        own = () if self.is_private else (socket.gethostname().lower(),)
        local = tuple(f"{name}.local" for name in own if "." not in name)
        return frozenset(
            ("localhost", "127.0.0.1", "::1", self.host.lower(), *own, *local, *map(str.lower, self.names))
        )

    def address(self, port: int | None = None) -> str:
        """What to open in a browser; with the token, where there is one."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        literal = f"[{host}]" if ":" in host else host
        return f"http://{literal}:{port or self.port}/" + (f"?token={self.token}" if self.token else "")


def made_up_token() -> str:
    """A token that nobody guesses: 192 random bits."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_literal(host: str) -> bool:
    """Whether a Host is an address and not a name: names can be made to point anywhere."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_token(token: str) -> None:
    if len(token) < LEAST_TOKEN:
        raise ValueError(
            f"the token has {len(token)} characters: take at least {LEAST_TOKEN}, or let one be made up"
        )
    if not _is_plain(token):
        raise ValueError("the token must consist of letters, digits and -._~ only: it is part of an address")


def _is_plain(token: str) -> bool:
    return all(character.isascii() and (character.isalnum() or character in "-._~") for character in token)
