"""The unit of scoring: a pure function of one unit of input, a request and teachers gives the columns of a score file.

Threads decode, measure and resize pictures while the teachers work. Rows are those of the unit, in its order, one for
each thing it offers: what cannot be used has a row too, without scores, so that row i stays sample i.
"""

# Shape suffixes: N rows of the unit, B of a batch, T captions of it, A views, D dimensions of an embedding.

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pocketclip.data.codec import encode
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.reinforced import embeddings_of
from pocketclip.data.reinforcement import Reinforcement
from pocketclip.engine import Item, mapped
from pocketclip.filter.config import Captions
from pocketclip.filter.measure import Measured, Measures, column_types, measure
from pocketclip.teachers import Teacher
from pocketclip.teachers.encode import encoded


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What to find out about a unit.

    Attributes:
        measures: what needs no network.
        captions: that scores are of.
        stored: teachers whose stored embeddings score.
        embeddings: teachers whose embeddings of the pictures are kept.
        batch_size: rows that a teacher sees at once.
        num_loaders: threads that decode; the columns do not depend on it.
    """

    measures: Measures
    captions: Captions
    stored: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    batch_size: int = 256
    num_loaders: int = 2


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What became of a unit.

    Attributes:
        columns: by name, in order; see `filter/scores.py`.
        unscored: key -> why a row has no score of some teacher.
        seconds: what the time went to: "load" (waiting for pictures), "image/NAME", "text/NAME", "stored".
    """

    columns: Mapping[str, np.ndarray] = field(repr=False)
    unscored: Mapping[str, str]
    seconds: Mapping[str, float]

    @property
    def num_rows(self) -> int:
        """Of every column."""
        return len(self.columns["id"])


def score_items(
    items: Iterable[Item],
    *,
    teachers: Sequence[Teacher],
    block: Reinforcement | None = None,
    request: ScoreRequest,
    progress: Callable[[int], object] = lambda _: None,
) -> Scored:
    """Scores what a unit offers.

    Args:
        items: of the unit, in order.
        teachers: that encode.
        block: the unit's reinforcement, where `request.stored` names teachers.
        request: what to find out.
        progress: called with the number of items that are through since the last call.

    Raises:
        ValueError: a teacher refuses whole batches, or the block lacks one of the stored teachers.
    """
    ways = [_preprocess(teacher) for teacher in teachers]
    kinds = list(dict.fromkeys(ways))
    columns = _Columns(request)
    with ThreadPoolExecutor(request.num_loaders, thread_name_prefix="measure") as pool:
        measured = mapped(
            lambda item: measure(item, ways=kinds, measures=request.measures),
            items,
            pool=pool,
            window=request.num_loaders + 2 * request.batch_size,
        )
        first = 0
        for rows in _batches(columns.waiting(measured), request.batch_size):
            columns.measured(rows)
            usable = [place for place, row in enumerate(rows) if row.reason is None]
            for teacher, way in zip(teachers, ways, strict=True):
                columns.encode(teacher, rows, usable, kind=kinds.index(way))
            for name in request.stored:
                assert block is not None, "stored embeddings need a reinforced shard"
                columns.take_stored(name, block, np.arange(first, first + len(rows)), rows)
            first += len(rows)
            progress(len(rows))
    return columns.finish([teacher.record.name for teacher in teachers])


def _batches(rows: Iterator[Measured], size: int) -> Iterator[list[Measured]]:
    while batch := list(islice(rows, size)):
        yield batch


def _preprocess(teacher: Teacher) -> Preprocess:
    """How the teacher's own pictures were made square; resized and cropped where it does not say."""
    described = teacher.describe().get("preprocess")
    if isinstance(described, dict):
        own = Preprocess.from_json(described)
        if own.size == teacher.image_px:
            return Preprocess(size=own.size, mean=(0, 0, 0), std=(1, 1, 1), interpolation=own.interpolation)
    return Preprocess(size=teacher.image_px, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic")


class _Columns:
    """The columns, batch by batch."""

    def __init__(self, request: ScoreRequest) -> None:
        self._request = request
        self._types = column_types(request.measures)
        self._parts: dict[str, list[np.ndarray]] = defaultdict(list)
        self._unscored: dict[str, str] = {}
        self._seconds: dict[str, float] = defaultdict(float)

    def waiting(self, rows: Iterator[Measured]) -> Iterator[Measured]:
        """The rows; times what each makes the caller wait."""
        while True:
            started = time.perf_counter()
            row = next(rows, None)
            self._seconds["load"] += time.perf_counter() - started
            if row is None:
                return
            yield row

    def measured(self, rows: Sequence[Measured]) -> None:
        """Takes what needs no network."""
        for name, kind in self._types.items():
            self._parts[name].append(np.array([row.values[name] for row in rows], kind))
        keys = [f"{row.key}\n".encode(errors="surrogatepass") for row in rows]
        self._parts["keys"].append(np.frombuffer(b"".join(keys), np.int8))
        self._parts["key_ends"].append(np.array([len(key) for key in keys], np.int64))
        for row in rows:
            if row.reason is not None:
                self._unscored[row.key] = row.reason

    def encode(self, teacher: Teacher, rows: Sequence[Measured], usable: Sequence[int], *, kind: int) -> None:
        """Lets a teacher see a batch."""
        name, width = teacher.record.name, teacher.record.embed_dim
        score_B = np.full(len(rows), np.nan, np.float32)
        image_BD = np.zeros((len(rows), width), np.float32)
        if usable:
            started = time.perf_counter()
            pixels = np.stack([rows[place].pixels[kind] for place in usable])
            image_UD, bad_images = encoded(teacher, teacher.encode_image, pixels)
            seen = time.perf_counter()
            texts = [text for place in usable for text in self._captions(rows[place])]
            owner_T = np.repeat(
                np.arange(len(usable)), [len(self._captions(rows[place])) for place in usable]
            )
            text_TD, bad_texts = self._texts(teacher, texts)
            self._seconds[f"image/{name}"] += seen - started
            self._seconds[f"text/{name}"] += time.perf_counter() - seen
            cosine_T = np.einsum("td,td->t", text_TD, image_UD[owner_T])
            score_U = _joined(cosine_T, owner_T, len(usable), captions=self._request.captions)
            bad = bad_images | {int(owner_T[text]): reason for text, reason in bad_texts.items()}
            for place, reason in bad.items():
                score_U[place] = np.nan
                self._unscored[rows[usable[place]].key] = reason
            image_UD[list(bad_images)] = 0.0
            score_B[usable], image_BD[usable] = score_U, image_UD
        self._add(name, score_B, image_BD)

    def take_stored(
        self, name: str, block: Reinforcement, samples_B: np.ndarray, rows: Sequence[Measured]
    ) -> None:
        """Scores a batch by what is stored of it: the mean over the views."""
        started = time.perf_counter()
        places = [teacher.name for teacher in block.header.teachers]
        if name not in places:
            raise ValueError(f"the shard has no embeddings of teacher {name!r}, it has {', '.join(places)}")
        stored = embeddings_of(block, samples_B)[places.index(name)]
        mean_BD = stored.image_NAD.mean(axis=1)
        counts_B = block.text_counts()[samples_B]
        starts_B = np.cumsum(counts_B) - counts_B
        own_B = np.array([max(1, len(self._captions(row))) for row in rows])  # ground truth comes first
        text_T = np.concatenate([np.arange(num) + start for start, num in zip(starts_B, own_B, strict=True)])
        owner_T = np.repeat(np.arange(len(rows)), own_B)
        cosine_T = np.einsum("td,td->t", stored.text_TD[text_T], mean_BD[owner_T])
        score_B = _joined(cosine_T, owner_T, len(rows), captions=self._request.captions)
        self._seconds["stored"] += time.perf_counter() - started
        length_B1 = np.linalg.norm(mean_BD, axis=1, keepdims=True)
        self._add(name, score_B, mean_BD / np.where(length_B1 > 0, length_B1, 1))

    def finish(self, teachers: Sequence[str]) -> Scored:
        """All columns, in the order of their names in the file."""
        columns = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        if not columns:
            columns = {name: np.zeros(0, kind) for name, kind in self._types.items()}
        else:
            columns["key_ends"] = np.cumsum(columns["key_ends"])
        for name in self._request.embeddings:
            rows_ND = columns.pop(f"rows/{name}", None)
            for part, table in encode(rows_ND, codec="int8").items() if rows_ND is not None else ():
                columns[f"embedding/{name}/{part}"] = table.array
        return Scored(columns=columns, unscored=self._unscored, seconds=dict(self._seconds))

    def _add(self, name: str, score_B: np.ndarray, image_BD: np.ndarray) -> None:
        self._parts[f"score/{name}"].append(score_B.astype(np.float32))
        if name in self._request.embeddings:
            self._parts[f"rows/{name}"].append(image_BD)

    def _captions(self, row: Measured) -> tuple[str, ...]:
        return row.captions[:1] if self._request.captions == "main" else row.captions

    def _texts(self, teacher: Teacher, texts: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
        """Embeddings of captions, a batch at a time, and those that have none."""
        parts, bad = [], {}
        for start in range(0, len(texts), self._request.batch_size):
            some = texts[start : start + self._request.batch_size]
            rows_BD, reasons = encoded(teacher, teacher.encode_text, some)
            parts.append(rows_BD)
            bad |= {start + row: reason for row, reason in reasons.items()}
        return np.concatenate(parts), bad


def _joined(cosine_T: np.ndarray, owner_T: np.ndarray, num: int, *, captions: Captions) -> np.ndarray:
    """A score for each sample out of those of its captions."""
    if captions == "best":
        score_B = np.full(num, -np.inf, np.float32)
        np.maximum.at(score_B, owner_T, cosine_T)
        return score_B
    counts_B = np.bincount(owner_T, minlength=num)
    return (np.bincount(owner_T, weights=cosine_T, minlength=num) / counts_B).astype(np.float32)
