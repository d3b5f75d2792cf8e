"""The application: guards around routes, and every failure as one sentence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pocketclip.search.query import SearchIndex
from pocketclip.search.server import routes_items, routes_search, routes_site
from pocketclip.search.server.answers import UNREADABLE, Answers
from pocketclip.search.server.bulletin import Bulletin
from pocketclip.search.server.config import ServerConfig
from pocketclip.search.server.limits import BodyLimit, Buckets, RateLimit
from pocketclip.search.server.metrics import Measured, Meters
from pocketclip.search.server.overviews import Overviews
from pocketclip.search.server.page import assets
from pocketclip.search.server.problems import problem_body
from pocketclip.search.server.security import OwnSite, SafeHeaders, Token
from pocketclip.search.server.shown import Originals
from pocketclip.search.server.site import Site
from pocketclip.search.server.watching import Watcher
from pocketclip.search.server.workers import Workers

_DESCRIPTION = """Search pictures by words and by pictures.

Where a token is needed, send it as `Authorization: Bearer TOKEN`. Failures are a `Problem`: a status and one sentence.
Each client has credits that come back with time; 429 says in `Retry-After` how long to wait."""

_BARE = ("Not Found", "Method Not Allowed")
_NOT_THERE = {404: "there is nothing at this address", 405: "this address takes other methods only"}


def create_app(config: ServerConfig) -> FastAPI:
    """A server's application, for any ASGI server; `serve` runs it.

    Args:
        config: what to serve.

    Raises:
        FileNotFoundError: there is no such index, or its model is not there.
        ValueError: the index or the model cannot be used.
    """
    index = SearchIndex(config.index, model=config.model, threads=config.threads)
    _ = index.model  # a model that is missing is said now, not at the first search
    watcher = Watcher(config.index, model=config.model) if config.watch else None
    reader = index.reader
    meters = Meters(num_items=reader.__len__, generation=reader.generation)
    site = Site(
        config=config,
        answers=Answers(index),
        overviews=Overviews(index),
        originals=Originals(reader),
        workers=Workers(config.limits),
        meters=meters,
        bulletin=Bulletin(reader, name=config.index.name, streams=config.limits.streams, watcher=watcher),
        page=assets(),
    )
    meters.streams.set_function(lambda: site.bulletin.num_streams)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        if watcher:
            watcher.start()
        looking = asyncio.create_task(site.bulletin.keep_looking())
        threading.Thread(target=site.answers.warm_up, name="warm-up", daemon=True).start()
        try:
            yield
        finally:
            site.bulletin.end()
            site.overviews.close()
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            if watcher:
                watcher.stop()

    app = FastAPI(
        title="pocketclip",
        version=version("pocketclip"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/api/openapi.json",
        license_info={"name": "Apache-2.0"},
    )
    app.state.site = site
    for router in (routes_site.router, routes_search.router, routes_items.router):
        app.include_router(router)
    _guard(app, config=config, meters=meters)
    _say_what_is_wrong(app)
    return app


def _guard(app: FastAPI, *, config: ServerConfig, meters: Meters) -> None:
    """The innermost first: what is added last sees a request first."""
    limits = config.limits
    buckets = Buckets(most=limits.credits, per_s=limits.credits_per_s)
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(Token, config=config, buckets=buckets)
    app.add_middleware(RateLimit, buckets=buckets)
    app.add_middleware(OwnSite, config=config)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Measured, meters=meters)


def _say_what_is_wrong(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        sentence = _NOT_THERE.get(error.status_code) if error.detail in _BARE else None
        return _problem(error.status_code, sentence or str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        return _problem(422, f"{field or first['loc'][0]}: {first['msg']}"[:500])

    async def unreadable(_: Request, error: Exception) -> Response:
        if isinstance(error, ValueError):  # a sentence already
            return _problem(503, str(error))
        return _problem(503, f"the index cannot be read ({type(error).__name__}): index the pictures again")

    for kind in (*UNREADABLE, ValueError):
        app.add_exception_handler(kind, unreadable)


def _problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        problem_body(status, message), status_code=status, media_type="application/json", headers=headers
    )
