"""Routes of one item: what is known of it, its thumbnail, the original."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse

from pocketclip.search.server.answers import printable
from pocketclip.search.server.schemas import ItemDetails, ItemId
from pocketclip.search.server.security import FILE_POLICY
from pocketclip.search.server.shown import how_shown, picture_type
from pocketclip.search.server.site import PROBLEMS, Here, Site

router = APIRouter(prefix="/api/items", responses=PROBLEMS, tags=["items"])

_FOR_GOOD = "private, max-age=31536000, immutable"
_AS_LONG_AS_IT_LASTS = "private, max-age=3600"

Number = Annotated[ItemId, Path(description="Number of the item")]
Version = Annotated[
    str | None, Query(max_length=64, description="Ignored; makes addresses differ by content")
]


@router.get("/{number}", summary="All about an item")
async def details(request: Request, here: Here, number: Number) -> ItemDetails:
    """What the index knows of it, and where it lies."""
    return await here.workers.run("file", partial(here.answers.details, number), request=request)


@router.get(
    "/{number}/thumbnail",
    summary="Thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def thumbnail(request: Request, here: Here, number: Number, v: Version = None) -> Response:
    """JPEG, longest side 320 pixels or less."""
    data = await here.workers.run("file", partial(here.answers.thumbnail, number), request=request)
    return Response(data, media_type="image/jpeg", headers={"cache-control": _FOR_GOOD})


@router.get(
    "/{number}/file",
    summary="The original, or a JPEG of it",
    response_class=Response,
    responses={
        200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
        206: {
            "description": "Part of a video",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def file(
    request: Request,
    here: Here,
    number: Number,
    v: Version = None,
    download: Annotated[bool, Query(description="The very file, to be saved")] = False,
) -> Response:
    """The original where browsers show it, a JPEG of it otherwise; videos in parts, as asked by `Range`.

    Only files that the index holds are ever read, and only while they are what was indexed: 410 otherwise.
    """
    return await here.workers.run("file", partial(_file, here, number, download=download), request=request)


def _file(here: Site, number: int, *, download: bool) -> Response:
    picture = here.answers.picture(number)
    shown = how_shown(picture)
    headers = {"content-security-policy": FILE_POLICY, "cache-control": _AS_LONG_AS_IT_LASTS}
    name = printable(picture.path.name if picture.key is None else picture.key)
    if picture.key is None and (picture.kind == "video" or download):
        path, state = here.originals.path(picture)
        return FileResponse(
            path,
            media_type="application/octet-stream" if download else shown.media_type,
            filename=name,
            content_disposition_type="attachment" if download else "inline",
            stat_result=state,
            headers=headers,
        )
    if download:
        headers["content-disposition"] = "attachment"
        return Response(here.originals.data(picture), media_type="application/octet-stream", headers=headers)
    if not shown.is_converted:
        data = here.originals.data(picture)
        media_type = picture_type(data[:16])
        if media_type is not None:
            return Response(data, media_type=media_type, headers=headers)
    data = here.originals.jpeg(picture)
    return Response(data, media_type="image/jpeg", headers=headers)
