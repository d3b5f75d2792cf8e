"""CoCa models as captioners, wherever their weights are from; all are run by our own network and decoder.

What is drawn for a caption comes from its sample's key and its number, so it depends neither on the batch nor on how
many captions a picture gets.
"""

# Shape suffixes: B pictures, C channels, H W pixels.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint import Captioner, Loaded, NotFiniteError, Style, Writer, from_open_clip, load
from pocketclip.data.augment import seeded
from pocketclip.data.sample import JsonValue
from pocketclip.teachers.captioner import CaptionerSpec
from pocketclip.teachers.open_clip_models import CONFIG_FILE, load_open_clip
from pocketclip.teachers.teacher import Precision
from pocketclip.teachers.towers import AUTOCAST, torch_device

SOURCES = """\
a checkpoint FILE or FOLDER (what `pocketclip.load` takes), hf-hub:ORG/NAME, open_clip:MODEL/PRETRAINED, \
open_clip:MODEL/random, open_clip:FOLDER, transformers:ORG/NAME, transformers:FOLDER or python:MODULE:FUNCTION"""
_ROWS = 256
"""Captions that are written at once: what is kept of each while it is written is about a megabyte a layer."""


def build_coca(spec: CaptionerSpec, *, device: str, precision: Precision) -> CocaCaptioner:
    """The CoCa that a path, `hf-hub:ORG/NAME[@REVISION]` or `open_clip:...` names.

    Raises:
        ImportError: open_clip is asked for its model and not installed.
        FileNotFoundError: no such file, folder or repository.
        ConnectionError: the weights cannot be downloaded.
        ValueError: the model is no CoCa, or cannot be used.
    """
    what = f"captioner {spec.name}"
    kind, separator, rest = spec.source.partition(":")
    if separator and kind == "open_clip":
        return CocaCaptioner(spec, _of_open_clip(rest, what=what), device=device, precision=precision)
    if not (separator and kind == "hf-hub") and not Path(spec.source).exists():
        raise ValueError(f"{what}: {spec.source!r} does not exist, and is none of {SOURCES}")
    return CocaCaptioner(spec, load(spec.source), device=device, precision=precision)


def _of_open_clip(reference: str, *, what: str) -> Loaded:
    if (Path(reference) / CONFIG_FILE).is_file():
        return load(reference)
    found = load_open_clip(reference, what=what)
    if not hasattr(found.model, "text_decoder"):
        raise ValueError(_cannot_write(f"{what}: open_clip:{reference}", found.model))
    values = {"model_cfg": found.facts["config"], "preprocess_cfg": found.preprocess.to_json()}
    return from_open_clip(values, found.model.state_dict(), source=f"open_clip:{reference}")


def _cannot_write(which: str, model: object) -> str:
    return (
        f"{which} is a {type(model).__name__} and cannot write: give a CoCa, for instance "
        "open_clip:coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k"
    )


class CocaCaptioner:
    """A CoCa as a `Captioner`.

    Args:
        spec: which, and how it samples.
        loaded: the model, which is folded and moved to the device.
        device: where it runs.
        precision: what it computes in.

    Raises:
        ValueError: the model is no CoCa, or its texts are shorter than the spec's.
    """

    def __init__(
        self, spec: CaptionerSpec, loaded: Loaded, *, device: str = "cpu", precision: Precision = "fp32"
    ) -> None:
        what = f"captioner {spec.name}"
        if not isinstance(loaded.model, Captioner):
            raise ValueError(_cannot_write(f"{what}: {spec.source}", loaded.model))
        longest = loaded.config.model.text.context_length
        if spec.max_length > longest:
            raise ValueError(f"{what}: max_length {spec.max_length} is beyond the model's {longest} tokens")
        self.name = spec.name
        self.digest = loaded.digest
        self._spec = spec
        self._style = _style(spec)
        self._precision = precision
        self._device = torch_device(device, what=what)
        self._loaded = loaded.folded().to(str(self._device))
        assert isinstance(self._loaded.model, Captioner)
        self._writer = Writer(self._loaded.model)

    def describe(self) -> dict[str, JsonValue]:
        """What it is, as JSON for a manifest."""
        config = self._loaded.config
        return {
            **self._spec.to_json(),
            "digest": self.digest,
            "precision": self._precision,
            "preprocess": config.preprocess.to_json(),
            "library": "pocketclip",
            "context_length": config.tokenizer.context_length,
        }

    def caption(self, images: Sequence[Image.Image], keys: Sequence[str]) -> list[tuple[str, ...]]:
        """Up to `num_captions` captions of each picture, those left out that say nothing.

        Args:
            images: of any mode and size; they are resized, cropped and normalised as the model's own are.
            keys: of their samples, different ones; what is sampled depends on them.

        Raises:
            ValueError: the model gives logits that are not finite; the sentence names the sample.
        """
        assert len(images) == len(keys)
        together = max(1, _ROWS // max(self._style.beams, self._style.num_captions))
        captions: list[tuple[str, ...]] = []
        for first in range(0, len(images), together):
            some = slice(first, first + together)
            captions += self._caption(images[some], keys[some])
        return captions

    def _caption(self, images: Sequence[Image.Image], keys: Sequence[str]) -> list[tuple[str, ...]]:
        image_BCHW = self._pixels(images)
        seeds = [seeded(self._spec.seed, "caption", self.name, key).getrandbits(64) for key in keys]
        half = AUTOCAST.get(self._precision)
        try:
            with torch.autocast(self._device.type, dtype=half, enabled=half is not None):
                ids = self._writer.write(image_BCHW, style=self._style, seeds=seeds)
        except NotFiniteError as error:
            raise ValueError(
                f"captioner {self.name} gives logits that are not finite for sample {keys[error.picture]}: its weights "
                f"have diverged, or {self._precision} is too coarse for them"
            ) from error
        decode = self._loaded.tokenizer.decode
        return [self._spec.finished([decode(one) for one in captions]) for captions in ids]

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        preprocess = self._loaded.config.preprocess
        image_BCHW = preprocess.normalise(np.stack([preprocess.pixels(image) for image in images]))
        return torch.from_numpy(image_BCHW).to(self._device).to(memory_format=torch.channels_last)


def _style(spec: CaptionerSpec) -> Style:
    return Style(
        num_captions=spec.num_captions,
        max_length=spec.max_length,
        min_length=spec.min_length,
        temperature=spec.temperature,
        top_k=spec.top_k,
        top_p=spec.top_p,
        beams=spec.beams,
        beam_groups=spec.beam_groups,
        diversity_penalty=spec.diversity_penalty,
        length_penalty=spec.length_penalty,
        repetition_penalty=spec.repetition_penalty,
        no_repeat_ngram=spec.no_repeat_ngram,
    )
