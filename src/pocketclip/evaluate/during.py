"""Evaluation during training: pixels and tokens of one split are made once, then only the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from pocketclip.data.preprocess import Preprocess
from pocketclip.evaluate.metrics import retrieval
from pocketclip.evaluate.split import SplitReader

RowsT = TypeVar("RowsT", np.ndarray, Tensor)


class TwoTowers(Protocol):
    """What the evaluator asks of a module: two encoders with unit-norm rows."""

    def encode_image(self, image_BCHW: Tensor, *, normalize: bool = False) -> Tensor:
        """[B, D] rows of pictures."""
        ...

    def encode_text(self, tokens_BL: Tensor, *, normalize: bool = False) -> Tensor:
        """[B, D] rows of texts."""
        ...


def make_evaluator(
    data: Path,
    split: str = "validation",
    *,
    preprocess: Preprocess,
    tokenize: Callable[[list[str]], Tensor | np.ndarray],
    batch_size: int = 256,
    limit: int | None = None,
    prompt: str = "{}",
) -> Callable[[nn.Module], Mapping[str, float]]:
    """A function from a model (a `Clip`) to its scores on a split, the same numbers as `evaluate` gives.

    Pictures are read, decoded, resized and tokens made here, once. The function leaves the model in the mode
    it found it in and draws no random numbers, so a run with it and a run without it train the same.

    Args:
        data: packed folder.
        split: its name; the keys of the scores begin with it ("validation/mean_recall@1").
        preprocess: of the model that will be evaluated.
        tokenize: texts -> int64 [M, L].
        batch_size: rows a forward pass.
        limit: use at most so many pictures, evenly spaced over the split; None for all.
        prompt: text for a caption; `{}` stands for the caption.

    Raises:
        ValueError: a missing or empty split; later, by the function: embeddings that are not finite.
        OSError: the folder cannot be read.
    """
    reader = SplitReader(data, split, limit=limit)
    pixels = [preprocess.pixels(image) for image in reader.pictures()]
    facts = reader.facts()
    pixels_NHWC = np.stack(pixels)
    tokens_ML = torch.as_tensor(tokenize([prompt.replace("{}", text) for text in facts.texts]))

    def scores(model: nn.Module) -> Mapping[str, float]:
        was_training = model.training
        model.train(False)
        try:
            pictures = (preprocess.normalise(rows) for rows in _batches(pixels_NHWC, batch_size))
            images, texts = _embed(model, pictures, _batches(tokens_ML, batch_size))
        finally:
            model.train(was_training)
        found = retrieval(images, texts, facts.relevant, name=f"the model in training on split {split!r}")
        return {
            f"{split}/mean_recall@1": found.mean_recall(1),
            f"{split}/mean_recall@5": found.mean_recall(5),
            f"{split}/image_to_text_recall@1": found.recall("image_to_text", 1),
            f"{split}/text_to_image_recall@1": found.recall("text_to_image", 1),
        }

    return scores


def _embed(
    model: nn.Module, pictures: Iterable[np.ndarray], texts: Iterable[Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """[N, D] and [M, D] unit-norm rows of batches of pictures and token ids."""
    towers = cast("TwoTowers", model)
    device = next(model.parameters()).device
    with torch.inference_mode():
        image_rows = [towers.encode_image(torch.from_numpy(x).to(device), normalize=True) for x in pictures]
        text_rows = [towers.encode_text(tokens.to(device), normalize=True) for tokens in texts]
    return torch.cat(image_rows).float().cpu().numpy(), torch.cat(text_rows).float().cpu().numpy()


def _batches(rows: RowsT, size: int) -> list[RowsT]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
