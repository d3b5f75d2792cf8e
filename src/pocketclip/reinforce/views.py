"""Pictures of a unit become batches of views, ahead of the teachers, in groups of samples.

What comes out depends on the unit and the request alone: a batch ends where it is full or where its group ends, and who
decoded what does not matter.
"""

# Shape suffixes: A views of a sample, P parameters of a view, B rows of a batch.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pocketclip.data.augment import AugmentSpec, apply, draw, pack, seeded
from pocketclip.data.codec import Codec
from pocketclip.data.foreign.candidate import Candidate, admit
from pocketclip.data.index import Dropped
from pocketclip.data.picture import decode
from pocketclip.data.sample import Sample
from pocketclip.engine.units import Item

_CAPTIONED = 32  # pictures that captioners see at once


@dataclass(frozen=True, kw_only=True)
class ShardRequest:
    """What to do to a unit.

    Attributes:
        num_views: augmentations of each picture.
        augment: what they are drawn from.
        codec: how embeddings are stored.
        seed: of the views.
        batch_size: rows a teacher sees at once, and samples in memory at once.
        config_digest: recorded in the shard.
        num_loaders: threads that decode and augment; the bytes do not depend on it.
    """

    num_views: int
    augment: AugmentSpec
    codec: Codec
    seed: int
    batch_size: int
    config_digest: str
    num_loaders: int = 2


# What the threads hand over, in this order for each group of samples: its pictures, its views, its end.


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A sample with its views."""

    source: str  # names it where it is dropped
    sample: Sample
    params_AP: np.ndarray
    pixels: dict[int, np.ndarray]  # by side in pixels: uint8 [A, side, side, 3]
    image: Image.Image | None  # where captioners want it


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Some pictures for the captioners."""

    keys: list[str]
    images: list[Image.Image]


@dataclass(frozen=True, kw_only=True)
class Views:
    """A batch of views, rows in the order of samples and views: uint8 [B, side, side, 3] by side in pixels."""

    pixels: dict[int, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class GroupEnd:
    """The samples whose pictures and views came before, without either."""

    drawn: list[Drawn]
    dropped: list[Dropped]
    num_items: int


def draw_views(
    item: Item, *, sizes: Sequence[int], request: ShardRequest, captioned: bool
) -> Drawn | Dropped:
    """Draws once; every teacher sees the same views, each at its own size."""
    if isinstance(item, Dropped):
        return item
    source = item.source if isinstance(item, Candidate) else item.key
    try:
        sample = admit(item) if isinstance(item, Candidate) else item
        if isinstance(sample, Dropped):
            return sample
        image = decode(sample.image, name=sample.key)
    except ValueError as error:
        return Dropped(source=source, reason=str(error))
    rng = seeded(request.seed, "reinforce", sample.key)
    views = [
        draw(rng, width=image.width, height=image.height, spec=request.augment)
        for _ in range(request.num_views)
    ]
    return Drawn(
        source=source,
        sample=sample,
        params_AP=np.stack([pack(view) for view in views]),
        pixels={
            size: np.stack(
                [np.asarray(apply(image, view, size=size, spec=request.augment)) for view in views]
            )
            for size in sizes
        },
        image=image if captioned else None,
    )


def messages(
    drawn: Iterable[Drawn | Dropped], *, sizes: Sequence[int], request: ShardRequest
) -> Iterator[Pictures | Views | GroupEnd]:
    """Sorts samples into groups, their pictures and views into batches; drops the second of two equal keys."""
    keys: set[str] = set()
    group: list[Drawn] = []
    pictures: list[Drawn] = []
    dropped: list[Dropped] = []
    batch = _Batch(sizes, size=request.batch_size)
    num_items = 0

    def end() -> Iterator[Pictures | Views | GroupEnd]:
        nonlocal group, pictures, dropped, num_items
        if pictures:
            yield _pictures(pictures)
        if batch:
            yield batch.taken()
        yield GroupEnd(drawn=group, dropped=dropped, num_items=num_items)
        group, pictures, dropped, num_items = [], [], [], 0

    for one in drawn:
        num_items += 1
        if isinstance(one, Dropped):
            dropped.append(one)
            continue
        if one.sample.key in keys:
            reason = f"another sample of this shard already has the key {one.sample.key}"
            dropped.append(Dropped(source=one.source, reason=reason))
            continue
        keys.add(one.sample.key)
        group.append(replace(one, pixels={}, image=None))
        if one.image is not None:
            pictures.append(one)
            if len(pictures) == _CAPTIONED:
                yield _pictures(pictures)
                pictures = []
        for start in range(request.num_views):
            if batch.add({size: one.pixels[size][start] for size in sizes}):
                yield batch.taken()
        if len(group) == request.batch_size:
            yield from end()
    if num_items:
        yield from end()


def _pictures(drawn: Sequence[Drawn]) -> Pictures:
    return Pictures(
        keys=[one.sample.key for one in drawn], images=[one.image for one in drawn if one.image is not None]
    )


class _Batch:
    """Views on their way to a batch, copied once."""

    def __init__(self, sizes: Sequence[int], *, size: int) -> None:
        self._sizes = sizes
        self._size = size
        self._start()

    def __len__(self) -> int:
        return self._filled

    def add(self, view: Mapping[int, np.ndarray]) -> bool:
        """Takes a view, uint8 [side, side, 3] by side; True when the batch is full."""
        for size, pixels in self._pixels.items():
            pixels[self._filled] = view[size]
        self._filled += 1
        return self._filled == self._size

    def taken(self) -> Views:
        """The batch; the next one begins."""
        taken = Views(pixels={size: pixels[: self._filled] for size, pixels in self._pixels.items()})
        self._start()
        return taken

    def _start(self) -> None:
        self._filled = 0
        self._pixels = {side: np.empty((self._size, side, side, 3), np.uint8) for side in self._sizes}
