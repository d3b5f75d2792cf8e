"""Models by name, with open_clip's calling convention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint.store import Loaded, create, load, variant_config
from pocketclip.data.tokenize import Tokenizer
from pocketclip.models.clip import Clip
from pocketclip.models.variants import VARIANTS

Transform: TypeAlias = Callable[[Image.Image], Tensor]
Tokenize: TypeAlias = Callable[[str | Sequence[str]], Tensor]


def list_models() -> list[str]:
    """Names of all variants, sorted."""
    return sorted(VARIANTS)


def create_model_and_transforms(
    name: str, pretrained: str | Path | None = None
) -> tuple[Clip, Transform, Transform]:
    """A model and its transform, as open_clip's function of this name gives them.

    Args:
        name: of a variant in either spelling (`MobileCLIP2-S0`, `mobileclip2_s0`).
        pretrained: checkpoint file; None for random weights.

    Returns:
        The model in evaluation mode; then twice the transform of a picture to float32 [3, H, W] (training augments
        through `pocketclip.data.augment`, recorded and replayed, so there is no second kind of transform).

    Raises:
        ValueError: unknown name, or the checkpoint is of another variant.
        FileNotFoundError: no such checkpoint.
    """
    loaded = create(name) if pretrained is None else _load_variant(name, Path(pretrained))
    return loaded.model, loaded.preprocess, loaded.preprocess


def get_tokenizer(name: str) -> Tokenize:
    """The tokenizer of a variant: texts to int64 [B, context_length].

    Raises:
        ValueError: unknown name.
    """
    tokenizer = Tokenizer(variant_config(name).tokenizer)

    def tokenize(texts: str | Sequence[str]) -> Tensor:
        return torch.from_numpy(tokenizer(texts))

    return tokenize


def _load_variant(name: str, path: Path) -> Loaded:
    loaded, expected = load(path), variant_config(name)
    if loaded.config.model != expected.model:
        raise ValueError(
            f"{path} does not hold a {name}: its towers are {loaded.config.model}; "
            "`pocketclip.load(path)` takes whatever a checkpoint holds"
        )
    return loaded
