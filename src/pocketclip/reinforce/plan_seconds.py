"""How long each step takes with some samples of the input, one step after the other, in this process."""

# Shape suffixes: N samples, A views of each, T captions, D dimensions, B rows of a batch, H W C pixels.

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from pocketclip.data.picture import decode
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, ReinforcementWriter, TeacherRecord
from pocketclip.data.sample import Sample
from pocketclip.data.shard import shard_writer
from pocketclip.reinforce.config import ReinforceConfig
from pocketclip.reinforce.views import Drawn, ShardRequest, draw_views
from pocketclip.teachers.captioner import Captioner
from pocketclip.teachers.encode import Rows, encoded, taken
from pocketclip.teachers.teacher import Teacher

_ENOUGH_S = 1.5
"""A step is repeated until it has taken so long."""
_FIRST = 4  # rows that tell how many a batch may have
_VIEWS = 4  # of a picture that are drawn; all cost the same
_CAPTIONED = 32  # pictures that captioners see at once
_ENCODED_FLOATS = 1 << 24  # embeddings that are encoded and written

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of every step for one sample, and the captions that samples got.

    Attributes:
        seconds: `decode`, `augment`, `caption/NAME`, `image/NAME`, `text/NAME`, `encode`, `write`; those of one
            processor's thread but where teachers and captioners compute. `write` is making the tar and its hash; no
            disk is in it.
        samples: with what the captioners wrote.
    """

    seconds: dict[str, float]
    samples: tuple[Sample, ...]


def measure(
    samples: Sequence[Sample],
    *,
    config: ReinforceConfig,
    teachers: Sequence[Teacher],
    captioners: Sequence[Captioner],
    sizes: Sequence[int],
    widths: Sequence[int],
    shard_samples: int,
) -> Measured:
    """Runs every step by itself.

    Args:
        samples: one or more, whose pictures can be decoded.
        config: of the reinforcement.
        teachers: those that can be run.
        captioners: likewise.
        sizes: sides of the pictures that all teachers want, pixels.
        widths: of all teachers.
        shard_samples: that a shard will have.
    """
    started = time.perf_counter()
    images = [decode(sample.image, name=sample.key) for sample in samples]
    seconds = {"decode": (time.perf_counter() - started) / len(samples)}
    num_views = min(config.num_views, _VIEWS)
    drawn, both = _draw(samples, config=config, sizes=sizes, num_views=num_views)
    seconds["augment"] = max(0.0, both - seconds["decode"]) / num_views * config.num_views
    for captioner in captioners:
        samples, seconds[f"caption/{captioner.name}"] = _caption(captioner, samples, images)
    texts = [text for sample in samples for text in sample.texts()]
    for teacher in teachers:
        name, most = teacher.record.name, config.batch_size
        views_BHWC = np.concatenate([one.pixels[teacher.image_px] for one in drawn])
        image_s, _ = _seconds_each(partial(_encode, teacher, teacher.encode_image, views_BHWC), most=most)
        text_s, _ = _seconds_each(partial(_encode, teacher, teacher.encode_text, texts), most=most)
        seconds[f"image/{name}"] = image_s * config.num_views
        seconds[f"text/{name}"] = text_s * len(texts) / len(samples)
    seconds |= _store(samples, config=config, widths=widths, shard_samples=shard_samples)
    return Measured(seconds=seconds, samples=tuple(samples))


def _draw(
    samples: Sequence[Sample], *, config: ReinforceConfig, sizes: Sequence[int], num_views: int
) -> tuple[list[Drawn], float]:
    """The samples' views, and seconds for one sample, decoding included."""
    request = ShardRequest(
        num_views=num_views,
        augment=config.augment,
        codec=config.codec,
        seed=config.seed,
        batch_size=config.batch_size,
        config_digest="",
    )
    drawn = []
    started = time.perf_counter()
    for sample in samples:
        one = draw_views(sample, sizes=sizes, request=request, captioned=False)
        assert isinstance(one, Drawn)
        drawn.append(one)
    return drawn, (time.perf_counter() - started) / len(samples)


def _caption(
    captioner: Captioner, samples: Sequence[Sample], images: Sequence[Image.Image]
) -> tuple[list[Sample], float]:
    """The samples with captions, and seconds for one sample.

    A slow captioner writes for few samples; the others get the same captions.
    """

    def write(num: int) -> list[tuple[str, ...]]:
        keys = [f"{samples[place % len(samples)].key}-{place}" for place in range(num)]
        return captioner.caption([images[place % len(images)] for place in range(num)], keys)

    seconds, written = _seconds_each(write, most=_CAPTIONED)
    captioned = []
    for place, sample in enumerate(samples):
        texts = written[place % len(written)]
        more = {captioner.name: texts} if texts else {}
        captioned.append(replace(sample, synthetic={**sample.synthetic, **more}))
    return captioned, seconds


def _encode(teacher: Teacher, encode: Callable[[Rows], np.ndarray], rows: Rows, num: int) -> None:
    """A batch of so many rows: the first ones, or all of them several times."""
    places = [place % len(rows) for place in range(num)]
    encoded(teacher, encode, taken(rows, places))


def _seconds_each(run: Callable[[int], R], *, most: int) -> tuple[float, R]:
    """Seconds of an item in a batch as large as may be, and what the last batch gave.

    Args:
        run: works on a batch of so many items.
        most: items of a batch; there are fewer where they would take long.
    """
    num = min(most, _FIRST)
    run(num)  # what happens once
    started = time.perf_counter()
    result = run(num)
    spent = time.perf_counter() - started
    if spent > _ENOUGH_S:
        return spent / num, result
    num = min(most, max(num, int(_ENOUGH_S * num / max(spent, 1e-6))))
    run(num)  # what happens once for this size
    spent, count = 0.0, 0
    while spent < _ENOUGH_S:
        started = time.perf_counter()
        result = run(num)
        spent += time.perf_counter() - started
        count += num
    return spent / count, result


def _store(
    samples: Sequence[Sample], *, config: ReinforceConfig, widths: Sequence[int], shard_samples: int
) -> dict[str, float]:
    """Seconds of `encode` and `write` for one sample, with made-up embeddings: their values cost nothing."""
    text_counts = [len(sample.texts()) for sample in samples]
    floats = max(widths) * (config.num_views + max(text_counts))
    num = max(1, min(shard_samples, _ENCODED_FLOATS // floats))
    counts = [text_counts[place % len(samples)] for place in range(num)]
    rng = np.random.default_rng(0)

    def rows(*dims: int) -> np.ndarray:
        made = rng.standard_normal(dims, dtype=np.float32)
        return made / np.linalg.norm(made, axis=-1, keepdims=True)

    records, embeddings = [], []
    for number, width in enumerate(widths):
        records.append(TeacherRecord(name=f"t{number}", embed_dim=width, logit_scale=100.0, digest=""))
        embeddings.append(
            Embeddings(image_NAD=rows(num, config.num_views, width), text_TD=rows(sum(counts), width))
        )
    params_NAP = np.zeros((num, config.num_views, config.augment.num_params), np.int32)
    with ReinforcementWriter(augment=config.augment, codec=config.codec, teachers=records) as block_writer:
        started = time.perf_counter()
        block_writer.add(params_NAP, counts, embeddings)
        block = block_writer.finish(config_digest="", input_sha256="", dropped={})
        encode_s = time.perf_counter() - started
        started = time.perf_counter()
        writer = shard_writer(io.BytesIO(), path=Path("train/plan.tar"))
        for place in range(num):
            writer.add(replace(samples[place % len(samples)], key=f"plan{place:08d}"))
        writer.add_long_block(BLOCK_NAME, block.chunks, num_bytes=block.num_bytes)
        writer.finish()
        write_s = time.perf_counter() - started
    return {"encode": encode_s / num, "write": write_s / num}
