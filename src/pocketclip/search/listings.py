"""What an index shows without a query: albums of like pictures, near-duplicates, pictures that are like no other.

Shapes: N items, S sample, K albums, L labels, P pairs, D embedding.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.search.doctor.findings import alike, signature
from pocketclip.search.groups import clusters, duplicates, outliers
from pocketclip.search.vocabulary import embedded, word_list

if TYPE_CHECKING:
    from pocketclip.search.query import SearchIndex
    from pocketclip.search.question import Hit
    from pocketclip.search.store import IndexReader

Rows = npt.NDArray[np.float32]

NEAR_COSINE = 0.95
"""Pictures may be near-duplicates from this cosine on; their pixels decide."""

ALIKE = 0.95
"""Correlation of the pixels of near-duplicates, at least (`doctor.findings.alike`)."""

ALONE = 3.5
"""Standard deviations below what is usual from which on a picture is an outlier (`groups.Outliers`)."""

_CLUSTERED = 20_000  # items that albums are found among; the others join the nearest
_MOST_ALBUMS = 40
_KEPT_SIGNATURES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Group:
    """Pictures that belong together.

    Attributes:
        title: what they have in common.
        hits: the most typical first; scores are cosines with the group's middle, or with its first picture.
    """

    title: str
    hits: tuple[Hit, ...]


def find_albums(
    index: SearchIndex, num: int | None = None, *, labels: Sequence[str] = (), seed: int = 0
) -> list[Group]:
    """Albums of like pictures, each named by the label that sets it apart from the rest of the index.

    Args:
        index: to divide; every item is in one album.
        num: albums at most; None for about half the square root of the number of items, 40 at most.
        labels: for names; none for a list of everyday words.
        seed: of the division.

    Returns:
        The largest first.

    Raises:
        ValueError: `num` below 1.
        FileNotFoundError: the model, which reads the labels, is not where the index remembers it.
    """
    if num is not None and num < 1:
        raise ValueError(f"num is {num}: there is at least 1 album")
    if not len(index):
        return []
    num = num or min(_MOST_ALBUMS, max(1, round(math.sqrt(len(index)) / 2)))
    centre_KD = clusters(index.reader.vectors.sample(_CLUSTERED, seed=seed), num, seed=seed).centre_KD
    members: list[list[tuple[float, int]]] = [[] for _ in centre_KD]
    for ids_N, rows_ND in index.reader.vectors.blocks():
        cosine_NK = rows_ND @ centre_KD.T
        for number, label, cosine in zip(ids_N, cosine_NK.argmax(axis=1), cosine_NK.max(axis=1), strict=True):
            members[label].append((float(cosine), int(number)))
    names = _names(index, centre_KD, labels or word_list("labels"))
    groups = [
        Group(title=name, hits=index.hits(sorted(found, key=lambda pair: (-pair[0], pair[1]))))
        for name, found in zip(names, members, strict=True)
        if found
    ]
    return sorted(groups, key=lambda group: -len(group.hits))


def find_duplicates(index: SearchIndex, *, cosine: float = NEAR_COSINE) -> list[Group]:
    """Groups of near-duplicates: the model proposes, the pixels of the thumbnails confirm.

    Copies that are equal byte for byte are one item of the index; they are groups, too: the same hit, once for each
    place.

    Args:
        index: to look through.
        cosine: from which on pictures are looked at.

    Returns:
        The largest first; in a group the picture with most pixels first.
    """
    ids_N, rows_ND = _everything(index)
    same = lru_cache(_KEPT_SIGNATURES)(lambda number: _signature(index.reader, number))

    def confirm(one_P: npt.NDArray[np.int64], other_P: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        one, other = (np.stack([same(int(ids_N[row])) for row in rows]) for rows in (one_P, other_P))
        return alike(one, other, correlation=ALIKE)

    def confirm_some(one_P: npt.NDArray[np.int64], other_P: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return confirm(one_P, other_P) if len(one_P) else np.zeros(0, bool)

    groups = []
    grouped: set[int] = set()
    for rows in duplicates(rows_ND, threshold=cosine, confirm=confirm_some) if len(rows_ND) else []:
        pairs = [(float(rows_ND[row] @ rows_ND[rows[0]]), int(ids_N[row])) for row in rows]
        grouped.update(number for _, number in pairs)
        hits = sorted(index.hits(pairs), key=lambda hit: -hit.picture.width * hit.picture.height)
        groups.append(Group(title=f"{len(rows)} near-duplicates", hits=tuple(hits)))
    groups += [
        Group(title=f"{num} equal files", hits=index.hits([(1.0, number)]))
        for number in ids_N.tolist()
        if number not in grouped and (num := len(index.reader.places(number))) > 1
    ]
    return sorted(groups, key=lambda group: -len(group.hits))


def find_outliers(index: SearchIndex, *, most: int = 50) -> Group:
    """Pictures that are like no other of the index, the loneliest first; scores are mean cosines with the ten nearest.

    Args:
        index: to look through.
        most: pictures.
    """
    ids_N, rows_ND = _everything(index)
    found = outliers(rows_ND)
    alone = [int(row) for row in np.argsort(-found.z_N, kind="stable")[:most] if found.z_N[row] >= ALONE]
    pairs = [(float(found.cosine_N[row]), int(ids_N[row])) for row in alone]
    return Group(title=f"{len(alone)} outliers", hits=index.hits(pairs))


def distinct(ids: Iterable[int], rows_ND: Rows, reader: IndexReader) -> list[int]:
    """Places of those items that are no near-duplicates of an earlier one that is kept; their vectors are [N, D]."""
    numbers = list(ids)
    same = lru_cache(None)(lambda number: _signature(reader, number))
    kept: list[int] = []
    for place, number in enumerate(numbers):
        near = [other for other in kept if float(rows_ND[other] @ rows_ND[place]) >= NEAR_COSINE]
        if near:
            others = np.stack([same(numbers[other]) for other in near])
            own = np.repeat(same(number)[None], len(near), axis=0)
            if alike(own, others, correlation=ALIKE).any():
                continue
        kept.append(place)
    return kept


def _everything(index: SearchIndex) -> tuple[npt.NDArray[np.int64], Rows]:
    blocks = list(index.reader.vectors.blocks())
    if not blocks:
        return np.zeros(0, np.int64), np.zeros((0, index.reader.meta.embed_dim), np.float32)
    ids, rows = zip(*blocks, strict=True)
    return np.concatenate(ids), np.concatenate(rows)


def _signature(reader: IndexReader, number: int) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(reader.thumbnail(number))) as image:
        return signature(image.convert("RGB"))


def _names(index: SearchIndex, centre_KD: Rows, labels: Sequence[str]) -> list[str]:
    """The label that is nearest to each middle, compared with how near it is to the whole index; no name twice."""
    label_LD = embedded(index.model, labels, templates=index.templates)
    usual_D = index.reader.vectors.sample(_CLUSTERED, seed=0).mean(axis=0)
    lift_KL = (centre_KD - usual_D) @ label_LD.T
    names: list[str] = []
    for lift_L in lift_KL:
        ordered = [labels[number] for number in np.argsort(-lift_L, kind="stable")]
        names.append(next((name for name in ordered if name not in names), f"album {len(names) + 1}"))
    return names
