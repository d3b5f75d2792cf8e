"""From embeddings to who was found: retrieval in both directions and n-way accuracy, without torch.

Everything rests on one number a query, its *beaten*: how many wrong candidates score at least as high as the
best right one. A tie is therefore a loss, and embeddings that are all alike find nothing.

N: images, M: texts, D: embedding, Q: queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Direction = Literal["image_to_text", "text_to_image"]
Ties = Literal["lose", "first"]
"""Of equal scores: a wrong candidate always beats a right one, or what comes earlier in the set beats the other."""
DIRECTIONS: tuple[Direction, Direction] = ("image_to_text", "text_to_image")

# Equal vectors may differ in the last bits of their fp64 products, by where BLAS happens to place them.
_TIE = 1e-12
_SCORES_AT_A_TIME = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One direction of retrieval, a row a query.

    Attributes:
        beaten: int64 [Q], how many wrong candidates score at least as high as the best right one
            (0: found first).
        wrong: int64 [Q], how many wrong candidates there are.
    """

    beaten: NDArray[np.int64]
    wrong: NDArray[np.int64]

    def hits(self, k: int) -> NDArray[np.float64]:
        """[Q] 1.0 where a right candidate is among the first k, else 0.0; its mean is recall@k."""
        if k < 1:
            raise ValueError(f"recall@k needs k of at least 1, not {k}")
        return (self.beaten < k).astype(np.float64)

    def nway(self, n: int) -> NDArray[np.float64]:
        """[Q] chance (0..1) of beating n-1 wrong candidates drawn at random; see `nway_accuracy`."""
        return nway_accuracy(self.beaten, self.wrong, n=n)


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Both directions of retrieval over one set."""

    image_to_text: Ranks
    text_to_image: Ranks

    def recall(self, direction: Direction, k: int) -> float:
        """recall@k of one direction, 0..1."""
        ranks = self.image_to_text if direction == "image_to_text" else self.text_to_image
        return float(ranks.hits(k).mean())

    def mean_recall(self, k: int) -> float:
        """Mean of both directions' recall@k, 0..1."""
        return (self.recall("image_to_text", k) + self.recall("text_to_image", k)) / 2


def retrieval(
    image_embed_ND: ArrayLike,
    text_embed_MD: ArrayLike,
    relevant: Sequence[Sequence[int]],
    *,
    name: str,
    ties: Ties = "lose",
) -> Retrieval:
    """Rank all texts for every image and all images for every text, by dot product.

    A query is found in the first k if any of its right candidates is; ties count against the model, unless the same
    text occurs several times, as in COCO, where no model could win them.

    Args:
        image_embed_ND: [N, D] unit-norm image embeddings.
        text_embed_MD: [M, D] unit-norm embeddings of distinct texts.
        relevant: for each image the rows of its right texts; every text is right for some image.
        name: what is measured ("model 'plain' on split 'test-style'"), for messages.
        ties: who wins of equal scores.

    Raises:
        ValueError: embeddings that are not finite, or not of one width, or too few of them to tell anything.
    """
    images, texts = (
        _finite(image_embed_ND, name=name, what="image"),
        _finite(text_embed_MD, name=name, what="text"),
    )
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"{name}: image embeddings are {images.shape[1]} wide and text embeddings {texts.shape[1]}; "
            "they must come from one model"
        )
    if len(relevant) != len(images):
        raise ValueError(f"{name}: {len(images)} image embeddings but right texts for {len(relevant)} images")
    if len(texts) < 2:
        raise ValueError(f"{name}: retrieval needs at least 2 distinct captions, there is {len(texts)}")
    images_of: list[list[int]] = [[] for _ in range(len(texts))]
    for image, rows in enumerate(relevant):
        for text in set(rows):
            images_of[text].append(image)
    if not all(len(rows) for rows in relevant):
        raise ValueError(f"{name}: an image has no right text")
    if not all(images_of):
        raise ValueError(f"{name}: text {images_of.index([])} has no right image")
    return Retrieval(
        image_to_text=_rank(images, texts, relevant, ties=ties),
        text_to_image=_rank(texts, images, images_of, ties=ties),
    )


def nway_accuracy(beaten_Q: ArrayLike, wrong_Q: ArrayLike, *, n: int) -> NDArray[np.float64]:
    """Expected n-way zero-shot accuracy of each query, exact over all sets of n-1 distractors.

    No distractors are sampled. Of the W wrong candidates, b score at least as high as the right one, so a
    random set of n-1 of them holds none of the b with probability C(W-b, n-1) / C(W, n-1); with W = M-1 other
    captions that is C(M-1-b, n-1) / C(M-1, n-1). Fewer than n candidates: n becomes as many as there are.

    Args:
        beaten_Q: [Q] integers b.
        wrong_Q: [Q] integers W, or one for all.
        n: candidates in a trial, the right one included, at least 2.

    Returns:
        float64 [Q] in 0..1; their mean is the n-way accuracy.

    Raises:
        ValueError: n below 2.
    """
    if n < 2:
        raise ValueError(f"n-way accuracy needs n of at least 2, not {n}")
    beaten = np.asarray(beaten_Q, dtype=np.float64)
    wrong = np.broadcast_to(np.asarray(wrong_Q, dtype=np.float64), beaten.shape)
    chance = np.ones(beaten.shape)
    for drawn in range(min(n - 1, int(wrong.max(initial=0)))):
        left = wrong - drawn
        survive = np.divide(np.maximum(left - beaten, 0), left, out=np.ones_like(left), where=left > 0)
        chance *= survive
    return chance


def relevance_groups(
    relevant: Sequence[Sequence[int]], *, num_texts: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which queries belong together: images and texts connected by being right for each other.

    Args:
        relevant: for each image the rows of its right texts.
        num_texts: M.

    Returns:
        int64 [N] and [M], the group of every image and every text, numbered 0..G-1 in order of appearance.
    """
    parent = list(range(num_texts))

    def root(text: int) -> int:
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for rows in relevant:
        for text in rows:
            parent[root(text)] = root(rows[0])
    number: dict[int, int] = {}
    text_groups = [number.setdefault(root(text), len(number)) for text in range(num_texts)]
    image_groups = [text_groups[rows[0]] for rows in relevant]
    return np.array(image_groups, dtype=np.int64), np.array(text_groups, dtype=np.int64)


def _finite(embed: ArrayLike, *, name: str, what: str) -> NDArray[np.float64]:
    rows = np.asarray(embed, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0:
        raise ValueError(f"{name}: there are no {what} embeddings (expected [rows, width], got {rows.shape})")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: {len(bad)} of {len(rows)} {what} embeddings are NaN or infinite (first: row {bad[0]}); "
            "the training diverged or the checkpoint is damaged: train again with a lower learning rate, or "
            "evaluate an earlier checkpoint"
        )
    return rows


def _rank(
    query_QD: NDArray[np.float64],
    candidate_CD: NDArray[np.float64],
    right: Sequence[Sequence[int]],
    *,
    ties: Ties,
) -> Ranks:
    num_right = np.array([len(set(rows)) for rows in right], dtype=np.int64)
    beaten = np.empty(len(query_QD), dtype=np.int64)
    for start, stop in _blocks(len(query_QD), len(candidate_CD)):
        score = query_QD[start:stop] @ candidate_CD.T
        rows = np.repeat(np.arange(stop - start), [len(r) for r in right[start:stop]])
        columns = np.concatenate([np.asarray(r, dtype=np.int64) for r in right[start:stop]])
        best = np.full(stop - start, -np.inf)
        np.maximum.at(best, rows, score[rows, columns])
        level = (best - _TIE)[:, None]
        earliest = np.full(stop - start, len(candidate_CD))
        at_best = score[rows, columns] >= level[rows, 0]
        np.minimum.at(earliest, rows[at_best], columns[at_best])
        score[rows, columns] = -np.inf
        wins = score >= level
        if ties == "first":
            later = np.arange(len(candidate_CD)) > earliest[:, None]
            wins &= ~(later & (score <= (best + _TIE)[:, None]))
        beaten[start:stop] = wins.sum(axis=1)
    return Ranks(beaten=beaten, wrong=len(candidate_CD) - num_right)


def _blocks(queries: int, candidates: int) -> Iterator[tuple[int, int]]:
    step = max(1, _SCORES_AT_A_TIME // candidates)
    for start in range(0, queries, step):
        yield start, min(start + step, queries)
