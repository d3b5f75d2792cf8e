"""Zero-shot tags: which of a list of words each picture of an index shows, as far as the model can tell.

Shapes: N items of a block, L labels, D embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pocketclip.search.direction import Term
from pocketclip.search.threshold import LEAST_ITEMS, Calibration
from pocketclip.search.vocabulary import embedded, parse_list, word_list

if TYPE_CHECKING:
    from pocketclip.search.query import SearchIndex
    from pocketclip.search.store import IndexReader

Rows = npt.NDArray[np.float32]

QUANTILE = 0.9
"""The share of texts which show nothing that would be no picture's tag (docs/benchmarks.md, "Tags")."""


@dataclass(frozen=True, kw_only=True)
class TagSummary:
    """What was tagged.

    Attributes:
        num_items: of the index.
        num_tagged: items with a tag at least.
        counts: items of each label that any has, the most frequent first.
    """

    num_items: int
    num_tagged: int
    counts: Mapping[str, int]


def tag(index: SearchIndex, labels: Sequence[str] = (), *, most: int = 5) -> TagSummary:
    """Give every item of an index the labels that it matches; earlier tags are replaced.

    A label is accepted as a search with `min_score="auto"` accepts a picture, by where the matches of that very label
    end in this index, but more strictly: nobody looks at a tag before it is used. Of the accepted ones an item keeps
    those that are farthest above their end.

    Args:
        index: to tag. Items that are added later have no tags until it is tagged again.
        labels: words or phrases; none for a list of everyday words.
        most: tags of an item.

    Returns:
        Counts.

    Raises:
        ValueError: too few items to tell what matches, `most` below 1, or labels of which none is left.
        BlockingIOError: the index is being written by another process.
        FileNotFoundError: the model is not where the index remembers it.
    """
    if most < 1:
        raise ValueError(f"most is {most}: a picture may have at least 1 tag")
    words = [label.lower() for label in (parse_list(labels) if labels else word_list("labels"))]
    words = list(dict.fromkeys(words))
    if not words:
        raise ValueError("the labels to tag with are all empty: write words")
    calibration = index.calibration(quantile=QUANTILE)
    if calibration is None:
        raise ValueError(
            f"{index.path} has {len(index)} pictures: tags need at least {LEAST_ITEMS} to tell what matches"
        )
    label_LD = embedded(index.model, words, templates=index.templates)
    from pocketclip.search.writer import open_writer

    counts: Counter[str] = Counter()
    tagged: set[int] = set()

    def counted() -> Iterator[tuple[int, str, float]]:
        for item, label, score in _accepted(index.reader, label_LD, calibration, most=most):
            counts[words[label]] += 1
            tagged.add(item)
            yield item, words[label], score

    with open_writer(index.path, index.reader.meta) as writer:
        writer.set_tags(counted())
    return TagSummary(num_items=len(index), num_tagged=len(tagged), counts=dict(counts.most_common()))


def _accepted(
    reader: IndexReader, label_LD: Rows, calibration: Calibration, *, most: int
) -> Iterator[tuple[int, int, float]]:
    """Item, number of the label and cosine of all that is accepted."""
    least_L = np.array(
        [calibration.threshold([Term(vector_D=label_D, kind="text")]) for label_D in label_LD], np.float32
    )
    for ids_N, rows_ND in reader.vectors.blocks():
        score_NL = rows_ND @ label_LD.T
        above_NL = score_NL - least_L
        best_NM = np.argsort(-above_NL, axis=1, kind="stable")[:, :most]
        kept_NM = np.take_along_axis(above_NL, best_NM, axis=1) >= 0
        for row, place in zip(*np.nonzero(kept_NM), strict=True):
            label = int(best_NM[row, place])
            yield int(ids_N[row]), label, float(score_NL[row, label])
