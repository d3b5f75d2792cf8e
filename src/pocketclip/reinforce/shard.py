"""The unit of reinforcement: a pure function of one unit of input, a configuration and teachers.

Views are decoded and drawn by threads while the teachers work. Samples are taken in groups of `batch_size`: their
views, one after the other whatever sample they belong to, fill the image batches of the group, and their texts its text
batches. Sums of floating-point numbers depend on the size of a batch, so its boundaries depend on the unit alone. A
group that is through is written; nothing of it stays in memory.
"""

# Shape suffixes: N samples, A views of each, P parameters of a view, T captions, D dimensions, B rows of a batch.

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from pocketclip.data.codec_error import CodecError
from pocketclip.data.index import Dropped
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, ReinforcementWriter
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardWriter, shard_writer
from pocketclip.engine.prefetch import ahead, mapped
from pocketclip.engine.units import Item, OpenUnit
from pocketclip.reinforce.views import GroupEnd, Pictures, ShardRequest, Views, draw_views, messages
from pocketclip.teachers.captioner import Captioner
from pocketclip.teachers.encode import encoded
from pocketclip.teachers.teacher import Teacher

_READY = 2  # image batches that wait for the teachers


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What became of a unit.

    Attributes:
        num_samples: in the shard; 0 when nothing was written.
        num_texts: of all its samples.
        num_bytes: size of the shard.
        sha256: of the shard; empty when nothing was written.
        input_sha256: of the unit.
        dropped: what the unit offered and the shard does not have; the source is a key, or what a reader calls it.
        errors: by table (`image/NAME`), what the codec cost.
        licences: licence -> samples under it.
        seconds: what the time went to: "load" (waiting for pictures), "image/NAME", "text/NAME", "caption/NAME",
            "write".
    """

    num_samples: int
    num_texts: int
    num_bytes: int
    sha256: str
    input_sha256: str
    dropped: tuple[Dropped, ...]
    errors: Mapping[str, CodecError]
    licences: Mapping[str, int]
    seconds: Mapping[str, float]


def reinforce_shard(
    unit: OpenUnit,
    file: IO[bytes],
    *,
    name: str,
    teachers: Sequence[Teacher],
    captioners: Sequence[Captioner] = (),
    request: ShardRequest,
    folder: Path | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> ShardFacts:
    """Writes a shard: the samples of a unit and their reinforcement.

    A sample enters whole or not at all. The same unit, teachers, captioners and request give the same bytes, as long as
    the teachers give the same rows: on one type of machine, with one number of threads.

    Args:
        unit: the input.
        file: open for writing; nothing is written to it when no sample can be reinforced.
        name: of the shard, for messages.
        teachers: the ensemble, in the order of the configuration.
        captioners: write synthetic captions first, which the teachers then embed.
        request: the rest of the configuration.
        folder: for temporary files; None takes the system's.
        progress: called with the number of items of the unit that are through since the last call.

    Raises:
        ValueError: the unit is damaged, or no sample has an embedding from every teacher.
        OSError: the unit cannot be read, or the shard not written.
    """
    clock = _Clock()
    with (
        ReinforcementWriter(
            augment=request.augment,
            codec=request.codec,
            teachers=[teacher.record for teacher in teachers],
            folder=folder,
        ) as block,
        _ready(
            unit.items,
            sizes=sorted({teacher.image_px for teacher in teachers}),
            request=request,
            captioned=bool(captioners),
        ) as ready,
    ):
        shard = _Shard(writer=shard_writer(file, path=Path(name)), block=block)
        group = _Group(teachers, captioners, request=request, clock=clock)
        for num_items in _embedded(ready, group=group, shard=shard, clock=clock):
            progress(num_items)
        if not shard.writer and group.refused:
            raise ValueError(f"no sample of {name} has an embedding: {group.refused}")
        return shard.facts(unit.sha256(), request=request, clock=clock)


@contextmanager
def _ready(
    items: Iterable[Item], *, sizes: Sequence[int], request: ShardRequest, captioned: bool
) -> Generator[Iterator[Pictures | Views | GroupEnd], None, None]:
    """Batches of views, made by threads ahead of their use."""
    draw = partial(draw_views, sizes=sizes, request=request, captioned=captioned)
    # Enough samples under way for two batches, so that no teacher waits for a picture.
    window = request.num_loaders + -(-2 * request.batch_size // request.num_views)
    with ThreadPoolExecutor(request.num_loaders, thread_name_prefix="views") as pool:
        drawn = mapped(draw, items, pool=pool, window=window)
        with ahead(messages(drawn, sizes=sizes, request=request), depth=_READY) as ready:
            yield ready


def _embedded(
    ready: Iterator[Pictures | Views | GroupEnd], *, group: _Group, shard: _Shard, clock: _Clock
) -> Iterator[int]:
    """Lets captioners and teachers work on what is ready, and writes each group; yields its number of items."""
    for message in clock.waiting("load", ready):
        match message:
            case Pictures():
                group.caption(message)
            case Views():
                group.embed_images(message)
            case GroupEnd():
                samples, dropped = group.finished(message)
                with clock.time("write"):
                    shard.add(samples)
                shard.dropped += dropped
                yield message.num_items


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """Samples with all that is written of them."""

    samples: list[Sample]
    params_NAP: np.ndarray
    embeddings: list[Embeddings]


class _Group:
    """What captioners and teachers made of the group at hand."""

    def __init__(
        self,
        teachers: Sequence[Teacher],
        captioners: Sequence[Captioner],
        *,
        request: ShardRequest,
        clock: _Clock,
    ) -> None:
        self._teachers = teachers
        self._captioners = captioners
        self._request = request
        self._clock = clock
        self.refused = ""  # why a teacher had no embedding, the first time
        self._start()

    def _start(self) -> None:
        self._captions: dict[str, dict[str, tuple[str, ...]]] = {}
        self._images: list[list[np.ndarray]] = [[] for _ in self._teachers]
        self._num_views = 0
        self._bad: dict[int, str] = {}

    def caption(self, pictures: Pictures) -> None:
        """Lets every captioner write."""
        for captioner in self._captioners:
            with self._clock.time(f"caption/{captioner.name}"):
                written = captioner.caption(pictures.images, pictures.keys)
            for key, texts in zip(pictures.keys, written, strict=True):
                self._captions.setdefault(key, {})[captioner.name] = texts

    def embed_images(self, views: Views) -> None:
        """Lets every teacher see a batch."""
        for teacher, images in zip(self._teachers, self._images, strict=True):
            with self._clock.time(f"image/{teacher.record.name}"):
                rows_BD, reasons = encoded(teacher, teacher.encode_image, views.pixels[teacher.image_px])
            images.append(rows_BD)
            for row, reason in reasons.items():
                self._bad.setdefault((self._num_views + row) // self._request.num_views, reason)
        self._num_views += len(next(iter(views.pixels.values())))

    def finished(self, end: GroupEnd) -> tuple[_Samples | None, list[Dropped]]:
        """Embeds the group's texts, and leaves out what a teacher had no embedding for. The next group begins."""
        samples = [self._with_captions(one.sample) for one in end.drawn]
        counts = [len(sample.texts()) for sample in samples]
        owner_T = np.repeat(np.arange(len(samples)), counts)
        texts = [text for sample in samples for text in sample.texts()]
        embedded = [self._embed_texts(teacher, texts, owner_T) for teacher in self._teachers]
        bad = self._bad
        kept = [row for row in range(len(samples)) if row not in bad]
        dropped = [Dropped(source=end.drawn[row].source, reason=bad[row]) for row in sorted(bad)]
        if dropped:
            self.refused = self.refused or dropped[0].reason
        result = None
        if kept:
            num_views = self._request.num_views
            text_rows = np.flatnonzero(~np.isin(owner_T, list(bad)))
            result = _Samples(
                samples=[samples[row] for row in kept],
                params_NAP=np.stack([end.drawn[row].params_AP for row in kept]),
                embeddings=[
                    Embeddings(
                        image_NAD=np.concatenate(images).reshape(len(samples), num_views, -1)[kept],
                        text_TD=text_TD[text_rows],
                    )
                    for images, text_TD in zip(self._images, embedded, strict=True)
                ],
            )
        self._start()
        return result, end.dropped + dropped

    def _with_captions(self, sample: Sample) -> Sample:
        written = {name: texts for name, texts in self._captions.get(sample.key, {}).items() if texts}
        clash = written.keys() & sample.synthetic.keys()
        if clash:
            raise ValueError(
                f"sample {sample.key} has captions of {min(clash)} already: give the captioner another name"
            )
        return replace(sample, synthetic={**sample.synthetic, **written}) if written else sample

    def _embed_texts(self, teacher: Teacher, texts: Sequence[str], owner_T: np.ndarray) -> np.ndarray:
        parts = [np.zeros((0, teacher.record.embed_dim), np.float32)]
        with self._clock.time(f"text/{teacher.record.name}"):
            for start in range(0, len(texts), self._request.batch_size):
                chunk = texts[start : start + self._request.batch_size]
                rows_BD, reasons = encoded(teacher, teacher.encode_text, chunk)
                parts.append(rows_BD)
                for row, reason in reasons.items():
                    self._bad.setdefault(int(owner_T[start + row]), reason)
        return np.concatenate(parts)


@dataclass(kw_only=True)
class _Shard:
    """The shard being written."""

    writer: ShardWriter
    block: ReinforcementWriter
    dropped: list[Dropped] = field(default_factory=list)
    num_texts: int = 0
    licences: Counter[str] = field(default_factory=Counter)

    def add(self, samples: _Samples | None) -> None:
        """Appends a group, whole."""
        if samples is None:
            return
        counts = [len(sample.texts()) for sample in samples.samples]
        self.block.add(samples.params_NAP, counts, samples.embeddings)
        for sample in samples.samples:
            self.writer.add(sample)
            licence = sample.meta.get("licence")
            if isinstance(licence, str):
                self.licences[licence] += 1
        self.num_texts += sum(counts)

    def facts(self, input_sha256: str, *, request: ShardRequest, clock: _Clock) -> ShardFacts:
        """Writes the block and the end, unless there is nothing."""
        if self.writer:
            with clock.time("write"):
                block = self.block.finish(
                    config_digest=request.config_digest,
                    input_sha256=input_sha256,
                    dropped=_by_source(self.dropped),
                )
                self.writer.add_long_block(BLOCK_NAME, block.chunks, num_bytes=block.num_bytes)
                self.writer.finish()
        entry = self.writer.entry()
        return ShardFacts(
            num_samples=len(self.writer),
            num_texts=self.num_texts,
            num_bytes=entry.num_bytes,
            sha256=entry.sha256 if self.writer else "",
            input_sha256=input_sha256,
            dropped=tuple(self.dropped),
            errors=self.block.errors() if self.writer else {},
            licences=dict(sorted(self.licences.items())),
            seconds=dict(clock.seconds),
        )


def _by_source(dropped: Iterable[Dropped]) -> dict[str, str]:
    """Source -> reason; of equal sources all but the first get a number."""
    times: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for one in dropped:
        times[one.source] += 1
        number = times[one.source]
        reasons[one.source if number == 1 else f"{one.source} ({number})"] = one.reason
    return reasons


class _Clock:
    """Seconds by what they went to."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Generator[None, None, None]:
        """Times a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def waiting(self, name: str, items: Iterator[Pictures | Views | GroupEnd]) -> Iterator[object]:
        """The items; times what each makes the caller wait."""
        while True:
            with self.time(name):
                item = next(items, None)
            if item is None:
                return
            yield item
