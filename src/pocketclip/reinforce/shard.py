"""The unit of reinforcement: a pure function of one shard and a configuration."""

# Shape suffixes: N samples, A views of each, P parameters of a view, T captions, D dimensions of an embedding.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from pocketclip.data.augment import Augmentation, AugmentSpec, apply, draw, pack, seeded
from pocketclip.data.codec import Codec
from pocketclip.data.picture import decode
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, pack_reinforcement
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardEntry, ShardReader, write_shard
from pocketclip.reinforce.teacher import Teacher

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ShardRequest:
    """What to do to a shard.

    Attributes:
        num_views: augmentations of each picture.
        augment: what they are drawn from.
        codec: how embeddings are stored.
        seed: of the views.
        batch_size: rows a teacher sees at once.
        config_digest: recorded in the shard.
    """

    num_views: int
    augment: AugmentSpec
    codec: Codec
    seed: int
    batch_size: int
    config_digest: str


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    sample: Sample
    views: tuple[Augmentation, ...]
    pixels: dict[int, np.ndarray]  # by side in pixels: uint8 [A, side, side, 3]


def reinforce_shard(
    shard: Path,
    out: Path,
    *,
    teachers: Sequence[Teacher],
    request: ShardRequest,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[ShardEntry | None, dict[str, str]]:
    """Writes `out`: the samples of `shard` and their reinforcement.

    A sample enters whole or not at all. The same shard, teachers and request give the same bytes.

    Args:
        shard: the input.
        out: the output, named after it.
        teachers: the ensemble, in the order of the configuration.
        request: the rest of the configuration.
        progress: called with the number of samples done since the last call.

    Returns:
        The output's entry, and the samples that could not be reinforced, key -> reason. The entry is None, and nothing
        was written, when no sample could.

    Raises:
        ValueError: the shard is damaged, or a teacher's embeddings are not finite.
        PublishError: `out` cannot be written.
    """
    seen = _embed_views(shard, teachers=teachers, request=request, progress=progress)
    if not seen.samples:
        return None, seen.dropped
    block = pack_reinforcement(
        config_digest=request.config_digest,
        input_sha256=sha256_file(shard),
        augment=request.augment,
        codec=request.codec,
        params_NAP=np.stack(seen.params),
        text_counts=[len(sample.texts()) for sample in seen.samples],
        teachers=[
            (teacher.record, _embeddings(teacher, images, samples=seen.samples, shard=shard, request=request))
            for teacher, images in zip(teachers, seen.images, strict=True)
        ],
        dropped=seen.dropped,
    )
    return write_shard(out, seen.samples, blocks={BLOCK_NAME: block}), seen.dropped


@dataclass(kw_only=True)
class _Seen:
    """What the teachers saw of a shard, row by row."""

    samples: list[Sample]
    params: list[np.ndarray]  # int32 [A, P] of each sample
    images: list[list[np.ndarray]]  # of each teacher: float32 [rows, D] of each batch
    dropped: dict[str, str]


def _embed_views(
    shard: Path, *, teachers: Sequence[Teacher], request: ShardRequest, progress: Callable[[int], object]
) -> _Seen:
    """Draws the views of every sample and lets every teacher embed them."""
    seen = _Seen(samples=[], params=[], images=[[] for _ in teachers], dropped={})
    sizes = sorted({teacher.image_px for teacher in teachers})
    chunk_size = max(1, request.batch_size // request.num_views)
    with ShardReader(shard) as reader, ThreadPoolExecutor(2, thread_name_prefix="views") as pool:

        def work(row: int) -> _Drawn | str:
            try:
                return _draw_views(reader[row], sizes=sizes, request=request)
            except ValueError as error:
                return str(error)

        # Chunks are cut before anything is dropped, so that a row's batch depends on the shard alone.
        for chunk in _chunks(range(len(reader)), size=chunk_size):
            drawn: list[_Drawn] = []
            for row, result in zip(chunk, pool.map(work, chunk), strict=True):
                if isinstance(result, str):
                    seen.dropped[reader.keys[row]] = result
                else:
                    drawn.append(result)
            seen.samples += [one.sample for one in drawn]
            seen.params += [np.stack([pack(view) for view in one.views]) for one in drawn]
            for teacher, images in zip(teachers if drawn else (), seen.images, strict=False):
                pixels_BHWC = np.concatenate([one.pixels[teacher.image_px] for one in drawn])
                for start in range(0, len(pixels_BHWC), request.batch_size):  # fewer than a picture's views
                    images.append(teacher.encode_image(pixels_BHWC[start : start + request.batch_size]))
            progress(len(chunk))
    return seen


def _draw_views(sample: Sample, *, sizes: Sequence[int], request: ShardRequest) -> _Drawn:
    """Draws once; every teacher sees the same views, each at its own size."""
    image = decode(sample.image, name=sample.key)
    rng = seeded(request.seed, "reinforce", sample.key)
    views = tuple(
        draw(rng, width=image.width, height=image.height, spec=request.augment)
        for _ in range(request.num_views)
    )
    pixels = {
        size: np.stack([np.asarray(apply(image, view, size=size, spec=request.augment)) for view in views])
        for size in sizes
    }
    return _Drawn(sample=sample, views=views, pixels=pixels)


def _embeddings(
    teacher: Teacher,
    images: Sequence[np.ndarray],
    *,
    samples: Sequence[Sample],
    shard: Path,
    request: ShardRequest,
) -> Embeddings:
    texts = [text for sample in samples for text in sample.texts()]
    text_TD = np.concatenate(
        [teacher.encode_text(chunk) for chunk in _chunks(texts, size=request.batch_size)]
    )
    image_ND = np.concatenate(images)
    if not (np.isfinite(image_ND).all() and np.isfinite(text_TD).all()):
        raise ValueError(
            f"teacher {teacher.record.name} gives embeddings that are not finite (first seen in {shard}): "
            "its weights have diverged; train it again"
        )
    return Embeddings(image_NAD=image_ND.reshape(len(samples), request.num_views, -1), text_TD=text_TD)


def _chunks(items: Sequence[T], *, size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
