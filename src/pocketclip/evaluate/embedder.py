"""What can be evaluated: anything that turns pictures and texts into unit-norm rows, wherever it comes from.

N: pictures or texts, B: batch, H, W: picture edges, D: embedding.
"""

from __future__ import annotations

import re
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
from pocketclip.runtime.manifest import MANIFEST_FILE
from pocketclip.runtime.session import ExportedModel
from pocketclip.teachers.teacher import Precision, Teacher, TeacherSpec, build_teacher

FOREIGN = ("open_clip:", "hf-hub:", "transformers:", "python:")
"""How the models of other libraries begin; see `TeacherSpec`."""


@runtime_checkable
class Embedder(Protocol):
    """A model that does its own preprocessing, for instance an exported one."""

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows of RGB pictures."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows."""
        ...


@runtime_checkable
class PixelEmbedder(Embedder, Protocol):
    """A model whose pictures may be decoded, resized and cropped elsewhere: by threads, once for several models.

    Attributes:
        facts: for the report.
        preprocess: picture to pixels; only size and interpolation count.
        logit_scale: what it multiplies cosines with before a softmax.
        digest: sha256 of weights, preprocessing and tokenizer.
    """

    facts: ModelFacts
    preprocess: Preprocess
    logit_scale: float
    digest: str

    def embed_pixels(self, pixels_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[B, D] unit-norm rows of uint8 RGB pictures of the model's size."""
        ...


Evaluable = Path | str | Loaded | Embedder
"""A checkpoint's path or name, an exported model's folder, another library's model by name, or a model at hand."""


class CheckpointEmbedder:
    """A checkpoint as a `PixelEmbedder`; it runs folded.

    Attributes:
        facts: for the report; parameters as trained.
        preprocess: picture to pixels.
        logit_scale: as learned.
        digest: of the checkpoint.
    """

    def __init__(
        self, loaded: Loaded, *, source: str, device: str = "cpu", precision: Precision = "fp32"
    ) -> None:
        self._loaded = loaded.folded().to(device)
        self._device = torch.device(device)
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.preprocess = loaded.config.preprocess
        self.logit_scale = float(loaded.model.logit_scale.detach().exp())
        self.digest = loaded.digest
        self.facts = ModelFacts(
            source=source,
            image_parameters=_num_parameters(loaded.model.image),
            text_parameters=_num_parameters(loaded.model.text),
            image_px=self.preprocess.size,
        )

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows of RGB pictures."""
        return self.embed_pixels(np.stack([self.preprocess.pixels(image) for image in images]))

    def embed_pixels(self, pixels_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[B, D] unit-norm rows of uint8 RGB pictures of the model's size."""
        image_BCHW = torch.from_numpy(self.preprocess.normalise(pixels_BHWC)).to(self._device)
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), self._precision():
            embed_BD = self._loaded.model.encode_image(image_BCHW, normalize=True)
        return embed_BD.float().cpu().numpy()

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows."""
        tokens_BL = self._loaded.tokenize(list(texts)).to(self._device)
        with torch.inference_mode(), self._precision():
            embed_BD = self._loaded.model.encode_text(tokens_BL, normalize=True)
        return embed_BD.float().cpu().numpy()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None)


class TeacherEmbedder:
    """Another library's model as a `PixelEmbedder`.

    Attributes:
        facts: for the report.
        preprocess: its own.
        logit_scale: as it learned.
        digest: of weights, preprocessing and tokenizer.
    """

    def __init__(self, teacher: Teacher, *, source: str) -> None:
        self._teacher = teacher
        described = teacher.describe().get("preprocess")
        self.preprocess = (
            Preprocess.from_json(described)
            if isinstance(described, dict)
            else Preprocess(size=teacher.image_px, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic")
        )
        self.logit_scale = teacher.record.logit_scale
        self.digest = teacher.record.digest
        self.facts = ModelFacts(source=source, image_px=teacher.image_px)

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows of RGB pictures."""
        return self.embed_pixels(np.stack([self.preprocess.pixels(image) for image in images]))

    def embed_pixels(self, pixels_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[B, D] unit-norm rows of uint8 RGB pictures of the model's size."""
        return self._teacher.encode_image(pixels_BHWC)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows."""
        return self._teacher.encode_text(texts)


class ExportedEmbedder:
    """An exported model as a `PixelEmbedder`.

    Attributes:
        facts: for the report.
        preprocess: as exported.
        logit_scale: as exported.
        digest: of its files.
    """

    def __init__(self, model: ExportedModel) -> None:
        self._model = model
        self.preprocess = model.preprocess
        self.logit_scale = model.manifest.logit_scale
        self.digest = model.manifest.digest
        self.facts = ModelFacts(source=str(model.folder), image_px=model.preprocess.size)
        self.embed_pixels = model.embed_pixels

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows of RGB pictures."""
        return self._model.embed_images(images)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] unit-norm rows."""
        return self._model.embed_texts(texts)


def as_embedder(
    model: Evaluable, *, name: str, device: str = "cpu", precision: Precision = "fp32"
) -> Embedder:
    """A model, wherever it comes from, as an embedder.

    Args:
        model: a path or name that `pocketclip.load` takes, the folder of an exported model, `open_clip:...`,
            `hf-hub:...`, `transformers:...` or `python:...` as teachers are named, a loaded checkpoint, or an embedder.
        name: for messages.
        device: where torch runs it; exported models run where the runtime does.
        precision: what torch computes in.

    Raises:
        ImportError: the model needs an extra that is not installed.
        ValueError: none of these, or a model that cannot be used.
        OSError: a model that cannot be read or fetched.
    """
    if isinstance(model, (str, Path)):
        source = str(model)
        if source.startswith(FOREIGN):
            spec = TeacherSpec(name=re.sub(r"[^A-Za-z0-9_-]", "-", name), source=source)
            return TeacherEmbedder(build_teacher(spec, device=device, precision=precision), source=source)
        if (Path(source) / MANIFEST_FILE).is_file():
            return ExportedEmbedder(ExportedModel(source))
        return CheckpointEmbedder(load(model), source=source, device=device, precision=precision)
    if isinstance(model, Loaded):
        return CheckpointEmbedder(model, source="in memory", device=device, precision=precision)
    if isinstance(model, ExportedModel):
        return ExportedEmbedder(model)
    if isinstance(model, Embedder):
        return model
    raise ValueError(
        f"model {name!r} is a {type(model).__name__}; give a checkpoint's path, a loaded one, "
        "or an exported model"
    )


def shape_of(preprocess: Preprocess) -> tuple[int, str]:
    """What decides the pixels of a preprocessing."""
    return preprocess.size, preprocess.interpolation


def model_facts(embedder: Embedder) -> ModelFacts:
    """What the embedder tells about itself."""
    if isinstance(embedder, PixelEmbedder):
        return embedder.facts
    return ModelFacts(source=type(embedder).__name__)


def _num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
