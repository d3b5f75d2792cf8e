"""Running the application until it is interrupted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pocketclip.search.server.app import create_app
from pocketclip.search.server.config import ServerConfig

_STOP_S = 3  # for answers that are on their way when the server stops
_LARGEST_HEAD = 64 * 1024
_BACKLOG = 512


def serve(config: ServerConfig, *, announce: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        config: what to serve, and where.
        announce: told the address once connections are taken.

    Raises:
        FileNotFoundError: there is no such index, or its model is not there.
        ValueError: the index or the model cannot be used.
        OSError: the address is taken, or not of this machine.
    """
    app = create_app(config)
    listening = _listen(config)
    settings = uvicorn.Config(
        app,
        http=_impatient(config.limits.header_s),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=config.limits.connections,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_STOP_S,
    )
    with listening:
        announce(config.address(listening.getsockname()[1]))
        _Server(settings, at_end=app.state.site.bulletin.end).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends the streams of events first, which would go on for ever."""

    def __init__(self, config: uvicorn.Config, *, at_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._at_end = at_end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets answers be finished, a second one does not; neither is passed on: this is the end."""
        self._at_end()
        self.force_exit = self.should_exit
        self.should_exit = True


def _impatient(header_s: float) -> type[H11Protocol]:
    """A protocol that hangs up on clients who begin a request's head and do not end it."""

    class Impatient(H11Protocol):
        _due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401  (uvicorn's signature)
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._wait_for_head()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            if self._due is None:
                self._due = self.loop.call_later(header_s, self._hang_up)

        def _stop_waiting(self) -> None:
            if self._due is not None:
                self._due.cancel()
                self._due = None

        def _hang_up(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Impatient


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((config.host, config.port))
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise OSError(
            f"cannot serve at {config.host} port {config.port} ({reason.lower()}): choose another --port or --host"
        ) from error
    listening.listen(_BACKLOG)  # whoever opens the address at once waits, and is not refused
    return listening
