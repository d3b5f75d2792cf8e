"""Real pictures with their captions, out of packed shards: for calibration and for the gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pocketclip.data.index import read_index, split_shards
from pocketclip.data.picture import PictureError, decode
from pocketclip.data.shard import ShardReader

_CALIBRATE_ON = ("train",)
_JUDGE_ON = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pictures and captions, row by row.

    Attributes:
        images: RGB.
        texts: one caption for each.
    """

    images: tuple[Image.Image, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.images) != len(self.texts):
            raise ValueError(f"{len(self.images)} pictures and {len(self.texts)} captions are no pairs")

    def __len__(self) -> int:
        return len(self.images)


def read_pairs(data: Path, *, splits: tuple[str, ...], num: int, seed: int) -> Pairs:
    """Some pairs of a packed folder, the same for the same seed; no caption comes twice.

    Args:
        data: folder written by `pocketclip pack`.
        splits: taken from.
        num: at most so many.
        seed: of the choice.

    Raises:
        ValueError: the folder has no such split.
        FileNotFoundError: there is no such folder.
    """
    rng = np.random.default_rng(seed)
    shards = [shard for split in splits for shard in split_shards(data, split)]
    images: list[Image.Image] = []
    texts: dict[str, None] = {}
    for shard in (shards[i] for i in rng.permutation(len(shards))):
        with ShardReader(shard) as reader:
            for row in rng.permutation(len(reader)):
                sample = reader[int(row)]
                caption = next((caption for caption in sample.captions if caption not in texts), None)
                if caption is None:
                    continue
                try:
                    images.append(decode(sample.image, name=sample.key))
                except PictureError:
                    continue  # `pocketclip verify` lists them
                texts[caption] = None
                if len(images) == num:
                    return Pairs(images=tuple(images), texts=tuple(texts))
    return Pairs(images=tuple(images), texts=tuple(texts))


def splits_for(data: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits to calibrate on, and splits to judge by: others, where there are others."""
    names = tuple(read_index(data).splits)
    calibrate = tuple(name for name in names if name in _CALIBRATE_ON) or names[:1]
    judge = tuple(name for name in names if name.startswith(_JUDGE_ON)) or names
    return calibrate, judge
