"""A perceptual hash has imagehash's bits, and stays near when a picture is scaled and compressed again."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pocketclip.filter.phash import distance, phash


def draw(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Soft shapes: a few random pixels, enlarged."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.reference
@pytest.mark.parametrize("size", [(160, 120), (64, 300), (31, 33), (640, 480)])
def test_bits_are_those_of_imagehash(size: tuple[int, int]) -> None:
    imagehash = pytest.importorskip("imagehash")
    for seed in range(20):
        image = draw(seed, size)
        assert phash(image) == int(str(imagehash.phash(image)), 16)


def test_near_after_scaling_and_jpeg_and_far_from_another_picture() -> None:
    hashes, again = [], []
    for seed in range(20):
        image = draw(seed)
        file = io.BytesIO()
        image.resize((97, 71)).save(file, "JPEG", quality=60)
        hashes.append(phash(image))
        again.append(phash(Image.open(file)))
    own = distance(np.array(hashes, np.uint64), np.array(again, np.uint64))
    others = distance(np.array(hashes, np.uint64)[:, None], np.array(hashes, np.uint64)[None, :])
    assert own.max() <= 6
    assert others[~np.eye(20, dtype=bool)].min() > 8


def test_distance_counts_bits() -> None:
    one = np.array([0, 1, 2**64 - 1, 0xF0F0], np.uint64)
    other = np.array([0, 0, 0, 0x0F0F], np.uint64)
    assert distance(one, other).tolist() == [0, 1, 64, 16]
