"""Running an exported model: pictures and texts to unit-norm embeddings, without torch.

Shapes: N pictures or texts, B batch, H and W height and width, L tokens, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _engine  # ty: ignore[missing-module-member]
from PIL import Image

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.tokenize import Tokenizer
from pocketclip.runtime.manifest import Manifest, read_manifest, verify_files

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""Prompts of `ExportedModel.classify`: "{}" stands for the label."""

_Item = TypeVar("_Item")
_QUIET = 3  # errors only
_DAMAGE = (
    _engine.Fail,
    _engine.InvalidArgument,
    _engine.InvalidGraph,
    _engine.InvalidProtobuf,
    _engine.NotImplemented,
    _engine.RuntimeException,
)


class ExportedModel:
    """An exported model: `embed_images`, `embed_texts`, `classify`.

    Towers are loaded when they are first used, so a text query never pays for the image tower. Safe to use
    from several threads.

    Attributes:
        folder: what `pocketclip export` wrote.
        manifest: what it says of itself.
    """

    def __init__(self, folder: Path | str, *, threads: int | None = None, verify: bool = True) -> None:
        """Open a folder.

        Args:
            folder: image.onnx, text.onnx, tokenizer.json, manifest.json.
            threads: of the arithmetic; None lets onnxruntime take one per core.
            verify: check size and hash of every file first.

        Raises:
            FileNotFoundError: the manifest, or a file that it lists, is missing.
            ValueError: another version, a file that was cut or changed, or `threads` below 1.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}: it must be at least 1")
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        if verify:
            verify_files(self.folder, self.manifest)
        self._threads = threads

    @property
    def preprocess(self) -> Preprocess:
        """Picture to pixels, as the checkpoint does it."""
        return self.manifest.preprocess

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to ids, as the checkpoint does it."""
        path = self.folder / self.manifest.files["tokenizer"].name
        return Tokenizer.from_json(path.read_text(encoding="utf-8"), self.manifest.context_length)

    def embed_images(self, images: Sequence[Image.Image], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """Embed pictures of any mode and size.

        Args:
            images: N pictures.
            batch_size: pictures a run of the network.

        Returns:
            float32 [N, D], rows of length 1.
        """
        parts = [
            self.embed_pixels(np.stack([self.preprocess.pixels(image) for image in batch]))
            for batch in _batches(images, batch_size)
        ]
        return self._rows(parts)

    def embed_pixels(self, pixels_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed one batch of pictures that are resized and cropped already.

        Args:
            pixels_BHWC: uint8 [B, size, size, 3], from `preprocess.pixels`.

        Returns:
            float32 [B, D], rows of length 1.
        """
        return self._run(self._image_tower, self.preprocess.normalise(pixels_BHWC))

    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 64) -> npt.NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: N texts of any length; what does not fit the context is cut.
            batch_size: texts a run of the network.

        Returns:
            float32 [N, D], rows of length 1.
        """
        if isinstance(texts, str):
            raise TypeError("embed_texts takes a sequence of texts: write [text] for one")
        parts = [self._run(self._text_tower, self.tokenizer(batch)) for batch in _batches(texts, batch_size)]
        return self._rows(parts)

    def classify(
        self,
        images: Sequence[Image.Image],
        labels: Sequence[str],
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        batch_size: int = 32,
    ) -> npt.NDArray[np.float32]:
        """Zero-shot classification (CLIP, arXiv 2103.00020, section 3.1.4): softmax of scaled cosines.

        Args:
            images: N pictures.
            labels: what they may show.
            templates: prompts in which "{}" is replaced by the label; a label's embedding is the mean over
                them, scaled to length 1 again.
            batch_size: pictures a run of the network.

        Returns:
            float32 [N, len(labels)] probabilities, rows sum to 1.

        Raises:
            ValueError: no labels, no templates, or a template without "{}".
        """
        if not labels:
            raise ValueError("classify needs at least one label")
        if not templates or not all("{}" in template for template in templates):
            raise ValueError(f"every template must hold '{{}}' where the label goes: {list(templates)}")
        prompts = [template.replace("{}", label) for label in labels for template in templates]
        means = self.embed_texts(prompts).reshape(len(labels), len(templates), -1).mean(axis=1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        logits = self.manifest.logit_scale * (self.embed_images(images, batch_size=batch_size) @ means.T)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    @cached_property
    def _image_tower(self) -> onnxruntime.InferenceSession:
        return self._open("image")

    @cached_property
    def _text_tower(self) -> onnxruntime.InferenceSession:
        return self._open("text")

    def _open(self, role: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        path = self.folder / self.manifest.files[role].name
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _DAMAGE as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path}: this onnxruntime ({onnxruntime.__version__}) cannot load it ({reason}): "
                f"export the checkpoint again, or update onnxruntime"
            ) from error

    def _run(
        self, tower: onnxruntime.InferenceSession, batch: npt.NDArray[np.generic]
    ) -> npt.NDArray[np.float32]:
        try:
            (embed_BD,) = tower.run(None, {tower.get_inputs()[0].name: batch})
        except _DAMAGE as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.folder}: the network failed on a batch of shape {batch.shape} ({reason}): "
                f"export the checkpoint again"
            ) from error
        assert isinstance(embed_BD, np.ndarray)
        return embed_BD

    def _rows(self, parts: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        return np.concatenate(parts) if parts else np.empty((0, self.manifest.embed_dim), dtype=np.float32)


def _batches(items: Sequence[_Item], batch_size: int) -> list[Sequence[_Item]]:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    return [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
