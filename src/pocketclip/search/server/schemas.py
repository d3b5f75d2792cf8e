"""What goes in and out, as OpenAPI says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

KindName = Literal["picture", "raw", "video"]
ItemId = Annotated[int, Field(ge=1, le=2**63 - 1)]

_NUMBER = r"-?\d{1,6}(\.\d{1,12})?"
_FRACTION = r"(0|1|[01]\.\d{1,12})"
_TIME = r"^\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?$"
_MOST_BYTES = 2**53


class Where(BaseModel):
    """Which items may be found."""

    model_config = ConfigDict(extra="forbid")

    taken_from: str | None = Field(None, pattern=_TIME, description="Earliest time", examples=["2024-05"])
    taken_to: str | None = Field(
        None, pattern=_TIME, description="Latest time, whole: 2024 is till the end of that year"
    )
    folder: str | None = Field(
        None,
        max_length=4096,
        description="Only items of this folder and those below it; only compared, never opened",
    )
    min_px: int | None = Field(None, ge=0, le=10**6, description="Least length of the shorter side")
    max_px: int | None = Field(None, ge=0, le=10**6, description="Greatest length of the shorter side")
    min_bytes: int | None = Field(None, ge=0, le=_MOST_BYTES, description="Least size of the file")
    max_bytes: int | None = Field(None, ge=0, le=_MOST_BYTES, description="Greatest size of the file")
    kind: list[KindName] = Field([], max_length=3, description="Only these kinds")
    tag: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        [], max_length=20, description="Only items with all of these tags"
    )
    near: str | None = Field(
        None,
        pattern=rf"^{_NUMBER},{_NUMBER},{_NUMBER}$",
        description="LATITUDE,LONGITUDE,KM: only items taken around that place",
        examples=["48.137,11.575,10"],
    )


class SearchQuery(Where):
    """What to look for: words, an item of the index, or both; the picture of a POST counts as well."""

    q: str = Field(
        "", max_length=1000, description='Words; `beach -people` excludes, `"..."` keeps words together'
    )
    like: ItemId | None = Field(None, description="Number of an item to find the like of")
    crop: str | None = Field(
        None,
        pattern=rf"^{_FRACTION},{_FRACTION},{_FRACTION},{_FRACTION}$",
        description="LEFT,TOP,RIGHT,BOTTOM of the part that counts of the picture or the item, as fractions",
        examples=["0.1,0.2,0.6,0.9"],
    )
    text_weight: float = Field(
        0.5, ge=0, le=1, description="Of the words against the picture, where both are given"
    )
    min_score: Literal["auto"] | Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = Field(
        None, description="Least cosine; `auto` works out where matches end"
    )
    quick: bool = Field(
        False,
        description="Take the words as they are, not in several sentences: half the time, a little less exact",
    )
    unique: bool = Field(False, description="Of near-duplicates only the nearest")
    k: int = Field(60, ge=1, le=500, description="Most hits")
    offset: int = Field(0, ge=0, le=20_000, description="Hits that are left out at the front")


class ItemsQuery(Where):
    """Which items to list."""

    after: ItemId | None = Field(None, description="Number of the last item of the page before")
    limit: int = Field(100, ge=1, le=500, description="Most items")
    order: Literal["newest", "added"] = Field(
        "newest", description="By time, the latest first; or as they came into the index, the last first"
    )


class Item(BaseModel):
    """A searchable picture: a still, or a moment of a video."""

    id: int = Field(description="Stays the same while the content is in the index, and is never used again")
    name: str = Field(examples=["IMG_2024.jpg"])
    folder: str = Field(description="Below the folder that was indexed", examples=["2024/summer"])
    kind: KindName
    width: int = Field(description="Pixels, upright")
    height: int = Field(description="Pixels, upright")
    at_s: float | None = Field(description="Seconds from the start of the video")
    taken: str | None = Field(description="Local time, ISO 8601", examples=["2024-05-01T12:00:00"])
    thumbnail: str = Field(
        description="Address of a JPEG, longest side 320 at most", examples=["/api/items/7/thumbnail"]
    )
    caption: str | None = None


class HitItem(Item):
    """An item that was found."""

    rank: int = Field(description="1 for the nearest")
    score: float = Field(description="Cosine with the query")


class SearchAnswer(BaseModel):
    """What was found, nearest first."""

    hits: list[HitItem]
    offset: int
    threshold: float | None = Field(description="Least score of a hit, where one was asked for")
    num_candidates: int = Field(description="Items that the conditions let through")
    nothing: bool = Field(description="Nothing in the index matches")
    seconds: float
    generation: int = Field(description="State of the index; grows with every change")


class Tag(BaseModel):
    """A word for an item, and how well it fits."""

    tag: str
    score: float


class ItemDetails(Item):
    """All that the index knows of an item."""

    num_bytes: int
    sha256: str
    modified: str = Field(description="Of the file, UTC, ISO 8601")
    latitude: float | None
    longitude: float | None
    places: list[str] = Field(description="Every file that holds it; for people to read")
    tags: list[Tag]
    file: str = Field(description="Address of the original, or of a JPEG of it where browsers cannot show it")
    is_converted: bool = Field(description="`file` gives a JPEG made from the original")
    media_type: str = Field(description="Of `file`", examples=["image/jpeg"])


class Items(BaseModel):
    """A page of items."""

    items: list[Item]
    total: int = Field(description="Items that the conditions let through")
    generation: int


class TagCount(BaseModel):
    """A tag and how many items have it."""

    tag: str
    num_items: int


class Filters(BaseModel):
    """What can be filtered by."""

    folders: list[str] = Field(description="At most 2,000")
    kinds: list[KindName]
    tags: list[TagCount] = Field(description="The most frequent first, at most 500")
    taken_from: str | None = Field(description="Time of the earliest item")
    taken_to: str | None = Field(description="Time of the latest item")


class Status(BaseModel):
    """How the index is doing. `/api/events` sends one of these with every change, as event `status`."""

    name: str = Field(description="Of the index", examples=["photos.index"])
    num_items: int
    num_skipped: int = Field(description="Files that could not be used")
    generation: int = Field(description="Grows with every change")
    is_indexing: bool = Field(description="Changed within the last seconds")
    items_per_s: float = Field(description="That came in lately")
    newest_id: int = Field(description="Of the item that came last; 0 where there is none")
    is_watching: bool = Field(description="The server looks after the folders")
    watch_problem: str | None = Field(description="Why it does not any more")


class SkippedFile(BaseModel):
    """A file that is not in the index."""

    name: str
    reason: str


class SkippedFiles(BaseModel):
    """The files that could not be used."""

    skipped: list[SkippedFile]
    total: int


class Group(BaseModel):
    """Items that belong together."""

    title: str
    items: list[HitItem] = Field(
        description="At most 100; `score` is the cosine with the middle of the group"
    )
    num_items: int


class Groups(BaseModel):
    """Groups of items, the largest first."""

    groups: list[Group]
    generation: int


class Outliers(BaseModel):
    """Items unlike all others, the strangest first."""

    items: list[HitItem]
    generation: int


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"
