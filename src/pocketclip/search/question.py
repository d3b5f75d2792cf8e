"""A question to an index, and its answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pocketclip.search.filters import Filter
from pocketclip.search.phrases import parse
from pocketclip.search.results import clock

if TYPE_CHECKING:
    from PIL import Image

    from pocketclip.search.store import Picture


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to look for. At least one of text, image and like.

    Attributes:
        text: words. `beach -people` excludes, quotes keep a phrase together; see `phrases`.
        image: a picture to find the like of.
        like: id of an item of the index to find the like of; it is not among the hits itself.
        crop: part of the picture (or of the item): left, top, right, bottom as fractions of its width and height.
        text_weight: where a text and a picture are both given: 0 for the picture alone, 1 for the text alone.
        where: which pictures may be found.
        k: most hits.
        offset: hits that are left out at the front, for pages.
        min_score: hits below this cosine are left out; "auto" works out where the query's matches end.
        unique: of near-duplicates only the nearest is a hit.
        templates: sentences that a short phrase is put into; None takes those of `prompts.TEMPLATES` that the model
            understands, empty embeds texts bare.

    Raises:
        ValueError: a value that makes no sense, or nothing to look for.
    """

    text: str = ""
    image: Image.Image | None = None
    like: int | None = None
    crop: tuple[float, float, float, float] | None = None
    text_weight: float = 0.5
    where: Filter = field(default_factory=Filter)
    k: int = 50
    offset: int = 0
    min_score: float | Literal["auto"] | None = None
    unique: bool = False
    templates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}: ask for at least 1 picture")
        if self.offset < 0:
            raise ValueError(f"offset is {self.offset}: it must be at least 0")
        if not 0 <= self.text_weight <= 1:
            raise ValueError(f"text_weight is {self.text_weight}: it must be between 0 and 1")
        if isinstance(self.min_score, float) and not math.isfinite(self.min_score):
            raise ValueError(f"min_score is {self.min_score}: it must be a number, or auto")
        if self.image is not None and self.like is not None:
            raise ValueError("give a picture or an item of the index to find the like of, and not both")
        if self.image is None and self.like is None:
            if self.crop is not None:
                raise ValueError("crop is of a picture: give one, or an item of the index")
            if not parse(self.text).wanted:
                raise ValueError("the text to search for is empty: write what the picture shows")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(
                    f"crop is {self.crop}: left, top, right, bottom must be fractions of the picture, 0 to 1"
                )


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A picture that was found.

    Attributes:
        rank: 1 for the nearest.
        score: cosine with the query, -1 to 1.
        picture: what the index knows of it.
        load: gives the thumbnail of an item.
    """

    rank: int
    score: float
    picture: Picture
    load: Callable[[int], bytes] = field(repr=False, compare=False)

    @property
    def thumbnail(self) -> bytes:
        """JPEG, read when it is asked for."""
        return self.load(self.picture.id)

    @property
    def id(self) -> int:
        """Of the item in its index."""
        return self.picture.id

    @property
    def path(self) -> Path:
        """Where the picture lies, absolute; for packed folders the shard."""
        return self.picture.file

    @property
    def key(self) -> str | None:
        """Of the sample in the shard; None for a file."""
        return self.picture.key

    @property
    def caption(self) -> str | None:
        """Where the source has one."""
        return self.picture.caption

    @property
    def name(self) -> str:
        """Short: the sample's key or the file's name, and the moment of a video."""
        at_s = self.picture.at_s
        return self.picture.name if at_s is None else f"{self.picture.name} at {clock(at_s)}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer to a query.

    Attributes:
        hits: nearest first; pictures of equal score in the index's order.
        threshold: the least score of a hit; None where none was asked for.
        num_candidates: pictures that the filter let through.
        seconds: from question to answer.
        nothing: there is nothing in the index that matches: no candidates, or none that reaches the threshold.
    """

    hits: tuple[Hit, ...]
    threshold: float | None
    num_candidates: int
    seconds: float
    nothing: bool
