"""What a set covers: its pictures on a plane, near where they are alike, and what they are about, by clusters."""

# Shape suffixes: N rows, D embedding, E of them, C samples of the map.

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.search.groups import Rows, clusters

Projection = Literal["t-SNE", "PCA"]

_FIRST = 50  # dimensions that t-SNE begins with
_PERPLEXITY = 30.0
_FEWEST = 12  # samples of which a map is drawn by t-SNE
_QUALITY = 60


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Samples about the same thing.

    Attributes:
        caption: the most typical of theirs.
        num_samples: in it.
        splits: how many of each split.
        examples: numbers of some samples, the most typical first.
        cosine: mean of pictures with their own captions.
        x: middle of its samples on the map, 0 to 1.
        y: likewise.
    """

    caption: str
    num_samples: int
    splits: dict[str, int]
    examples: tuple[int, ...]
    cosine: float
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """A map, and what is where.

    Attributes:
        projection: how the plane was found.
        sample_C: numbers of the samples on it, ascending.
        place_C2: x and y of each, float32, 0 to 1.
        label_N: cluster of every sample.
        clusters: the largest first.
    """

    projection: Projection
    sample_C: npt.NDArray[np.int64]
    place_C2: npt.NDArray[np.float32]
    label_N: npt.NDArray[np.int64]
    clusters: tuple[Cluster, ...]


def cover(
    image_ND: Rows,
    text_ND: Rows,
    *,
    captions: Sequence[str],
    splits: Sequence[str],
    most: int,
    num_examples: int = 8,
    seed: int = 0,
) -> Coverage:
    """Draw the map of a set.

    Args:
        image_ND: float32 [N, D], length 1; one row or more.
        text_ND: of the main captions, likewise.
        captions: of every sample.
        splits: of every sample.
        most: samples on the map; of more, so many are drawn.
        num_examples: of each cluster.
        seed: of everything random.
    """
    num = len(image_ND)
    sample_C = np.arange(num)
    if num > most:
        sample_C = np.sort(np.random.default_rng(seed).choice(num, most, replace=False))
    place_C2, projection = project(image_ND[sample_C], seed=seed)
    found = clusters(image_ND, int(np.clip(round(math.sqrt(num) / 2), 1, 24)), seed=seed)
    place = {int(sample): place_C2[at] for at, sample in enumerate(sample_C)}
    own_N = np.einsum("nd,nd->n", image_ND, text_ND)
    about = []
    for label in range(len(found.centre_KD)):
        members = found.members(label)
        middle = np.median([place[row] for row in members.tolist() if row in place] or [[0.5, 0.5]], axis=0)
        about.append(
            Cluster(
                caption=_typical(text_ND[members], [captions[row] for row in members]),
                num_samples=len(members),
                splits=dict(sorted(Counter(splits[row] for row in members).items())),
                examples=tuple(members[:num_examples].tolist()),
                cosine=float(own_N[members].mean()),
                x=float(middle[0]),
                y=float(middle[1]),
            )
        )
    return Coverage(
        projection=projection,
        sample_C=sample_C,
        place_C2=place_C2,
        label_N=found.label_N,
        clusters=tuple(about),
    )


def _typical(text_ND: Rows, captions: Sequence[str]) -> str:
    return captions[int(np.argmax(text_ND @ text_ND.mean(axis=0)))]


def project(rows_CD: Rows, *, seed: int) -> tuple[npt.NDArray[np.float32], Projection]:
    """Rows on a plane: principal components, then t-SNE on the first of them where scikit-learn is installed.

    Returns:
        float32 [C, 2], 0 to 1, and which of the two it is.
    """
    rows = rows_CD - rows_CD.mean(axis=0)
    _, axes_DD = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
    first_CE = (rows @ axes_DD[:, ::-1][:, :_FIRST]).astype(np.float32)
    flat = np.zeros((len(rows), 2), np.float32)
    flat[:, : min(2, first_CE.shape[1])] = first_CE[:, :2]
    if len(rows) < _FEWEST:
        return _in_frame(flat), "PCA"
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return _in_frame(flat), "PCA"
    spread = max(float(flat[:, 0].std()), 1e-9)
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = TSNE(perplexity=perplexity, init=flat * (1e-4 / spread), random_state=seed).fit_transform(
            first_CE
        )
    return _in_frame(drawn.astype(np.float32)), "t-SNE"


def _in_frame(place_C2: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low, high = place_C2.min(axis=0), place_C2.max(axis=0)
    return (place_C2 - low) / np.maximum(high - low, 1e-9)


def atlas(images: Iterable[Image.Image], num: int, *, tile_px: int) -> bytes:
    """Pictures side by side, row by row, each in a square of `tile_px`, as one WebP."""
    columns = num_columns(num)
    sheet = Image.new("RGB", (columns * tile_px, max(1, -(-num // columns)) * tile_px), (128, 128, 128))
    for number, image in enumerate(images):
        sheet.paste(tile(image, tile_px), (number % columns * tile_px, number // columns * tile_px))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()


def num_columns(num: int) -> int:
    """Of a sheet of `num` pictures."""
    return math.isqrt(max(num - 1, 0)) + 1


def tile(image: Image.Image, side: int) -> Image.Image:
    """The middle square of a picture, `side` pixels wide."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
