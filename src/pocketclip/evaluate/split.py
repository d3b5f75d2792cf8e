"""A split of a packed folder as the queries of retrieval."""

from __future__ import annotations

from collections.abc import Sequence

from pocketclip.data.index import Dropped
from pocketclip.evaluate.results import SplitFacts
from pocketclip.evaluate.sets.item import PictureSet


def split_facts(
    pictures: PictureSet, rows: Sequence[int], dropped: Sequence[Dropped], *, split: str, folder: object
) -> SplitFacts:
    """The texts are the distinct main captions of the pictures that could be read, and each is right for all its own.

    Args:
        pictures: the split, as `open_packed` opens it.
        rows: of its items that could be read.
        dropped: the others, and why.
        split: its name, for messages.
        folder: where it is, for messages.

    Raises:
        ValueError: no picture could be read.
    """
    if not len(rows):
        first = dropped[0]
        raise ValueError(
            f"none of the {len(dropped)} pictures in {split!r} of {folder} can be read "
            f"(the first: {first.source}: {first.reason}); pack the folder again"
        )
    texts: dict[str, int] = {}
    items = [pictures.items[row] for row in rows]
    return SplitFacts(
        relevant=tuple((texts.setdefault(item.captions[0], len(texts)),) for item in items),
        image_keys=tuple(item.key for item in items),
        texts=tuple(texts),
        skipped=tuple(dropped),
    )
