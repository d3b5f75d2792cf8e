"""`pocketclip serve`: the index in a browser, and for programs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome

_TOKEN = "POCKETCLIP_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Search an index in the browser.

    Prints an address; open it. Only this machine reaches the server unless --host says otherwise, and then a token is
    asked for: it is part of the address that is printed. Programs find the interface described at /api.

    Examples:
        pocketclip serve
        pocketclip serve photos.index --watch
        pocketclip serve photos.index --host 0.0.0.0 --port 8080
        POCKETCLIP_TOKEN=correct-horse-battery pocketclip serve photos.index --host 0.0.0.0    (no token in `ps`)
    """

    index: Annotated[
        Positional[Path | None], arg(help_behavior_hint="(default: $POCKETCLIP_INDEX, or your data folder)")
    ] = None
    """Folder written by `pocketclip index`."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for all of this machine's."""
    port: int = 8765
    """Port; 0 for any that is free."""
    token: Annotated[
        str | None,
        arg(help_behavior_hint="(default: $POCKETCLIP_TOKEN; made up where others reach the server)"),
    ] = None
    """What clients must show."""
    name: Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: none)")] = ()
    """Further names of this machine that browsers may use, behind a proxy for instance."""
    watch: bool = False
    """Look after the folders of the index meanwhile: new pictures appear by themselves."""
    model: Annotated[Path | None, arg(help_behavior_hint="(default: as the index remembers)")] = None
    """The exported model, if it was moved."""
    threads: Annotated[int | None, arg(help_behavior_hint="(default: one a core)")] = None
    """Of the network."""
    max_upload_mb: float = 32
    """Largest picture that may be sent, MiB."""
    rate: float = 600
    """Credits a second that each client gets back; a thumbnail costs 1, a search 10, an upload 30."""
    json: bool = False
    """Print JSON when it ends."""

    def run(self) -> Outcome:
        """Serves until it is interrupted."""
        require("serve", ("serve",))
        from pocketclip.search.schema import default_index
        from pocketclip.search.server import Limits, ServerConfig, made_up_token, serve
        from pocketclip.search.server.config import is_loopback

        index = self.index or default_index()
        token = self.token or os.environ.get(_TOKEN) or None
        if token is None and not is_loopback(self.host):
            token = made_up_token()
        config = ServerConfig(
            index=index,
            model=self.model,
            host=self.host,
            port=self.port,
            token=token,
            names=self.name,
            threads=self.threads,
            watch=self.watch,
            limits=Limits(
                upload_bytes=int(self.max_upload_mb * 2**20), credits_per_s=self.rate, credits=5 * self.rate
            ),
        )
        serve(config, announce=lambda address: _announce(index, address))
        return Outcome("", {"index": str(index)})


def _announce(index: Path, address: str) -> None:
    print(f"{index} is served at {address}\nCtrl-C ends it.", file=sys.stderr, flush=True)
