"""Evaluation during training: pictures are decoded and texts tokenised once, then only the model runs.

What is measured is measured by the code of `evaluate` and `evaluate_tasks`, and gives their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pocketclip.data.index import Dropped
from pocketclip.data.preprocess import Preprocess
from pocketclip.evaluate.feed import default_threads, read_pixels
from pocketclip.evaluate.metrics import retrieval
from pocketclip.evaluate.score import score
from pocketclip.evaluate.sets.folders import open_packed
from pocketclip.evaluate.sets.item import PictureSet
from pocketclip.evaluate.sets.place import Wanted, open_set
from pocketclip.evaluate.split import split_facts
from pocketclip.evaluate.tasks import Task
from pocketclip.evaluate.texts import TextRows

Tokenize = Callable[[list[str]], Tensor | np.ndarray]
Evaluator = Callable[[nn.Module], Mapping[str, float]]


class TwoTowers(Protocol):
    """What the evaluator asks of a module: two encoders with unit-norm rows, and a temperature."""

    logit_scale: Tensor

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
    tokenize: Tokenize,
    batch_size: int = 256,
    limit: int | None = None,
    prompt: str = "{}",
) -> Evaluator:
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
    pictures = open_packed(data, split=split)
    kept = _Kept.read(pictures, preprocess=preprocess, limit=limit)
    facts = split_facts(pictures, kept.rows.tolist(), kept.dropped, split=split, folder=data)
    texts = [prompt.replace("{}", text) for text in facts.texts]
    memory = _Tokens(tokenize)
    memory(texts)

    def scores(model: nn.Module) -> Mapping[str, float]:
        with _Resting(model) as towers:
            found = retrieval(
                towers.embed_pixels(kept.pixels_NHWC, preprocess, batch_size),
                towers.embed_texts(memory(texts), batch_size),
                facts.relevant,
                name=f"the model in training on split {split!r}",
            )
        return {
            f"{split}/mean_recall@1": found.mean_recall(1),
            f"{split}/mean_recall@5": found.mean_recall(5),
            f"{split}/image_to_text_recall@1": found.recall("image_to_text", 1),
            f"{split}/text_to_image_recall@1": found.recall("text_to_image", 1),
        }

    return scores


def make_task_evaluator(
    wanted: Sequence[Wanted],
    *,
    preprocess: Preprocess,
    tokenize: Tokenize,
    batch_size: int = 256,
    limit: int | None = None,
) -> Evaluator:
    """A function from a model (a `Clip`) to its main metrics on tasks, the same numbers as `evaluate_tasks` gives.

    As `make_evaluator`; pixels stay in memory, 0.2 MB a picture of 256 px, so give a limit for large sets.

    Args:
        wanted: what `locate` found; the keys of the scores are "cifar10/acc1" and so on.
        preprocess: of the model that will be evaluated.
        tokenize: texts -> int64 [M, L].
        batch_size: rows a forward pass.
        limit: use at most so many pictures of each set, evenly spaced; None for all.

    Raises:
        ValueError: a set that is damaged, or not what its task needs.
        OSError: a set that cannot be read.
    """
    opened = [(one.task, open_set(one)) for one in wanted]
    held = [
        (task, pictures, _Kept.read(pictures, preprocess=preprocess, limit=limit))
        for task, pictures in opened
    ]
    memory = _Tokens(tokenize)

    def scores(model: nn.Module) -> Mapping[str, float]:
        with _Resting(model) as towers:
            texts = TextRows(_TextTower(towers, memory, batch_size), batch_size=batch_size)
            return {
                f"{task.key}/{task.main_metric}": value
                for task, pictures, kept in held
                if (value := _main(task, pictures, kept, towers, texts, preprocess, batch_size)) is not None
            }

    return scores


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Pixels of the pictures that could be read."""

    rows: NDArray[np.int64]
    pixels_NHWC: NDArray[np.uint8]
    dropped: tuple[Dropped, ...]

    @classmethod
    def read(cls, pictures: PictureSet, *, preprocess: Preprocess, limit: int | None) -> _Kept:
        size = len(pictures.items)
        count = size if limit is None else min(size, limit)
        chosen = [row * size // count for row in range(count)]
        rows, pixels, dropped = read_pixels(
            pictures, chosen, preprocess=preprocess, threads=default_threads()
        )
        return cls(rows=rows, pixels_NHWC=pixels, dropped=dropped)


class _Tokens:
    """Ids of texts, made once."""

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._known: dict[tuple[str, ...], Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """int64 [M, L]."""
        key = tuple(texts)
        if key not in self._known:
            self._known[key] = torch.as_tensor(self._tokenize(list(texts)))
        return self._known[key]


class _Resting:
    """A model in evaluation mode while the block runs, and then again as it was."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._was_training = model.training

    def __enter__(self) -> _Resting:
        self._model.train(False)
        return self

    def __exit__(self, *error: object) -> None:
        self._model.train(self._was_training)

    @property
    def logit_scale(self) -> float:
        return float(cast("TwoTowers", self._model).logit_scale.detach().exp())

    def embed_pixels(
        self, pixels_NHWC: NDArray[np.uint8], preprocess: Preprocess, batch_size: int
    ) -> NDArray[np.float32]:
        """[N, D]."""
        batches = (pixels_NHWC[i : i + batch_size] for i in range(0, len(pixels_NHWC), batch_size))
        towers = cast("TwoTowers", self._model)
        return self._rows(
            towers.encode_image, (torch.from_numpy(preprocess.normalise(batch)) for batch in batches)
        )

    def embed_texts(self, tokens_ML: Tensor, batch_size: int) -> NDArray[np.float32]:
        """[M, D]."""
        return self._rows(cast("TwoTowers", self._model).encode_text, tokens_ML.split(batch_size))

    def _rows(self, encode: Callable[..., Tensor], batches: Iterable[Tensor]) -> NDArray[np.float32]:
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            rows = [encode(batch.to(device), normalize=True) for batch in batches]
        return torch.cat(rows).float().cpu().numpy()


class _TextTower:
    """The text side of a model in training, as an embedder."""

    def __init__(self, towers: _Resting, tokens: _Tokens, batch_size: int) -> None:
        self._towers = towers
        self._tokens = tokens
        self._batch_size = batch_size

    def embed_images(self, images: Sequence[object]) -> NDArray[np.float32]:
        """Never asked: pixels are at hand."""
        raise AssertionError("pictures come as pixels")

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[M, D] unit-norm rows."""
        return self._towers.embed_texts(self._tokens(texts), self._batch_size)


def _main(
    task: Task,
    pictures: PictureSet,
    kept: _Kept,
    towers: _Resting,
    texts: TextRows,
    preprocess: Preprocess,
    batch_size: int,
) -> float | None:
    return score(
        task,
        pictures,
        kept.rows,
        towers.embed_pixels(kept.pixels_NHWC, preprocess, batch_size),
        texts,
        logit_scale=towers.logit_scale,
        name=f"the model in training on {task.name}",
    ).metrics["main_metric"]
