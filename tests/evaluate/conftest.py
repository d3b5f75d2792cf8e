from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.sample import Sample
from pocketclip.data.shard import write_shard

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "yellow": (255, 255, 0),
    "purple": (160, 0, 160),
}


def png(colour: tuple[int, int, int], size: tuple[int, int] = (20, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def sample(number: int, name: str, image: bytes | None = None) -> Sample:
    image = image or png(COLOURS[name])
    return Sample(
        key=f"{name}-{number}", image=image, extension="png", captions=(f"a {name} card", "a card"), meta={}
    )


def pack_splits(folder: Path, splits: dict[str, list[list[Sample]]]) -> Path:
    entries = {
        split: tuple(
            write_shard(folder / split / f"{number:06}.tar", shard) for number, shard in enumerate(shards)
        )
        for split, shards in splits.items()
    }
    write_index(folder, ShardIndex(source="cards", splits=entries, licences={}))
    return folder


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Two splits of coloured cards: two cards of every colour in two shards, and one of every colour."""
    names = list(COLOURS)
    twice = [[sample(0, name) for name in names], [sample(1, name) for name in names]]
    return pack_splits(
        tmp_path / "cards", {"validation": [[sample(2, n) for n in names]], "test-style": twice}
    )


class ColourReader:
    """An embedder that knows colours; `wrong` of them it takes for the next one."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong
        self.seen = 0

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.seen += len(images)
        colours = np.array(list(COLOURS.values()), dtype=np.float32)
        pixels = np.array([image.getpixel((0, 0)) for image in images], dtype=np.float32)
        nearest = np.abs(pixels[:, None] - colours).sum(-1).argmin(1)
        nearest = np.where(nearest < self.wrong, (nearest + 1) % len(colours), nearest)
        return np.eye(len(colours), dtype=np.float32)[nearest]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        names = [next(i for i, name in enumerate(COLOURS) if name in text) for text in texts]
        return np.eye(len(COLOURS), dtype=np.float32)[names]
