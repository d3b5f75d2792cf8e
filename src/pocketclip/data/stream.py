"""Training batches out of shards: shuffled, augmented or replayed, with a position that can be saved.

A batch is a pure function of (shards, config, epoch, number within the epoch). So threads may build batches ahead in
any order, and a run that goes on from a saved position sees the same bytes as one that never stopped.
"""

# Shape suffixes: B samples, H W C pixels, L tokens, D dimensions of an embedding.

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from pocketclip.data.augment import Augmentation, AugmentSpec, apply, draw, seeded, unpack
from pocketclip.data.index import Dropped
from pocketclip.data.picture import decode
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement, read_rows
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader
from pocketclip.data.tokenize import Tokenizer


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How samples become batches.

    Attributes:
        batch_size: samples a batch of each process; what is left of an epoch when there is less for all is left out.
        image_px: side of the pictures in pixels; None is for the trainer to fill in: what the model takes.
        seed: of the order, the views and the choice among captions.
        augment: views to draw; of no effect where stored views are replayed.
        replay: use the stored views and embeddings of reinforced shards.
        synthetic: regular expression over captioners' names; None for no synthetic caption.
        main_caption_only: always the first ground-truth caption rather than any of them.
        num_threads: threads that build batches ahead.
        cache_mb: memory for decoded pictures, so that a small data set is decoded once; 0 for none.
    """

    batch_size: int
    image_px: int | None = None
    seed: int = 0
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    replay: bool = False
    synthetic: str | None = None
    main_caption_only: bool = False
    num_threads: int = 1
    cache_mb: int = 0

    def __post_init__(self) -> None:
        image_px = 1 if self.image_px is None else self.image_px
        if self.batch_size < 1 or image_px < 1 or self.num_threads < 1 or self.cache_mb < 0:
            raise ValueError("batch_size, image_px and num_threads must be at least 1, cache_mb at least 0")
        try:
            re.compile(self.synthetic or "")
        except re.error as error:
            raise ValueError(f"synthetic is no regular expression: {self.synthetic!r} ({error})") from None


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Stored embeddings of a batch's very views and captions, unit-norm float32 [B, D].

    Attributes:
        image_BD: of the views.
        text_BD: of the ground-truth captions.
        synthetic_BD: of the synthetic captions, where the batch has them.
        logit_scale: to distil at.
    """

    image_BD: np.ndarray
    text_BD: np.ndarray
    synthetic_BD: np.ndarray | None
    logit_scale: float

    def rows(self, start: int, stop: int) -> StoredRows:
        """Those of the samples from `start` to `stop`, the end excluded."""
        part = slice(start, stop)
        return StoredRows(
            image_BD=self.image_BD[part],
            text_BD=self.text_BD[part],
            synthetic_BD=None if self.synthetic_BD is None else self.synthetic_BD[part],
            logit_scale=self.logit_scale,
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's input.

    Attributes:
        keys: of the samples.
        pixels_BHWC: uint8 RGB.
        tokens_BL: int64 ids of the ground-truth captions.
        synthetic_BL: int64 ids of the synthetic captions, or None.
        stored: by teacher; empty unless stored views are replayed.
        dropped: samples that belonged here and could not be read; the batch is that much smaller.
        captions: the ground-truth captions behind `tokens_BL`.
        synthetic_captions: those behind `synthetic_BL`; empty where there are none.
        extra_BHWC: the same views at the stream's further sizes, uint8 RGB [B, H, W, 3], by their side in pixels.
    """

    keys: tuple[str, ...]
    pixels_BHWC: np.ndarray
    tokens_BL: np.ndarray
    synthetic_BL: np.ndarray | None
    stored: Mapping[str, StoredRows]
    dropped: tuple[Dropped, ...] = ()
    captions: tuple[str, ...] = ()
    synthetic_captions: tuple[str, ...] = ()
    extra_BHWC: Mapping[int, np.ndarray] = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> Batch:
        """The samples from `start` to `stop`, the end excluded, as a batch."""
        part = slice(start, stop)
        return Batch(
            keys=self.keys[part],
            pixels_BHWC=self.pixels_BHWC[part],
            tokens_BL=self.tokens_BL[part],
            synthetic_BL=None if self.synthetic_BL is None else self.synthetic_BL[part],
            stored={name: rows.rows(start, stop) for name, rows in self.stored.items()},
            captions=self.captions[part],
            synthetic_captions=self.synthetic_captions[part],
            extra_BHWC={px: pixels_BHWC[part] for px, pixels_BHWC in self.extra_BHWC.items()},
        )


@dataclass(frozen=True)
class Position:
    """Where a stream stands: all processes together have taken `sample` samples of `epoch`."""

    epoch: int = 0
    sample: int = 0


@dataclass(frozen=True, kw_only=True)
class _Pick:
    """What was chosen for one sample of a batch."""

    key: str
    shard: int
    row: int
    view: int
    caption: int
    synthetic: int | None
    pixels_HWC: tuple[np.ndarray, ...]  # at the student's size, then at the further ones
    texts: tuple[str, ...]


class Stream:
    """Endless batches from shards on disk; iterate, and read `position` after any batch.

    Args:
        shards: files written by `pocketclip pack` or `pocketclip reinforce`.
        config: how samples become batches; its `image_px` is given.
        tokenizer: of the model to train.
        position: where to go on.
        rank: this process among those that train together: each gets its own batches of one common order.
        num_ranks: how many they are; a position may be gone on from by another number.
        extra_px: sides in pixels at which every view is drawn too, for teachers beside the student.

    Attributes:
        position: after the batch taken last.
        dropped: by source, every sample that a batch taken so far had to leave out.

    Raises:
        ValueError: no shard, fewer samples than a batch, a position beyond the epoch, or `config.replay` and shards
            that are not reinforced, or not all alike.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        *,
        config: StreamConfig,
        tokenizer: Tokenizer,
        position: Position | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        extra_px: Sequence[int] = (),
    ) -> None:
        assert config.image_px is not None
        self.config = config
        self._sizes = (config.image_px, *extra_px)
        self.position = position or Position()
        self._rank = rank
        self._together = num_ranks * config.batch_size
        self.dropped: dict[str, Dropped] = {}
        self._tokenizer = tokenizer
        self._readers = [ShardReader(path) for path in shards]
        self._paths = list(shards)
        self._blocks = [self._block(index) for index in range(len(shards))] if config.replay else []
        self._check_teachers()
        sizes = [len(reader) for reader in self._readers]
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)
        self._row_of = (
            np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, dtype=np.int64)
        )
        self._order: tuple[int, np.ndarray] | None = None
        if len(self._row_of) < self._together:
            raise ValueError(
                f"{len(self._row_of)} samples are fewer than one batch of {self._together}: "
                "pack more pictures or take a smaller batch"
            )
        if self.position.sample >= len(self._row_of):
            raise ValueError(
                f"sample {self.position.sample} of an epoch of {len(self._row_of)} does not exist: the saved "
                "position belongs to other data; start the run again"
            )
        self.position = self._whole(self.position)
        self._decoded: dict[tuple[int, int], Image.Image] = {}
        self._cache_left = config.cache_mb * 2**20
        self._pool = ThreadPoolExecutor(config.num_threads, thread_name_prefix="batches")

    def __len__(self) -> int:
        """Batches of each process in an epoch."""
        return len(self._row_of) // self._together

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the threads and closes the shards."""
        self._pool.shutdown(cancel_futures=True)
        self._blocks.clear()
        for reader in self._readers:
            reader.close()

    def __iter__(self) -> Iterator[Batch]:
        ahead: deque[tuple[Position, Future[Batch]]] = deque()
        following = self.position
        while True:
            while len(ahead) < 2 * self.config.num_threads:
                order = self._epoch_order(following.epoch)
                start = following.sample + self._rank * self.config.batch_size
                members = order[start : start + self.config.batch_size]
                after = self._after(following)
                ahead.append((after, self._pool.submit(self._build, following.epoch, members)))
                following = after
            after, future = ahead.popleft()
            batch = future.result()
            self.position = after
            # Here and not where batches are built, which runs ahead: what was dropped belongs to the position.
            self.dropped.update((dropped.source, dropped) for dropped in batch.dropped)
            yield batch

    def _after(self, position: Position) -> Position:
        return self._whole(Position(position.epoch, position.sample + self._together))

    def _whole(self, position: Position) -> Position:
        """The position, or the next epoch's first where this one has too few samples left."""
        enough = position.sample + self._together <= len(self._row_of)
        return position if enough else Position(position.epoch + 1, 0)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            seed = seeded(self.config.seed, "order", epoch).getrandbits(64)
            self._order = (epoch, np.random.Generator(np.random.PCG64(seed)).permutation(len(self._row_of)))
        return self._order[1]

    def _build(self, epoch: int, members: np.ndarray) -> Batch:
        picks: list[_Pick] = []
        dropped: list[Dropped] = []
        for member in members.tolist():
            shard, row = int(self._shard_of[member]), int(self._row_of[member])
            try:
                picks.append(self._pick(epoch, shard, row))
            except ValueError as error:
                path, key = self._paths[shard], self._readers[shard].keys[row]
                source = f"{path.parent.name}/{path.name}: {key}"
                dropped.append(Dropped(source=source, reason=str(error)))
        if not picks:
            raise ValueError(
                f"none of the {len(members)} samples of a batch can be used; {dropped[0].source}: {dropped[0].reason}"
            )
        return self._collate(picks, dropped=tuple(dropped))

    def _pick(self, epoch: int, shard: int, row: int) -> _Pick:
        sample = self._readers[shard][row]
        rng = seeded(self.config.seed, "view", epoch, sample.key)
        image = self._picture(sample, place=(shard, row))
        view, augmentation, spec = self._view(rng.random(), shard, row)
        if augmentation is None:
            augmentation = draw(rng, width=image.width, height=image.height, spec=spec)
        drawn = [apply(image, augmentation, size=size, spec=spec) for size in self._sizes]
        caption = 0 if self.config.main_caption_only else int(rng.random() * len(sample.captions))
        return _Pick(
            key=sample.key,
            shard=shard,
            row=row,
            view=view,
            caption=caption,
            synthetic=self._choose_synthetic(sample, rng.random()),
            pixels_HWC=tuple(np.asarray(view) for view in drawn),
            texts=sample.texts(),
        )

    def _picture(self, sample: Sample, *, place: tuple[int, int]) -> Image.Image:
        cached = self._decoded.get(place)
        if cached is not None:
            return cached
        image = decode(sample.image, name=sample.key)
        num_bytes = 3 * image.width * image.height
        if num_bytes <= self._cache_left:
            self._cache_left -= num_bytes
            self._decoded[place] = image
        return image

    def _view(self, chance: float, shard: int, row: int) -> tuple[int, Augmentation | None, AugmentSpec]:
        """The stored view to replay and its number, or none."""
        if not self.config.replay:
            return 0, None, self.config.augment
        block = self._blocks[shard]
        view = int(chance * block.num_views)
        return view, unpack(block.augment_params_NAP[row, view]), block.header.augment

    def _choose_synthetic(self, sample: Sample, chance: float) -> int | None:
        """The number, in Sample.texts order, of one of the synthetic captions that the pattern admits."""
        if self.config.synthetic is None:
            return None
        admitted: list[int] = []
        number = len(sample.captions)
        for captioner in sorted(sample.synthetic):
            captions = sample.synthetic[captioner]
            if re.search(self.config.synthetic, captioner):
                admitted.extend(range(number, number + len(captions)))
            number += len(captions)
        if not admitted:
            raise ValueError(f"sample {sample.key} has no synthetic caption of /{self.config.synthetic}/")
        return admitted[int(chance * len(admitted))]

    def _collate(self, picks: Sequence[_Pick], *, dropped: tuple[Dropped, ...]) -> Batch:
        captions = [pick.texts[pick.caption] for pick in picks]
        synthetic = [pick.texts[pick.synthetic] for pick in picks if pick.synthetic is not None]
        pixels_BHWC, *extra = (
            np.stack([pick.pixels_HWC[i] for pick in picks]) for i in range(len(self._sizes))
        )
        return Batch(
            keys=tuple(pick.key for pick in picks),
            pixels_BHWC=pixels_BHWC,
            tokens_BL=self._tokenizer(captions),
            synthetic_BL=self._tokenizer(synthetic) if synthetic else None,
            stored={name: self._stored(name, picks) for name in self._teacher_scales()},
            dropped=dropped,
            captions=tuple(captions),
            synthetic_captions=tuple(synthetic),
            extra_BHWC=dict(zip(self._sizes[1:], extra, strict=True)),
        )

    def _stored(self, teacher: str, picks: Sequence[_Pick]) -> StoredRows:
        # All picks of a batch have a synthetic caption, or none has.
        numbers = [[pick.caption for pick in picks]]
        if self.config.synthetic is not None:
            numbers.append([pick.synthetic for pick in picks if pick.synthetic is not None])
        rows = read_rows(
            self._blocks,
            teacher=teacher,
            shard_B=np.array([pick.shard for pick in picks]),
            sample_B=np.array([pick.row for pick in picks]),
            view_B=np.array([pick.view for pick in picks]),
            text_TB=np.array(numbers),
        )
        return StoredRows(
            image_BD=rows.image_BD,
            text_BD=rows.text_TBD[0],
            synthetic_BD=rows.text_TBD[1] if self.config.synthetic is not None else None,
            logit_scale=self._teacher_scales()[teacher],
        )

    def _teacher_scales(self) -> Mapping[str, float]:
        if not self._blocks:
            return {}
        return {teacher.name: teacher.logit_scale for teacher in self._blocks[0].header.teachers}

    def _block(self, index: int) -> Reinforcement:
        block = self._readers[index].block(BLOCK_NAME)
        if block is None:
            raise ValueError(f"{self._paths[index]} is not reinforced: run `pocketclip reinforce` first")
        reinforcement = Reinforcement(block, name=str(self._paths[index]))
        if len(reinforcement) != len(self._readers[index]):
            raise ValueError(
                f"{self._paths[index]} has {len(self._readers[index])} samples but embeddings of "
                f"{len(reinforcement)}: delete it and run `pocketclip reinforce` again"
            )
        return reinforcement

    def _check_teachers(self) -> None:
        for path, block in zip(self._paths, self._blocks, strict=False):
            if block.header.config_digest != self._blocks[0].header.config_digest:
                raise ValueError(
                    f"{path} was reinforced with another configuration than {self._paths[0]}: do not mix"
                )
