"""A sample as a person looks at it: picture, captions, views as they are replayed, what teachers think of them."""

# Shape suffixes: V views, T captions, D dimensions of a teacher.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pocketclip.data.augment import Augmentation, AugmentSpec, apply, magnitudes, unpack
from pocketclip.data.foreign.published import PublishedSample, read_published
from pocketclip.data.foreign.published_picture import as_published
from pocketclip.data.foreign.published_teachers import split_columns
from pocketclip.data.foreign.published_views import ViewLayout, extent, read_view
from pocketclip.data.foreign.tars import Group
from pocketclip.data.operations import OPERATIONS, is_signed
from pocketclip.data.picture import decode
from pocketclip.data.reinforced import embeddings_of
from pocketclip.data.reinforcement import Reinforcement, TeacherRecord
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader

VIEW_PX = 224
"""Side at which views are replayed, the teachers' usual one."""

GROUND_TRUTH = "caption"
"""What a ground-truth caption is labelled with; synthetic ones have their captioner's name."""

_UNITS = {"rotate": "°", "translate_x": " px", "translate_y": " px", "posterize": " bits"}


@dataclass(frozen=True, kw_only=True)
class View:
    """A stored view.

    Attributes:
        number: among those of the sample.
        pixels: as it is replayed; None without a picture.
        crop: left, top, right, bottom as shares of the picture.
        lines: what was done, a line each.
    """

    number: int
    pixels: Image.Image | None = field(repr=False)
    crop: tuple[float, float, float, float]
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A sample.

    Attributes:
        shard: that it is in.
        key: its key.
        image: decoded; None where there is none, or it is damaged.
        about: the picture in a few words.
        size: width and height of the picture, or of the smallest that its views can have been drawn for.
        texts: label and caption, ground truth first.
        num_views: stored.
        views: the chosen ones.
        image_rows: teacher -> rows of the views, float32 [V, D].
        text_rows: teacher -> rows of the captions, float32 [T, D].
    """

    shard: str
    key: str
    image: Image.Image | None = field(repr=False)
    about: str
    size: tuple[int, int]
    texts: tuple[tuple[str, str], ...]
    num_views: int = 0
    views: tuple[View, ...] = ()
    image_rows: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    text_rows: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


def see_packed(
    reader: ShardReader, block: Reinforcement | None, rows: Sequence[int], *, shard: str, num_views: int
) -> Iterator[Seen]:
    """Samples of one of our shards.

    Args:
        reader: the shard.
        block: its reinforcement, where it has one.
        rows: which samples.
        shard: what to call it.
        num_views: views of each, evenly among the stored ones.
    """
    for row in rows:
        sample = reader[row]
        image, about = _picture(sample)
        size = image.size if image is not None else (1, 1)
        if block is None:
            texts = _texts(sample)
            yield Seen(shard=shard, key=sample.key, image=image, about=about, size=size, texts=texts)
            continue
        numbers = _evenly(block.num_views, num_views)
        drawn = [unpack(params_P) for params_P in block.params(row)[numbers]]
        embeddings = embeddings_of(block, np.array([row]))
        names = [teacher.name for teacher in block.header.teachers]
        yield Seen(
            shard=shard,
            key=sample.key,
            image=image,
            about=about,
            size=size if image is not None else (drawn[0].width, drawn[0].height),
            texts=_texts(sample),
            num_views=block.num_views,
            views=tuple(
                _view(image, view, number=number, spec=block.header.augment)
                for number, view in zip(numbers, drawn, strict=True)
            ),
            image_rows={
                name: rows.image_NAD[0][numbers] for name, rows in zip(names, embeddings, strict=True)
            },
            text_rows={name: rows.text_TD for name, rows in zip(names, embeddings, strict=True)},
        )


def see_published(
    group: Group, *, layout: ViewLayout, teachers: Sequence[TeacherRecord], shard: str, num_views: int
) -> Seen:
    """A sample that others published.

    Args:
        group: its files.
        layout: of its views.
        teachers: whose its columns are.
        shard: what to call its tar.
        num_views: views, evenly among the stored ones.

    Raises:
        ValueError: it cannot be read; says why.
    """
    published = read_published(group)
    if not isinstance(published, PublishedSample):
        raise ValueError(f"{published.source}: {published.reason}")
    image, about = None, "no picture: join it first"
    if published.image is not None:
        _, _, image = as_published(published.image, name=published.source)
        about = _about(image, "picture", len(published.image))
    width, height = image.size if image is not None else extent(published.views, layout=layout)
    numbers = _evenly(len(published.views), num_views)
    views = []
    for number in numbers:
        view = read_view(published.views[number], layout=layout, width=width, height=height)
        views.append(_view(image, view, number=number, spec=layout.spec))
    captions = published.captions or ("(a ground-truth caption that is not in the shard)",) * (
        published.num_ground_truth
    )
    synthetic = ((key, text) for key, texts in published.synthetic.items() for text in texts)
    names = [teacher.name for teacher in teachers]
    return Seen(
        shard=shard,
        key=published.uid,
        image=image,
        about=about,
        size=(width, height),
        texts=(*((GROUND_TRUTH, text) for text in captions), *synthetic),
        num_views=len(published.views),
        views=tuple(views),
        image_rows=dict(zip(names, split_columns(published.image_AW[numbers], teachers), strict=True)),
        text_rows=dict(zip(names, split_columns(published.text_TW, teachers), strict=True)),
    )


def _picture(sample: Sample) -> tuple[Image.Image | None, str]:
    try:
        image = decode(sample.image, name=sample.key)
    except ValueError as error:
        return None, str(error).removeprefix(f"{sample.key}: ")
    return image, _about(image, sample.extension, len(sample.image))


def _about(image: Image.Image, kind: str, num_bytes: int) -> str:
    return f"{image.width} x {image.height}, {kind}, {num_bytes / 1000:.1f} kB"


def _texts(sample: Sample) -> tuple[tuple[str, str], ...]:
    synthetic = ((name, text) for name in sorted(sample.synthetic) for text in sample.synthetic[name])
    return (*((GROUND_TRUTH, text) for text in sample.captions), *synthetic)


def _evenly(num: int, wanted: int) -> list[int]:
    """At most so many of the numbers below `num`, spread evenly."""
    return sorted({round(place) for place in np.linspace(0, num - 1, min(num, wanted)).tolist()})


def _view(image: Image.Image | None, view: Augmentation, *, number: int, spec: AugmentSpec) -> View:
    top, left, height, width = view.crop
    lines = [
        f"{100 * height * width / (view.height * view.width):.0f}% crop{', mirrored' if view.flip else ''}"
    ]
    for operation, strength in magnitudes(view, spec=spec, side=spec.translate_px or VIEW_PX):
        name = OPERATIONS[operation]
        sign = "+" if is_signed(operation) else ""
        amount = f" {strength:{sign}.3g}{_UNITS.get(name, '')}" if strength else ""
        lines.append(f"{name.replace('_', ' ')}{amount}")
    if view.jitter is not None and any(
        view.jitter.strengths[i] != (1000, 1000, 1000, 0)[i] for i in range(4)
    ):
        lines.append("jitter")
    if view.erasure is not None and view.erasure[2] * view.erasure[3]:
        lines.append(f"erased {100 * view.erasure[2] * view.erasure[3] / 1024**2:.0f}%")
    pixels = None
    if image is not None and image.size == (view.width, view.height):
        pixels = apply(image, view, size=VIEW_PX, spec=spec)
    elif image is not None:
        lines.append(f"drawn for {view.width} x {view.height}")
    return View(
        number=number,
        pixels=pixels,
        crop=(
            left / view.width,
            top / view.height,
            (left + width) / view.width,
            (top + height) / view.height,
        ),
        lines=tuple(lines),
    )


def where(path: Path, root: Path) -> str:
    """What to call a shard."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
