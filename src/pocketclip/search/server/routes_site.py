"""Routes of the server itself: the page, health, status, events, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from pocketclip.search.server.bulletin import Bulletin
from pocketclip.search.server.problems import Refusal
from pocketclip.search.server.schemas import Health, Status
from pocketclip.search.server.site import PROBLEMS, Here, Site

router = APIRouter(responses=PROBLEMS, tags=["server"])


@router.get("/", include_in_schema=False)
async def page(request: Request, here: Here) -> Response:
    """The page."""
    return _asset(request, here, "index.html")


@router.get("/api", include_in_schema=False)
async def interface(request: Request, here: Here) -> Response:
    """The interface, to be read by people."""
    return _asset(request, here, "api.html")


@router.get("/page/{name}", include_in_schema=False)
async def asset(request: Request, here: Here, name: Annotated[str, Path()]) -> Response:
    """A file of the page."""
    return _asset(request, here, name)


@router.get("/health", summary="Whether the server answers")
async def health() -> Health:
    """Needs no token."""
    return Health()


@router.get("/api/status", summary="How the index is doing")
async def status(request: Request, here: Here) -> Status:
    """Size, changes, indexing."""
    return await here.workers.run("file", here.bulletin.look, request=request)


@router.get(
    "/api/events",
    summary="Changes of the index, as they happen",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(here: Here) -> StreamingResponse:
    """Server-sent events: `status`, with a `Status` as data, now and whenever it changes."""
    stream = _events(here.bulletin)
    first = await anext(stream)  # a refusal is an answer of its own, not a stream
    return StreamingResponse(_chained(first, stream), media_type="text/event-stream")


@router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
async def metrics(request: Request, here: Here) -> Response:
    """Requests, latencies, refusals, the size of the index."""
    text = await here.workers.run("file", here.meters.text, request=request)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _events(bulletin: Bulletin) -> AsyncIterator[bytes]:
    async for now in bulletin.follow():
        yield b": here\n\n" if now is None else f"event: status\ndata: {now.model_dump_json()}\n\n".encode()


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def _asset(request: Request, here: Site, name: str) -> Response:
    found = here.page.get(name)
    if found is None:
        raise Refusal(404, "there is no such file")
    headers = {"etag": found.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
