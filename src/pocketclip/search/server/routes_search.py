"""Routes that search and list."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, File, Query, Request, UploadFile
from PIL import Image

from pocketclip.search.server.problems import Refusal
from pocketclip.search.server.schemas import (
    Filters,
    Groups,
    Items,
    ItemsQuery,
    Outliers,
    SearchAnswer,
    SearchQuery,
    SkippedFiles,
)
from pocketclip.search.server.site import PROBLEMS, Here, Site
from pocketclip.search.server.uploads import read_upload

router = APIRouter(prefix="/api", responses=PROBLEMS, tags=["search"])


@router.get("/search", summary="Search by words, or by an item of the index")
async def search(request: Request, here: Here, asked: Annotated[SearchQuery, Query()]) -> SearchAnswer:
    """The nearest pictures to words (`q`), to an item (`like`), or to both."""
    work = partial(_search, here, asked, None)
    return await here.workers.run("search", work, request=request)


@router.post("/search", summary="Search by a picture")
async def search_by_picture(
    request: Request,
    here: Here,
    asked: Annotated[SearchQuery, Query()],
    picture: Annotated[UploadFile, File(description="JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, HEIC")],
) -> SearchAnswer:
    """The nearest pictures to a picture that is sent, and to words (`q`) where they are given too. Nothing is kept."""
    if asked.like is not None:
        raise Refusal(422, "send a picture or name an item to find the like of, and not both")
    data = await picture.read()
    return await here.workers.run("search", partial(_search, here, asked, data), request=request)


@router.get("/items", summary="Pictures, the latest first")
async def items(request: Request, here: Here, asked: Annotated[ItemsQuery, Query()]) -> Items:
    """A page of the index's items."""
    return await here.workers.run("file", partial(here.answers.items, asked), request=request)


@router.get("/filters", summary="What can be filtered by")
async def filters(request: Request, here: Here) -> Filters:
    """Folders, kinds, tags, and the range of dates."""
    return await here.workers.run("file", here.answers.filters, request=request)


@router.get("/skipped", summary="Files that could not be used")
async def skipped(request: Request, here: Here) -> SkippedFiles:
    """Name and reason of at most 1,000 of them."""
    return await here.workers.run("file", here.answers.skipped, request=request)


@router.get("/albums", summary="Albums of like pictures")
async def albums(request: Request, here: Here) -> Groups:
    """Every item is in one album; the largest album comes first, of each at most 100 items."""
    return await here.workers.run("whole", partial(here.overviews.groups, "albums"), request=request)


@router.get("/duplicates", summary="Near-duplicates")
async def duplicates(request: Request, here: Here) -> Groups:
    """Groups of pictures that are nearly the same, the largest group first."""
    return await here.workers.run("whole", partial(here.overviews.groups, "duplicates"), request=request)


@router.get("/outliers", summary="Pictures that are like no other")
async def outliers(request: Request, here: Here) -> Outliers:
    """The strangest first."""
    return await here.workers.run("whole", here.overviews.outliers, request=request)


def _search(here: Site, asked: SearchQuery, data: bytes | None) -> SearchAnswer:
    started = time.perf_counter()
    picture: Image.Image | None = None if data is None else read_upload(data, limits=here.config.limits)
    answer = here.answers.search(asked, picture)
    kind = "picture" if data is not None else "item" if asked.like is not None else "words"
    here.meters.search_seconds.labels(kind).observe(time.perf_counter() - started)
    return answer
