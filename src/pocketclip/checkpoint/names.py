"""Models by name, with open_clip's calling convention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint.loaded import Loaded, create, same_architecture, variant_config
from pocketclip.checkpoint.store import HUB_PREFIX, load
from pocketclip.data.tokenize import Tokenizer
from pocketclip.models.clip import Clip
from pocketclip.models.variants import CAPTIONERS, VARIANTS

Transform: TypeAlias = Callable[[Image.Image], Tensor]


class Tokenize(Protocol):
    """Texts to int64 ids [B, context_length]: start, tokens, end, zeros."""

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Tokenizes one text or several; a text too long is cut and keeps its end mark."""
        ...


def list_models() -> list[str]:
    """Names of all variants and captioners, sorted."""
    return sorted([*VARIANTS, *CAPTIONERS])


def create_model_and_transforms(
    name: str, pretrained: str | Path | None = None
) -> tuple[Clip, Transform, Transform]:
    """A model and its transform, as open_clip's function of this name gives them.

    Args:
        name: of a variant in either spelling (`MobileCLIP2-S0`, `mobileclip2_s0`).
        pretrained: whatever `pocketclip.load` takes: a checkpoint, weights of open_clip or Apple, a folder,
            "hf-hub:ORG/NAME"; None for random weights.

    Returns:
        The model in evaluation mode; then twice the transform of a picture to float32 [3, H, W] (training augments
        through `pocketclip.data.augment`, recorded and replayed, so there is no second kind of transform).

    Raises:
        ValueError: unknown name, or the checkpoint is of another variant.
        FileNotFoundError: no such checkpoint.
    """
    loaded = _load_variant(name, pretrained) if pretrained else create(name)
    return loaded.model, loaded.preprocess, loaded.preprocess


def get_tokenizer(name: str) -> Tokenize:
    """The tokenizer of a variant, by its name in either spelling.

    Raises:
        ValueError: unknown name.
    """
    tokenizer = Tokenizer(variant_config(name).tokenizer)

    def tokenize(texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        return torch.from_numpy(tokenizer(texts, context_length))

    return tokenize


def _load_variant(name: str, pretrained: str | Path) -> Loaded:
    expected = variant_config(name)
    is_there = str(pretrained).startswith(HUB_PREFIX) or Path(pretrained).exists()
    if not is_there:  # never another variant's random weights, for a path that reads like its name
        raise FileNotFoundError(
            f"{pretrained} does not exist: give pretrained a file written by `pocketclip train`, other weights, or "
            "hf-hub:ORG/NAME"
        )
    loaded = load(pretrained, variant=name)
    assert same_architecture(loaded.config.model, expected.model)
    return loaded
