"""Contact sheets that show what a model finds, and what it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocketclip.data.index import split_shards
from pocketclip.data.picture import decode
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader
from pocketclip.recipes.report import Sheet
from pocketclip.search import Query, Row, SearchIndex, SheetConfig, contact_sheet

# Words that are nobody's caption: what a person would type, from words of the captions to words that none has.
QUERIES = (
    "a red flag",
    "hands with dark skin",
    "a green animal",
    "a sad face",
    "something sweet to eat",
)
_CAPTIONS = 240
_ROWS = 6
_HITS = 7


def draw_sheets(database: Path, *, packed: Path, splits: Sequence[str], out: Path) -> tuple[Sheet, ...]:
    """Searches an index for captions, for free words and for pictures, and draws what comes back.

    Args:
        database: the index of `splits`.
        packed: the folder that was indexed.
        splits: its test sets; captions are asked in turn from each.
        out: folder for the PNG files.

    Returns:
        Sheets of captions found first, captions missed, free queries and picture queries.
    """
    search = SearchIndex(database)
    galleries = [_samples(packed, split) for split in splits]
    asked = _spread([_distinct(gallery) for gallery in galleries], num=_CAPTIONS)
    found, missed = _ask(search, asked)
    pictures = _spread([_with_likes(gallery) for gallery in galleries], num=_ROWS)
    rows = {
        "found": (
            found,
            f"Captions whose picture came first ({len(found)} of {len(asked)})",
            "The picture in a green frame is the right one.",
        ),
        "missed": (
            missed,
            f"Captions whose picture was not among the first {_HITS} ({len(missed)} of {len(asked)})",
            "What came instead.",
        ),
        "words": (
            [Row(title=query, hits=search.search(Query(text=query, k=_HITS)).hits) for query in QUERIES],
            "Words that are nobody's caption",
            "What a person might type; nobody can say which answer is right.",
        ),
        "pictures": (
            [_picture_row(search, sample) for sample in pictures],
            "Pictures as queries",
            "The most similar other pictures; a green frame has the same caption.",
        ),
    }
    sheets = []
    for name, (all_rows, title, caption) in rows.items():
        if not all_rows:
            continue
        shown = all_rows[:: max(1, len(all_rows) // _ROWS)][:_ROWS]
        path = out / f"{name}.png"
        contact_sheet(shown, path, config=SheetConfig())
        alt = f"{title}: {'; '.join(row.title for row in shown)}"
        sheets.append(Sheet(title=title, path=path, caption=caption, alt=alt))
    return tuple(sheets)


def _ask(search: SearchIndex, samples: Sequence[Sample]) -> tuple[list[Row], list[Row]]:
    """Queries by caption whose picture came first, and those whose picture did not come at all."""
    found, missed = [], []
    for sample in samples:
        caption = sample.captions[0]
        row = Row(
            title=caption,
            hits=search.search(Query(text=caption, k=_HITS, templates=())).hits,
            expected=(caption,),
        )
        right = [row.is_right(hit) for hit in row.hits]
        if right[0]:
            found.append(row)
        elif not any(right):
            missed.append(row)
    return found, missed


def _picture_row(search: SearchIndex, sample: Sample) -> Row:
    image = decode(sample.image, name=sample.key)
    nearest = search.search(Query(image=image, k=_HITS + 1)).hits
    others = [hit for hit in nearest if hit.key != sample.key][:_HITS]
    hits = [replace(hit, rank=rank) for rank, hit in enumerate(others, start=1)]
    return Row(title=sample.captions[0], hits=hits, expected=(sample.captions[0],), image=image)


def _samples(packed: Path, split: str) -> list[Sample]:
    samples = []
    for path in split_shards(packed, split):
        with ShardReader(path) as reader:
            samples += [reader[row] for row in range(len(reader))]
    return samples


def _distinct(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of each caption."""
    return list({sample.captions[0]: sample for sample in reversed(samples)}.values())[::-1]


def _with_likes(samples: Sequence[Sample]) -> list[Sample]:
    """Samples, one of each caption, that are not alone with it."""
    counts = Counter(sample.captions[0] for sample in samples)
    return [sample for sample in _distinct(samples) if counts[sample.captions[0]] > 1]


def _spread(groups: Sequence[Sequence[Sample]], *, num: int) -> list[Sample]:
    """About `num` samples, as many from each group that has any, at even distances."""
    filled = [group for group in groups if group]
    each = max(1, num // max(1, len(filled)))
    return [sample for group in filled for sample in group[:: max(1, len(group) // each)][:each]]
