"""Asking an index: words, a picture, both, or one of its own pictures; the nearest come first.

Shapes: N candidates, P phrases, S sample, D embedding.
"""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pocketclip.search.direction import Term, balanced, combine, mean, without
from pocketclip.search.filters import Filter, is_inside
from pocketclip.search.phrases import parse
from pocketclip.search.prompts import prompts
from pocketclip.search.question import Found, Hit, Query
from pocketclip.search.store import IndexReader, Picture
from pocketclip.search.threshold import BACKGROUND_QUANTILE, LEAST_ITEMS, Calibration, calibrate
from pocketclip.search.vocabulary import embedded, read_by, word_list

if TYPE_CHECKING:
    from PIL import Image

    from pocketclip.runtime import ExportedModel
    from pocketclip.search.listings import Group
    from pocketclip.search.tags import TagSummary

Rows = npt.NDArray[np.float32]

_KEPT_TEXTS = 4096  # embeddings of texts that are remembered
_KEPT_FILTERS = 8  # whose items are remembered
_SAMPLE = 4096  # vectors that stand for the index in statistics
_CHANGED = 0.1  # share of items by which an index may grow before statistics are worked out again


class SearchIndex:
    """An index that answers queries; safe to use from several threads, also while another process indexes.

    The model is loaded with the first query that needs it, and of it only the tower that the query needs.

    Attributes:
        path: of the index.
        reader: its pictures.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        model: Path | str | None = None,
        threads: int | None = None,
        soon: bool = False,
    ) -> None:
        """Open an index.

        Args:
            path: folder written by `pocketclip index`.
            model: folder of the exported model; None takes the one that the index remembers.
            threads: of the network; None for one per core.
            soon: run the model with what starts soonest instead of what runs fastest, for a query or two.

        Raises:
            FileNotFoundError: there is no such index.
            ValueError: not an index, damaged, of another version.
        """
        self.path = Path(path)
        self.reader = IndexReader(self.path)
        self._model_folder = None if model is None else Path(model)
        self._threads = threads
        self._soon = soon
        self._texts: OrderedDict[str, Rows] = OrderedDict()
        self._allowed: OrderedDict[tuple[int, Filter], npt.NDArray[np.int64]] = OrderedDict()
        self._lock = Lock()
        self._sample: tuple[int, Rows] | None = None
        self._calibrations: dict[tuple[tuple[str, ...], bool, float], tuple[int, Calibration | None]] = {}

    def __len__(self) -> int:
        """Number of items: pictures, and frames of videos."""
        return len(self.reader)

    @cached_property
    def model(self) -> ExportedModel:
        """The model that made the vectors.

        Raises:
            FileNotFoundError: it is not where the index remembers it.
            ValueError: the folder holds another model, or a damaged one.
        """
        from pocketclip.runtime import ExportedModel
        from pocketclip.runtime.manifest import read_manifest

        meta = self.reader.meta
        named = os.environ.get("POCKETCLIP_MODEL")
        places = [self.path.absolute() / meta.model_nearby, meta.model, *([Path(named)] if named else [])]
        folder = self._model_folder or next((place for place in places if place.is_dir()), meta.model)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.path} was made with the model in {folder}, which is not there: "
                f"name its folder with --model, or index the pictures again"
            )
        is_soonest_there = self._soon and read_manifest(folder).target == "onnx"
        backend = "onnxruntime" if is_soonest_there else "auto"
        model = ExportedModel(folder, backend=backend, threads=self._threads)
        if model.manifest.digest != meta.model_digest:
            raise ValueError(
                f"{self.path} was made with another model than the one in {folder}, and their vectors cannot be "
                f"compared: name the right folder with --model, or index the pictures again"
            )
        return model

    @cached_property
    def templates(self) -> tuple[str, ...]:
        """The templates that the model understands."""
        return read_by(self.model)

    def search(self, query: Query | str) -> Found:
        """The pictures nearest to a query.

        Args:
            query: what to look for; a text stands for `Query(text=...)`.

        Returns:
            The hits, and whether anything matches.

        Raises:
            ValueError: nothing to look for, no such item, or the wrong model.
            FileNotFoundError: the model is not where the index remembers it.
        """
        started = time.perf_counter()
        query = Query(text=query) if isinstance(query, str) else query
        allowed = self._selected(query.where) if query.where else None
        num_candidates = len(self.reader.vectors) if allowed is None else len(allowed)
        terms = self._terms(query)
        threshold = self._threshold(query, terms)
        ids, scores = self._ranked(combine(terms), query, allowed, threshold=threshold)
        page = slice(query.offset, query.offset + query.k)
        pairs = list(zip(scores[page].tolist(), ids[page].tolist(), strict=True))
        return Found(
            hits=self.hits(pairs, first_rank=query.offset + 1, where=query.where),
            threshold=threshold,
            num_candidates=num_candidates,
            seconds=time.perf_counter() - started,
            nothing=not len(ids),
        )

    def hits(
        self, pairs: Sequence[tuple[float, int]], *, first_rank: int = 1, where: Filter | None = None
    ) -> tuple[Hit, ...]:
        """Items as hits.

        Args:
            pairs: score and number of each; items that are gone are left out.
            first_rank: of the first pair.
            where: of several files of an item, one that lies in this filter's folder.
        """
        pictures = self._pictures([number for _, number in pairs], where or Filter())
        return tuple(
            Hit(rank=rank, score=score, picture=pictures[number], load=self.reader.thumbnail)
            for rank, (score, number) in enumerate(pairs, first_rank)
            if number in pictures
        )

    def embed(self, query: Query) -> Rows:
        """The query as one unit vector float32 [D], comparable with those of the pictures."""
        return combine(self._terms(query))

    def _terms(self, query: Query) -> list[Term]:
        phrases = parse(query.text)
        terms: list[Term] = []
        if phrases.wanted:
            rows_PD = np.stack([self._phrase(phrase, query) for phrase in phrases.wanted])
            terms.append(Term(vector_D=mean(rows_PD), kind="text"))
        if query.image is not None or query.like is not None:
            terms.append(Term(vector_D=self._picture(query), kind="picture"))
        if len(terms) == 2:
            text, picture = terms
            sample_SD = self._vectors_sample()
            terms = balanced(text, picture, text_weight=query.text_weight, sample_SD=sample_SD)
        if phrases.unwanted:
            rows_PD = np.stack([self._phrase(phrase, query) for phrase in phrases.unwanted])
            terms = without(terms, rows_PD)
        return terms

    def embed_texts(self, texts: Sequence[str]) -> Rows:
        """Unit vectors float32 [N, D] of texts as they are; texts that were asked before are remembered."""
        with self._lock:
            known = {text: self._texts[text] for text in texts if text in self._texts}
            for text in known:
                self._texts.move_to_end(text)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known |= dict(zip(new, self.model.embed_texts(new), strict=True))
            with self._lock:
                self._texts |= {text: known[text] for text in new}
                while len(self._texts) > _KEPT_TEXTS:
                    self._texts.popitem(last=False)
        return np.stack([known[text] for text in texts])

    def _phrase(self, phrase: str, query: Query) -> Rows:
        return mean(self.embed_texts(prompts(phrase, self._templates_of(query))))

    def _templates_of(self, query: Query) -> tuple[str, ...]:
        return self.templates if query.templates is None else query.templates

    def _picture(self, query: Query) -> Rows:
        if query.like is not None and query.crop is None:
            return self.reader.vectors.rows([query.like])[0]
        if query.like is not None:
            image = self._whole(query.like)
        else:
            assert query.image is not None
            from pocketclip.data.picture import to_rgb

            image = to_rgb(query.image, name="the query picture")
        if query.crop is not None:
            left, top, right, bottom = query.crop
            width, height = image.size
            image = image.crop(
                (
                    math.floor(left * width),
                    math.floor(top * height),
                    math.ceil(right * width),
                    math.ceil(bottom * height),
                )
            )
        return self.model.embed_images([image])[0]

    def _pictures(self, ids: Sequence[int], where: Filter) -> dict[int, Picture]:
        """Items by number, each with a file that lies in the folder that was asked for."""
        pictures = self.reader.find(ids)
        if where.folder is None:
            return pictures
        for number, picture in pictures.items():
            if picture.key is None and not is_inside(where.folder, picture.folder, picture.path):
                pictures[number] = self._copy_inside(picture, where.folder)
        return pictures

    def _copy_inside(self, picture: Picture, folder: str) -> Picture:
        for place in self.reader.places(picture.id):
            for root in {picture.folder, *self.reader.meta.folders}:
                if place.is_relative_to(root) and is_inside(folder, root, place.relative_to(root)):
                    return replace(picture, folder=root, path=place.relative_to(root))
        return picture

    def _whole(self, number: int) -> Image.Image:
        """The picture of an item: the original; for videos, and where it cannot be read any more, the thumbnail."""
        from pocketclip.data.picture import decode
        from pocketclip.search.media import read_media

        (picture,) = self.reader.items([number])
        if picture.kind != "video":
            with suppress(OSError, ValueError):
                media = read_media(self.reader.data(number), name=picture.name)
                return next(iter(media.frames)).image
        return decode(self.reader.thumbnail(number), name=picture.name)

    def _ranked(
        self, query_D: Rows, query: Query, allowed: npt.NDArray[np.int64] | None, *, threshold: float | None
    ) -> tuple[npt.NDArray[np.int64], Rows]:
        """Ids and scores of the hits up to the asked page's end."""
        wanted = query.offset + query.k
        more = wanted * 3 + 20 if query.unique else wanted + (query.like is not None)
        ids, scores = self.reader.vectors.search(query_D, more, among=allowed)
        if query.like is not None:
            others = ids != query.like
            ids, scores = ids[others], scores[others]
        if threshold is not None:
            ids, scores = ids[scores >= threshold], scores[scores >= threshold]
        if query.unique and len(ids):
            from pocketclip.search.listings import distinct

            numbers = ids.tolist()
            kept = distinct(numbers, self.reader.vectors.rows(numbers), self.reader)
            ids, scores = ids[kept], scores[kept]
        return ids[:wanted], scores[:wanted]

    def calibration(
        self,
        templates: tuple[str, ...] | None = None,
        *,
        of_texts: bool = True,
        quantile: float = BACKGROUND_QUANTILE,
    ) -> Calibration | None:
        """What the index says about scores; worked out again when it has grown or shrunk.

        Args:
            templates: of the queries; None for those that the model understands.
            of_texts: whether there are texts in the queries, which needs the model.
            quantile: of texts that show nothing, the share that shall match nothing; more is stricter.

        Returns:
            None where there are too few items to say anything.
        """
        if not of_texts:
            templates = ()
        elif templates is None:
            templates = self.templates
        num_items = len(self.reader.vectors)
        known = self._calibrations.get((templates, of_texts, quantile))
        if known is None or _is_other(num_items, known[0]):
            sample_SD = self._vectors_sample()
            enough = of_texts and len(sample_SD) >= LEAST_ITEMS
            texts_BD = embedded(self.model, word_list("background"), templates=templates) if enough else None
            known = (num_items, calibrate(sample_SD, texts_BD, num_items=num_items, quantile=quantile))
            self._calibrations[templates, of_texts, quantile] = known
        return known[1]

    def tag(self, labels: Sequence[str] = (), *, most: int = 5) -> TagSummary:
        """Give every item the labels that it matches; see `tags.tag`."""
        from pocketclip.search.tags import tag

        return tag(self, labels, most=most)

    def albums(self, num: int | None = None, *, labels: Sequence[str] = ()) -> list[Group]:
        """Albums of like pictures; see `listings.find_albums`."""
        from pocketclip.search.listings import find_albums

        return find_albums(self, num, labels=labels)

    def duplicates(self) -> list[Group]:
        """Groups of near-duplicates; see `listings.find_duplicates`."""
        from pocketclip.search.listings import find_duplicates

        return find_duplicates(self)

    def outliers(self, *, most: int = 50) -> Group:
        """Pictures that are like no other; see `listings.find_outliers`."""
        from pocketclip.search.listings import find_outliers

        return find_outliers(self, most=most)

    def _threshold(self, query: Query, terms: Sequence[Term]) -> float | None:
        if query.min_score != "auto":
            return query.min_score
        of_texts = any(term.kind == "text" for term in terms)
        calibration = self.calibration(query.templates, of_texts=of_texts)
        return None if calibration is None else calibration.threshold(terms)

    def _vectors_sample(self) -> Rows:
        """Vectors that stand for the index, float32 [S, D]."""
        num_items = len(self.reader.vectors)
        if self._sample is None or _is_other(num_items, self._sample[0]):
            self._sample = (num_items, self.reader.vectors.sample(_SAMPLE, seed=0))
        return self._sample[1]

    def _selected(self, where: Filter) -> npt.NDArray[np.int64]:
        """What a filter lets through; the next letter that is typed has the same filter."""
        asked = (self.reader.generation(), where)
        known = self._allowed.get(asked)
        if known is None:
            known = self.reader.select(where)
            with self._lock:
                self._allowed[asked] = known
                while len(self._allowed) > _KEPT_FILTERS:
                    self._allowed.popitem(last=False)
        return known


def _is_other(num_items: int, before: int) -> bool:
    """Whether an index has grown or shrunk so much that its statistics are others."""
    return abs(num_items - before) > _CHANGED * before
