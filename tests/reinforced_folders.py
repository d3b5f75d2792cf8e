"""Reinforced folders with random embeddings, made without a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pocketclip.data.augment import AugmentSpec, draw, pack, seeded
from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.picture import decode
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, TeacherRecord, pack_reinforcement
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardEntry, write_shard

TEACHERS = (
    TeacherRecord(name="a", embed_dim=24, logit_scale=50.0, digest="a"),
    TeacherRecord(name="b", embed_dim=40, logit_scale=70.0, digest="b"),
)


def unit(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Rows of length 1."""
    rows = generator.standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def write_reinforced_shard(
    path: Path,
    samples: Sequence[Sample],
    *,
    spec: AugmentSpec,
    codec: str = "fp32",
    num_views: int = 3,
    config_digest: str = "c",
    change: Callable[[np.ndarray, list[int], list[Embeddings]], None] = lambda *_: None,
    pictures: Sequence[Sample] | None = None,
) -> ShardEntry:
    """A shard; `change` may spoil parameters [N, A, P], text counts and embeddings first, `pictures` be others than
    those that the views are drawn for."""
    generator = np.random.default_rng(len(samples))
    images = [decode(sample.image, name=sample.key) for sample in samples]
    params = np.stack(
        [
            [
                pack(draw(seeded(sample.key, view), width=image.width, height=image.height, spec=spec))
                for view in range(num_views)
            ]
            for sample, image in zip(samples, images, strict=True)
        ]
    )
    counts = [len(sample.texts()) for sample in samples]
    rows = [
        Embeddings(
            image_NAD=unit(generator, len(samples), num_views, teacher.embed_dim),
            text_TD=unit(generator, sum(counts), teacher.embed_dim),
        )
        for teacher in TEACHERS
    ]
    change(params, counts, rows)
    block = pack_reinforcement(
        config_digest=config_digest,
        input_sha256="i",
        augment=spec,
        codec=codec,
        params_NAP=params,
        text_counts=counts,
        teachers=list(zip(TEACHERS, rows, strict=True)),
        dropped={},
    )
    return write_shard(path, pictures or samples, blocks={BLOCK_NAME: block})


def write_reinforced(
    folder: Path, samples: Sequence[Sample], *, spec: AugmentSpec, per_shard: int = 5, **options
) -> Path:
    """A folder; options are those of `write_reinforced_shard`."""
    entries = tuple(
        write_reinforced_shard(
            folder / "train" / f"{number:06d}.tar", samples[start : start + per_shard], spec=spec, **options
        )
        for number, start in enumerate(range(0, len(samples), per_shard))
    )
    write_index(folder, ShardIndex(source="shapes", splits={"train": entries}))
    return folder
