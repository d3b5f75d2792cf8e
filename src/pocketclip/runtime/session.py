"""Running an exported model: pictures and texts to unit-norm embeddings, without torch.

Shapes: N pictures or texts, B batch, H and W height and width, L tokens, D embedding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.tokenize import Tokenizer
from pocketclip.runtime.backends import BACKENDS
from pocketclip.runtime.cache import remembered
from pocketclip.runtime.choice import AUTO, choose, feed
from pocketclip.runtime.manifest import Manifest, read_manifest, verify_files
from pocketclip.runtime.tower import Tower, TowerError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""Prompts of `ExportedModel.classify`: "{}" stands for the label."""

_Item = TypeVar("_Item")


class ExportedModel:
    """An exported model: `embed_images`, `embed_texts`, `classify`.

    Towers are loaded when they are first used, so a text query never pays for the image tower. Safe to use
    from several threads.

    Attributes:
        folder: what `pocketclip export` wrote.
        manifest: what it says of itself.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        backend: str = AUTO,
        towers: Mapping[str, Tower] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> None:
        """Open a folder.

        Args:
            folder: towers, tokenizer.json, manifest.json.
            backend: what runs the towers, a name of `BACKENDS`; "auto" takes the first of them that is installed
                and gives the embeddings that the folder's probes carry.
            towers: already opened ones, "image" and "text", that are used instead of a backend's.
            threads: of the arithmetic; None lets the backend take one per core.
            verify: check size and hash of every file first; files that have not changed since are not read again.

        Raises:
            FileNotFoundError: the manifest, or a file that it lists, is missing.
            ValueError: another version, a file that was cut or changed, an unknown or absent backend, or `threads`
                below 1.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}: it must be at least 1")
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        if backend != AUTO:
            _require_backend(backend, target=self.manifest.target)
        if verify:
            _verify_once(self.folder, self.manifest)
        self._backend = backend
        self._towers = dict(towers or {})
        self._threads = threads

    @property
    def preprocess(self) -> Preprocess:
        """Picture to pixels, as the checkpoint does it."""
        return self.manifest.preprocess

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to ids, as the checkpoint does it."""
        self._require_tower("text")
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
        batches = self._pixel_batches(images, batch_size)
        return self._rows([self.embed_pixels(pixels_BHWC) for pixels_BHWC in batches])

    def embed_pixels(self, pixels_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed one batch of pictures that are resized and cropped already.

        Args:
            pixels_BHWC: uint8 [B, size, size, 3], from `preprocess.pixels`.

        Returns:
            float32 [B, D], rows of length 1.
        """
        return self._run("image", pixels_BHWC)

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
        parts = [self._run("text", self.tokenizer(batch)) for batch in _batches(texts, batch_size)]
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

    def backend(self, role: str) -> str:
        """Name of what runs a tower, "image" or "text".

        Raises:
            ValueError: the folder has no such tower, or nothing that is installed runs it.
        """
        self._require_tower(role)
        if self._backend != AUTO:
            return self._backend
        return choose(self.folder, self.manifest, role=role, threads=self._threads)

    @cached_property
    def _image_tower(self) -> Tower:
        return self._open("image")

    @cached_property
    def _text_tower(self) -> Tower:
        return self._open("text")

    def _require_tower(self, role: str) -> None:
        if role not in self.manifest.towers:
            raise ValueError(
                f"{self.folder} was exported without its {role} tower: export the checkpoint again with both"
            )

    def _open(self, role: str) -> Tower:
        if role in self._towers:
            return self._towers[role]
        name = self.backend(role)
        path = self.folder / self.manifest.files[role].name
        try:
            return BACKENDS[name].open(path, threads=self._threads)
        except TowerError as error:
            raise ValueError(
                f"{path} cannot be loaded ({error}): export the checkpoint again, or update the package"
            ) from error

    def _run(self, role: str, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        tower = self._image_tower if role == "image" else self._text_tower
        try:
            return feed(tower, batch, preprocess=self.preprocess, pixels=self.manifest.pixels)
        except TowerError as error:
            raise ValueError(
                f"{self.folder}: the network failed on a batch of shape {batch.shape} ({error}): "
                f"export the checkpoint again"
            ) from error

    def _pixel_batches(
        self, images: Sequence[Image.Image], batch_size: int
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Batches of pixels; the next one is made while the network works on the one before."""
        batches = _batches(images, batch_size)
        if len(images) <= 1:
            yield from (np.stack([self.preprocess.pixels(image) for image in batch]) for batch in batches)
            return
        with ThreadPoolExecutor(self._threads or os.cpu_count()) as pool:
            coming = [pool.submit(self.preprocess.pixels, image) for image in batches[0]]
            for following in [*batches[1:], []]:
                ready, coming = coming, [pool.submit(self.preprocess.pixels, image) for image in following]
                yield np.stack([pixels.result() for pixels in ready])

    def _rows(self, parts: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        return np.concatenate(parts) if parts else np.empty((0, self.manifest.embed_dim), dtype=np.float32)


def _batches(items: Sequence[_Item], batch_size: int) -> list[Sequence[_Item]]:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    return [items[i : i + batch_size] for i in range(0, len(items), batch_size)]


def _require_backend(name: str, *, target: str) -> None:
    backend = BACKENDS.get(name)
    if backend is None:
        raise ValueError(f"backend is {name!r}: it must be {AUTO} or one of {', '.join(BACKENDS)}")
    if target not in backend.targets:
        raise ValueError(
            f"backend {name} runs {', '.join(backend.targets)}, and this folder was exported for {target}"
        )
    if not backend.is_there():
        raise ValueError(f"backend {name} is not to be had on this machine, or its package is not installed")


def _verify_once(folder: Path, manifest: Manifest) -> None:
    """Hashes every file, unless it has not been touched since that was last done here."""
    found = {}
    for file in manifest.files.values():
        path = folder / file.name
        if not path.is_file():  # the check below says so
            verify_files(folder, manifest)
        status = path.stat()
        found[file.name] = [
            file.sha256,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
        ]

    def verify() -> str:
        verify_files(folder, manifest)
        return "whole"

    remembered({"files": found, "folder": str(folder.resolve())}, verify)
