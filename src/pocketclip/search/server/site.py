"""What the routes share: one server's configuration, its index, its threads, its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from pocketclip.search.server.answers import Answers
from pocketclip.search.server.bulletin import Bulletin
from pocketclip.search.server.config import ServerConfig
from pocketclip.search.server.metrics import Meters
from pocketclip.search.server.overviews import Overviews
from pocketclip.search.server.page import Asset
from pocketclip.search.server.problems import Problem
from pocketclip.search.server.shown import Originals
from pocketclip.search.server.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Site:
    """One server."""

    config: ServerConfig
    answers: Answers
    overviews: Overviews
    originals: Originals
    workers: Workers
    meters: Meters
    bulletin: Bulletin
    page: Mapping[str, Asset]


async def _site(request: Request) -> Site:
    return request.app.state.site


Here = Annotated[Site, Depends(_site)]
"""The server that a route belongs to."""

PROBLEMS: dict[int | str, dict[str, object]] = {
    "4XX": {"model": Problem, "description": "What is wrong, in one sentence"},
    "5XX": {"model": Problem, "description": "Too much at once, or the index cannot be read"},
}
"""Answers of every route besides its own."""
