"""Asking an index: the pictures nearest to a text or to a picture.

Shapes: N pictures, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.data.picture import to_rgb
from pocketclip.runtime import ExportedModel
from pocketclip.search.store import IndexReader, Skipped


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A picture that was found.

    Attributes:
        rank: 1 for the nearest.
        score: cosine with the query, -1 to 1.
        path: of the picture, or of the shard that holds it.
        key: of the sample in the shard; None for a file.
        caption: where the source has one.
        width: pixels.
        height: pixels.
        thumbnail: JPEG.
    """

    rank: int
    score: float
    path: Path
    key: str | None
    caption: str | None
    width: int
    height: int
    thumbnail: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Short: the sample's key, or the file's name."""
        return self.key if self.key is not None else self.path.name


class SearchIndex:
    """An index that answers queries exactly, by comparing with every vector.

    The model and the vectors are loaded with the first query.

    Attributes:
        path: of the index.
    """

    def __init__(
        self, path: Path | str, *, model: Path | str | None = None, threads: int | None = None
    ) -> None:
        """Open an index.

        Args:
            path: written by `pocketclip index`.
            model: folder of the exported model; None takes the one that the index remembers.
            threads: of the network; None for one per core.

        Raises:
            FileNotFoundError: there is no such index.
            ValueError: not an index, damaged, of another version.
        """
        self.path = Path(path)
        self._reader = IndexReader(self.path)
        self._model_folder = None if model is None else Path(model)
        self._threads = threads

    @property
    def source(self) -> Path:
        """The folder that was indexed."""
        return self._reader.meta.source

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Pictures of the source that could not be used, and why."""
        return tuple(self._reader.skipped())

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._vectors[0])

    @cached_property
    def model(self) -> ExportedModel:
        """The model that made the vectors.

        Raises:
            FileNotFoundError: it is not where the index remembers it.
            ValueError: the folder holds another model, or a damaged one.
        """
        meta = self._reader.meta
        nearby = self.path.absolute().parent / meta.model_nearby
        folder = self._model_folder or (nearby if nearby.is_dir() else meta.model)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.path} was made with the model in {folder}, which is not there: "
                f"name its folder with --model, or index the pictures again"
            )
        model = ExportedModel(folder, threads=self._threads)
        if model.manifest.digest != meta.model_digest:
            raise ValueError(
                f"{self.path} was made with another model than the one in {folder}, and their vectors cannot be "
                f"compared: name the right folder with --model, or index the pictures again"
            )
        return model

    @cached_property
    def _vectors(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        return self._reader.vectors()

    def search(self, text: str | None = None, *, image: Image.Image | None = None, k: int = 10) -> list[Hit]:
        """The k nearest pictures, nearest first.

        Args:
            text: what to look for; or
            image: a picture to find the like of.
            k: most hits.

        Returns:
            At most k hits; fewer when the index is smaller. Pictures of equal score keep the index's order.

        Raises:
            ValueError: not exactly one of text and image, an empty text, k below 1, or the wrong model.
            FileNotFoundError: the model is not where the index remembers it.
        """
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least 1 picture")
        if (text is None) == (image is None):
            raise ValueError("search needs a text or a picture, and not both")
        if image is not None:
            query_1D = self.model.embed_images([to_rgb(image, name="the query picture")])
        else:
            assert text is not None
            if not text.strip():
                raise ValueError("the text to search for is empty: write what the picture shows")
            query_1D = self.model.embed_texts([text])
        return self._nearest(query_1D[0], k=k)

    def _nearest(self, query_D: npt.NDArray[np.float32], *, k: int) -> list[Hit]:
        ids_N, vectors_ND = self._vectors
        score_N = vectors_ND @ query_D
        best = _top(score_N, k)
        pictures = self._reader.pictures([int(number) for number in ids_N[best]])
        return [
            Hit(
                rank=rank,
                score=float(score_N[row]),
                path=self.source / picture.path,
                key=picture.key,
                caption=picture.caption,
                width=picture.width,
                height=picture.height,
                thumbnail=picture.thumbnail,
            )
            for rank, (row, picture) in enumerate(zip(best, pictures, strict=True), start=1)
        ]


def _top(score_N: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.intp]:
    """Rows of the k largest scores, largest first, ties in row order."""
    if k >= len(score_N):
        return np.argsort(-score_N, kind="stable")
    least = np.partition(score_N, -k)[-k]
    candidates = np.flatnonzero(score_N >= least)
    return candidates[np.argsort(-score_N[candidates], kind="stable")][:k]
