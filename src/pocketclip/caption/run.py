"""Captions pictures with one captioner or an ensemble; what cannot be used is told and left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from pocketclip.caption.config import CaptionConfig
from pocketclip.caption.source import Picture, read_pictures
from pocketclip.data.index import Dropped
from pocketclip.data.picture import decode
from pocketclip.teachers import Captioner, build_captioner

_THUMBNAIL_PX = 224


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """A picture and what was written about it.

    Attributes:
        name: where it is.
        key: that captions are drawn by.
        captions: captioner's name -> what it wrote; what says nothing is left out, so there may be none.
        references: people's captions, where the source has them.
        image: the picture, RGB.
    """

    name: str
    key: str
    captions: Mapping[str, tuple[str, ...]]
    references: tuple[str, ...] = ()
    image: Image.Image = field(repr=False)

    def texts(self) -> tuple[str, ...]:
        """All captions, captioner by captioner."""
        return tuple(chain.from_iterable(self.captions.values()))

    def thumbnail(self) -> Captioned:
        """The same with a small picture, for many to be kept."""
        small = self.image.copy()
        small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        return Captioned(
            name=self.name, key=self.key, captions=self.captions, references=self.references, image=small
        )


def _pass_over(_: Dropped) -> None:
    """Nobody asked what was left out."""


def caption(
    sources: Sequence[Path],
    *,
    config: CaptionConfig,
    limit: int | None = None,
    skipped: Callable[[Dropped], None] = _pass_over,
) -> Iterator[Captioned]:
    """Captions the pictures of some sources, in order.

    Args:
        sources: pictures, tars, folders of pictures and packed folders.
        config: who writes, and how.
        limit: stop after so many pictures.
        skipped: told of every picture that cannot be used.

    Yields:
        Each picture with its captions. They depend on the picture, its key and the configuration alone.

    Raises:
        FileNotFoundError: there is no such source or model.
        ImportError: a model needs what is not installed.
        ValueError: a model is no captioner, or a source holds no pictures.
    """
    missing = [source for source in sources if not source.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no such file or folder")
    captioners = [
        build_captioner(spec, device=config.device, precision=config.precision) for spec in config.specs()
    ]
    found = chain.from_iterable(read_pictures(source, splits=config.splits) for source in sources)
    pictures = islice(_decoded(found, skipped=skipped), limit)
    with tqdm(
        desc="caption", unit="picture", total=limit, mininterval=0.5 if sys.stderr.isatty() else 10
    ) as bar:
        while batch := list(islice(pictures, config.batch_size)):
            yield from _written(batch, captioners)
            bar.update(len(batch))


def _decoded(
    found: Iterable[Picture | Dropped], *, skipped: Callable[[Dropped], None]
) -> Iterator[tuple[Picture, Image.Image]]:
    for item in found:
        if isinstance(item, Dropped):
            skipped(item)
            continue
        try:
            image = decode(item.image, name=item.name)
        except ValueError as error:
            skipped(Dropped(source=item.name, reason=str(error).removeprefix(f"{item.name}: ")))
            continue
        yield item, image


def _written(
    batch: Sequence[tuple[Picture, Image.Image]], captioners: Sequence[Captioner]
) -> Iterator[Captioned]:
    images, keys = [image for _, image in batch], [picture.key for picture, _ in batch]
    texts = {captioner.name: captioner.caption(images, keys) for captioner in captioners}
    for row, (picture, image) in enumerate(batch):
        yield Captioned(
            name=picture.name,
            key=picture.key,
            captions={name: some[row] for name, some in texts.items()},
            references=picture.captions,
            image=image,
        )
