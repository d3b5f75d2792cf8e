"""A model and all that is needed to use it: configuration, preprocessing, tokenizer, and a digest of the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint.blank import blank
from pocketclip.checkpoint.records import unstructure
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.models.captioner import Captioner, network
from pocketclip.models.clip import Clip, ClipConfig
from pocketclip.models.fastvit import FastViTConfig
from pocketclip.models.fold import fold
from pocketclip.models.generate import Style, Writer
from pocketclip.models.hybrid_text import HybridTextConfig
from pocketclip.models.variants import Variant, variant


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Everything of a checkpoint but its weights.

    Attributes:
        model: the two towers.
        preprocess: picture to pixels.
        tokenizer: text to ids.
        run: how it was trained or what it was converted from, as JSON; empty for a model that was not.
    """

    model: ClipConfig
    preprocess: Preprocess
    tokenizer: TokenizerConfig
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model and all that is needed to use it.

    Attributes:
        model: in evaluation mode; `model.encode_image(image_BCHW, normalize=True)` gives float32 [B, embed_dim].
        config: what the checkpoint says of itself.
        tokenizer: the numpy tokenizer behind `tokenize`.
        digest: sha256 of config, merges and weights (as they were loaded), the same wherever the file was written.
    """

    model: Clip
    config: CheckpointConfig
    tokenizer: Tokenizer
    digest: str

    def folded(self) -> Loaded:
        """The same with its towers folded: equal outputs, faster, no longer trainable."""
        return replace(self, model=fold(self.model))

    def to(self, device: str) -> Loaded:
        """The same with its model moved (the model itself, as torch does it) to a device, channels last.

        Raises:
            ValueError: torch knows or has no such device here.
        """
        try:
            model = self.model.to(device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA raises AssertionError
            reason = str(error).splitlines()[0]
            raise ValueError(f"the model cannot be moved to device {device!r} ({reason}): try cpu") from None
        return replace(self, model=model)

    def preprocess(self, image: Image.Image) -> Tensor:
        """A picture of any mode and size to float32 [3, H, W], resized, cropped and normalised as in training."""
        return torch.from_numpy(self.config.preprocess(image))

    def tokenize(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Texts to int64 ids [B, L]: start, tokens, end, zeros; a text too long is cut and keeps its end mark."""
        return torch.from_numpy(self.tokenizer(texts, context_length))

    def write(self, image_BCHW: Tensor, *, style: Style, seeds: Sequence[int] = ()) -> list[list[str]]:
        """Captions of pictures; for many batches keep a `pocketclip.models.generate.Writer`.

        Args:
            image_BCHW: [B, 3, H, W], as `preprocess` makes them, on the model's device.
            style: how they are written.
            seeds: of each picture, 0 to 2^64 - 1; needed where anything is drawn.

        Returns:
            For every picture `style.num_captions` captions, in lower case; one may be empty.

        Raises:
            ValueError: the model does not write captions, or not such long ones.
            NotFiniteError: the weights have diverged.
        """
        if not isinstance(self.model, Captioner):
            raise ValueError("this model writes no captions: load a captioner, such as a CoCa")
        ids = Writer(self.model).write(image_BCHW, style=style, seeds=seeds)
        return [[self.tokenizer.decode(caption) for caption in captions] for captions in ids]


def variant_config(name: str) -> CheckpointConfig:
    """The configuration of a variant, by its name in either spelling."""
    row = variant(name)
    return CheckpointConfig(
        model=row.model, preprocess=_variant_preprocess(row), tokenizer=tokenizer_of(row.model)
    )


def tokenizer_of(model: ClipConfig) -> TokenizerConfig:
    """What a model's text tower takes."""
    return TokenizerConfig(vocab_size=model.text.vocab_size, context_length=model.text.context_length)


def _variant_preprocess(row: Variant) -> Preprocess:
    return Preprocess(size=row.image_px, mean=row.mean, std=row.std, interpolation=row.interpolation)


def create(name: str) -> Loaded:
    """A variant with random weights, in evaluation mode; `torch.manual_seed` makes it repeatable."""
    config = variant_config(name)
    return as_loaded(network(config.model).eval(), config=config, tokenizer=Tokenizer(config.tokenizer))


def assemble(state: Mapping[str, Tensor], *, config: CheckpointConfig, tokenizer: Tokenizer) -> Loaded:
    """A model made of these very tensors, in evaluation mode; torch's random state is left as it was.

    Args:
        state: every parameter and buffer of the un-folded model, on the CPU; they are not copied.
        config: of the model.
        tokenizer: of the same config.
    """
    model = blank(config.model)
    model.load_state_dict(state, assign=True)
    assert not any(value.is_meta for value in [*model.parameters(), *model.buffers()])
    return as_loaded(model.eval(), config=config, tokenizer=tokenizer)


def as_loaded(model: Clip, *, config: CheckpointConfig, tokenizer: Tokenizer) -> Loaded:
    """The record of a model in evaluation mode, its digest computed."""
    digest = hashlib.sha256(dump(describe(config)).encode())
    digest.update(tokenizer.merges)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{value.dtype}{list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).numpy().data)
    return Loaded(model=model, config=config, tokenizer=tokenizer, digest=digest.hexdigest())


def same_architecture(one: ClipConfig, other: ClipConfig) -> bool:
    """Whether two configurations have towers of one kind and size.

    They may differ in what only training sees (stochastic depth, starting values) and in the size of pictures and
    the number of tokens that a text may have.
    """
    return architecture(one) == architecture(other)


def architecture(config: ClipConfig) -> ClipConfig:
    """The configuration with what `same_architecture` leaves out set to one value."""
    image, text = config.image, replace(config.text, context_length=2)
    if isinstance(image, FastViTConfig):
        image = replace(image, drop_path=0.0, layer_scale_init=0.0, init_std=0.0)
    else:
        image = replace(image, drop_path=0.0, image_px=image.patch_px)
    if isinstance(text, HybridTextConfig):
        text = replace(text, layer_scale_init=0.0)
    return replace(config, image=image, text=text)


def describe(config: CheckpointConfig) -> dict[str, str]:
    """What decides a checkpoint's outputs besides weights and merges, each part as JSON text."""
    parts = {"model": config.model, "preprocess": config.preprocess, "tokenizer": config.tokenizer}
    return {name: dump(unstructure(part)) for name, part in parts.items()}


def dump(value: object) -> str:
    """JSON text: keys sorted, compact."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
