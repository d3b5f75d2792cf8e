"""Pictures of a set, read, decoded and resized by threads, in order, and embedded by every model at once.

N: pictures that could be read, B: batch, D: embedding.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketclip.data.index import Dropped
from pocketclip.data.picture import PictureError, decode
from pocketclip.data.preprocess import Preprocess
from pocketclip.evaluate.embedder import Embedder, PixelEmbedder, shape_of
from pocketclip.evaluate.sets.item import PictureSet

Shape = tuple[int, str]
_AHEAD = 3
"""Batches that are being decoded while one is embedded."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A picture as the models want it.

    Attributes:
        row: of the set.
        image: RGB; None where every model takes pixels.
        pixels: size and interpolation -> uint8 [H, W, 3].
    """

    row: int
    image: Image.Image | None
    pixels: Mapping[Shape, NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What models made of rows of a set.

    Attributes:
        rows: int64 [N], which pictures could be read, in order.
        images: name of the model -> float32 [N, D], unit norm.
        dropped: the others, and why.
    """

    rows: NDArray[np.int64]
    images: Mapping[str, NDArray[np.float32]]
    dropped: tuple[Dropped, ...]


def default_threads() -> int:
    """Threads that decode: as many as there are processors for this process, at most 16."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, available)


def embed_rows(
    embedders: Mapping[str, Embedder],
    pictures: PictureSet,
    rows: Sequence[int],
    *,
    batch_size: int,
    threads: int,
    progress: Callable[[int], object] = lambda num_rows: None,
) -> Embedded:
    """Embeds pictures of a set with every model; each is read, decoded and resized once for all of them.

    Args:
        embedders: name -> model.
        pictures: the set.
        rows: which of its items, in order.
        batch_size: rows a run of a network; those that cannot be read make a run smaller.
        threads: that read and decode.
        progress: called with the number of rows that are done, batch by batch.

    Raises:
        ValueError: a model cannot embed a picture.
        OSError: the set cannot be read.
    """
    shapes = {
        shape_of(e.preprocess): e.preprocess for e in embedders.values() if isinstance(e, PixelEmbedder)
    }
    whole = any(not isinstance(e, PixelEmbedder) for e in embedders.values())
    kept: list[int] = []
    dropped: list[Dropped] = []
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in embedders}
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        found = _in_order(pool, pictures, rows, shapes=shapes, whole=whole, ahead=_AHEAD * batch_size)
        while block := list(islice(found, batch_size)):
            batch = [picture for picture in block if isinstance(picture, Decoded)]
            dropped += [picture for picture in block if isinstance(picture, Dropped)]
            kept += [picture.row for picture in batch]
            for name, embedder in embedders.items():
                if batch:
                    parts[name].append(_embed(embedder, batch))
            progress(len(block))
    return Embedded(
        rows=np.array(kept, dtype=np.int64),
        images={name: np.concatenate(p) if p else np.empty((0, 0), np.float32) for name, p in parts.items()},
        dropped=tuple(dropped),
    )


def read_pixels(
    pictures: PictureSet, rows: Sequence[int], *, preprocess: Preprocess, threads: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8], tuple[Dropped, ...]]:
    """Pixels of rows of a set, all in memory.

    Returns:
        int64 [N] rows that could be read, uint8 [N, H, W, 3], and why the others could not.
    """
    shapes = {shape_of(preprocess): preprocess}
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        found = list(_in_order(pool, pictures, rows, shapes=shapes, whole=False, ahead=4 * threads))
    kept = [picture for picture in found if isinstance(picture, Decoded)]
    blank = np.empty((0, preprocess.size, preprocess.size, 3), dtype=np.uint8)
    return (
        np.array([picture.row for picture in kept], dtype=np.int64),
        np.stack([picture.pixels[shape_of(preprocess)] for picture in kept]) if kept else blank,
        tuple(picture for picture in found if isinstance(picture, Dropped)),
    )


def _embed(embedder: Embedder, batch: Sequence[Decoded]) -> NDArray[np.float32]:
    if isinstance(embedder, PixelEmbedder):
        shape = shape_of(embedder.preprocess)
        return embedder.embed_pixels(np.stack([picture.pixels[shape] for picture in batch]))
    images = [picture.image for picture in batch if picture.image is not None]
    return np.asarray(embedder.embed_images(images), dtype=np.float32)


def _in_order(
    pool: ThreadPoolExecutor,
    pictures: PictureSet,
    rows: Sequence[int],
    *,
    shapes: Mapping[Shape, Preprocess],
    whole: bool,
    ahead: int,
) -> Iterator[Decoded | Dropped]:
    """Pictures in the order of the rows, `ahead` of them under way."""
    waiting: deque[Future[Decoded | Dropped]] = deque()
    coming = iter(rows)
    for row in islice(coming, ahead):
        waiting.append(pool.submit(_decode, pictures, row, shapes=shapes, whole=whole))
    while waiting:
        found = waiting.popleft().result()
        row = next(coming, None)
        if row is not None:
            waiting.append(pool.submit(_decode, pictures, row, shapes=shapes, whole=whole))
        yield found


def _decode(
    pictures: PictureSet, row: int, *, shapes: Mapping[Shape, Preprocess], whole: bool
) -> Decoded | Dropped:
    source = pictures.items[row].source
    try:
        image = decode(pictures.picture(row), name=source)
    except PictureError as error:
        return Dropped(source=source, reason=str(error))
    pixels = {shape: preprocess.pixels(image) for shape, preprocess in shapes.items()}
    return Decoded(row=row, image=image if whole else None, pixels=pixels)
