"""What can be evaluated: anything that turns pictures and texts into unit-norm rows, checkpoints first.

N: pictures or texts, B: batch, H, W: picture edges, D: embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pocketclip.checkpoint.store import Loaded, load
from pocketclip.data.preprocess import Preprocess
from pocketclip.evaluate.results import ModelFacts


@runtime_checkable
class Embedder(Protocol):
    """A model that does its own preprocessing, for instance an exported one."""

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows of RGB pictures."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows."""
        ...


class PictureBatch:
    """Decoded pictures of one batch; models of the same preprocessing share the resized pixels.

    Attributes:
        images: RGB pictures.
    """

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.images = tuple(images)
        self._pixels: dict[tuple[int, str], NDArray[np.uint8]] = {}

    def pixels(self, preprocess: Preprocess) -> NDArray[np.uint8]:
        """uint8 [B, H, W, 3] after resize and crop, made once for all that differ in mean and std only."""
        shape = (preprocess.size, preprocess.interpolation)
        if shape not in self._pixels:
            self._pixels[shape] = np.stack([preprocess.pixels(image) for image in self.images])
        return self._pixels[shape]


class CheckpointEmbedder:
    """A checkpoint as an embedder.

    Attributes:
        facts: for the report.
    """

    def __init__(self, loaded: Loaded, *, source: str, device: str = "cpu") -> None:
        self._loaded = loaded
        self._device = torch.device(device)
        self._model = loaded.model.eval().to(self._device)
        self._preprocess = loaded.config.preprocess
        self.facts = ModelFacts(
            source=source,
            image_parameters=_num_parameters(loaded.model.image),
            text_parameters=_num_parameters(loaded.model.text),
            image_px=self._preprocess.size,
        )

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows of RGB pictures."""
        return self.embed_batch(PictureBatch(images))

    def embed_batch(self, batch: PictureBatch) -> NDArray[np.float32]:
        """[B, D] unit-norm rows; resized pixels are taken from, and left with, the batch."""
        pixels = torch.from_numpy(self._preprocess.normalise(batch.pixels(self._preprocess)))
        with torch.inference_mode():
            embed_BD = self._model.encode_image(pixels.to(self._device), normalize=True)
        return embed_BD.float().cpu().numpy()

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows."""
        tokens_BL = self._loaded.tokenize(list(texts)).to(self._device)
        with torch.inference_mode():
            embed_BD = self._model.encode_text(tokens_BL, normalize=True)
        return embed_BD.float().cpu().numpy()


def as_embedder(model: Path | str | Loaded | Embedder, *, name: str, device: str) -> Embedder:
    """A checkpoint's path or name, a loaded checkpoint, or an embedder, as an embedder.

    Raises:
        ValueError: none of these, or a checkpoint that cannot be used.
        OSError: a checkpoint that cannot be read.
    """
    if isinstance(model, (str, Path)):
        return CheckpointEmbedder(load(model), source=str(model), device=device)
    if isinstance(model, Loaded):
        return CheckpointEmbedder(model, source="in memory", device=device)
    if isinstance(model, Embedder):
        return model
    raise ValueError(
        f"model {name!r} is a {type(model).__name__}; give a checkpoint's path, a loaded one, "
        "or an exported model"
    )


def embed_batch(embedder: Embedder, batch: PictureBatch) -> NDArray[np.float32]:
    """[B, D] unit-norm rows of a batch."""
    if isinstance(embedder, CheckpointEmbedder):
        return embedder.embed_batch(batch)
    return np.asarray(embedder.embed_images(batch.images), dtype=np.float32)


def model_facts(embedder: Embedder) -> ModelFacts:
    """What the embedder tells about itself."""
    return (
        embedder.facts
        if isinstance(embedder, CheckpointEmbedder)
        else ModelFacts(source=type(embedder).__name__)
    )


def _num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
