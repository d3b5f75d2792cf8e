"""Models by name, with open_clip's calling convention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint.store import Loaded, create, load, variant_config
from pocketclip.data.tokenize import Tokenizer
from pocketclip.models.clip import Clip
from pocketclip.models.variants import VARIANTS

Transform: TypeAlias = Callable[[Image.Image], Tensor]


class Tokenize(Protocol):
    """Texts to int64 ids [B, context_length]: start, tokens, end, zeros."""

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Tokenizes one text or several; a text too long is cut and keeps its end mark."""
        ...


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
    loaded = _load_variant(name, Path(pretrained)) if pretrained else create(name)
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


def _load_variant(name: str, path: Path) -> Loaded:
    expected = variant_config(name)
    if not path.is_file():  # never another variant's random weights, for a path that reads like its name
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}: give pretrained a file written by `pocketclip train`")
    loaded = load(path)
    if loaded.config.model != expected.model:
        raise ValueError(
            f"{path} does not hold a {name}: its towers are {loaded.config.model}; "
            "`pocketclip.load(path)` takes whatever a checkpoint holds"
        )
    return loaded
