"""Samples to batches: a pure function of the shards, the configuration and a plan."""

# Shape suffixes: B samples, H W C pixels, L tokens, D dimensions of an embedding, T captions of each sample.

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from pocketclip.data.augment import Augmentation, AugmentSpec, apply_to_crop, check_size, draw, seeded, unpack
from pocketclip.data.batch import Batch, StoredRows, StreamConfig
from pocketclip.data.index import Dropped
from pocketclip.data.part import shard_file
from pocketclip.data.picture import Picture, open_picture
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement, read_rows
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader
from pocketclip.data.tokenize import Tokenizer

Empty = Callable[[tuple[int, ...], DTypeLike], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A batch to build.

    Attributes:
        epoch: it belongs to.
        first: place of its first sample in the epoch's order.
        members: numbers of its samples in the shards one after the other, int64 [B].
        side: of its pictures in pixels.
    """

    epoch: int
    first: int
    members: np.ndarray
    side: int


class KnownShard(NamedTuple):
    """What was found out about a shard when it was opened.

    Attributes:
        places: of its samples, see `ShardReader`.
        stamp: size in bytes and time of change in nanoseconds, which the file is to keep.
    """

    places: np.ndarray
    stamp: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Pick:
    """What was chosen for one sample of a batch."""

    key: str
    shard: int
    row: int
    view: int
    caption: int
    synthetic: int | None
    texts: tuple[str, ...]


class BatchBuilder:
    """Builds batches; threads may share it.

    Args:
        shards: files written by `pocketclip pack` or `pocketclip reinforce`.
        config: how samples become batches.
        tokenizer: of the model to train.
        extra_px: sides in pixels at which every view is made too.
        known: what another builder of the same shards has found out about each, to be quicker; none for nothing.

    Attributes:
        num_samples: in all shards.

    Raises:
        ValueError: `config.replay` and shards that are not reinforced, or not all alike.
        FileNotFoundError: a shard is not there.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        *,
        config: StreamConfig,
        tokenizer: Tokenizer,
        extra_px: Sequence[int] = (),
        known: Sequence[KnownShard] = (),
    ) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._extra_px = tuple(extra_px)
        self._paths = [Path(path) for path in shards]
        self._files = [shard_file(path) for path in self._paths]
        self._stamps = [shard.stamp for shard in known] or [_stamp(path) for path in self._files]
        if known:
            self._check_shards(np.arange(len(self._paths)))
        places = [shard.places for shard in known] or [None] * len(self._paths)
        self._readers = [ShardReader(path, places=own) for path, own in zip(self._paths, places, strict=True)]
        self._blocks = [self._block(index) for index in range(len(shards))] if config.replay else []
        self._check_teachers()
        self._starts = np.cumsum([0, *(len(reader) for reader in self._readers)])
        self.num_samples = int(self._starts[-1])
        self._cached: dict[tuple[int, int], Picture] = {}
        self._cache_left = config.cache_mb * 2**20

    def known(self) -> list[KnownShard]:
        """What a builder in another process need not find out again."""
        return [
            KnownShard(reader.places, stamp)
            for reader, stamp in zip(self._readers, self._stamps, strict=True)
        ]

    def close(self) -> None:
        """Closes the shards."""
        self._blocks.clear()
        for reader in self._readers:
            reader.close()

    def batch_bytes(self, side: int) -> int:
        """What the arrays of a batch of pictures of `side` pixels take, about and at most."""
        pixels = sum(3 * px * px for px in (side, *self._extra_px))
        tokens = 2 * 8 * self._tokenizer.config.context_length
        teachers = self._blocks[0].header.teachers if self._blocks else ()
        rows = sum(3 * 4 * teacher.embed_dim for teacher in teachers)
        spare = 16 * 1024  # arrays begin at even places
        return self.config.batch_size * (pixels + tokens + rows) + spare

    def build(self, plan: Plan, *, empty: Empty = np.empty) -> Batch:
        """Builds one batch.

        Args:
            plan: which.
            empty: where its pixels go: makes an array of a shape and type.

        Raises:
            ValueError: none of its samples can be used.
            OSError: a shard is gone or was changed.
        """
        shard_B = np.searchsorted(self._starts, plan.members, side="right") - 1
        row_B = plan.members - self._starts[shard_B]
        self._check_shards(shard_B)
        sides = dict.fromkeys((plan.side, *self._extra_px))
        pixels = {side: empty((len(row_B), side, side, 3), np.uint8) for side in sides}
        picks: list[_Pick] = []
        dropped: list[Dropped] = []
        for i, (shard, row) in enumerate(zip(shard_B.tolist(), row_B.tolist(), strict=True)):
            into = {side: pixels_BHWC[len(picks)] for side, pixels_BHWC in pixels.items()}
            try:
                picks.append(self._pick(plan.epoch, shard, row, place=plan.first + i, into=into))
            except ValueError as error:
                path, key = self._paths[shard], self._readers[shard].keys[row]
                source = f"{path.parent.name}/{path.name}: {key}"
                dropped.append(Dropped(source=source, reason=str(error)))
        if not picks:
            raise ValueError(
                f"none of the {len(row_B)} samples of a batch can be used; {dropped[0].source}: {dropped[0].reason}"
            )
        kept = {side: pixels_BHWC[: len(picks)] for side, pixels_BHWC in pixels.items()}
        return self._collate(picks, kept, side=plan.side, dropped=tuple(dropped))

    def _pick(self, epoch: int, shard: int, row: int, *, place: int, into: Mapping[int, np.ndarray]) -> _Pick:
        """Chooses for one sample, and writes its pixels `into` arrays [side, side, 3] by side."""
        sample = self._readers[shard][row]
        # A sample that comes twice in an epoch is not to be seen the same way twice.
        again = (place,) if self.config.resample else ()
        rng = seeded(self.config.seed, "view", epoch, sample.key, *again)
        picture = self._picture(sample, place=(shard, row))
        number, view, spec = self._view(rng.random(), shard, row)
        if view is None:
            view = draw(rng, width=picture.size[0], height=picture.size[1], spec=spec)
        check_size(view, picture.size)
        quick = self.config.decode == "fast"
        region = picture.region(view.crop, at_least=max(into), decoding=self.config.decode)
        for side, pixels_HWC in into.items():
            seen = apply_to_crop(region.image, view, size=side, spec=spec, box=region.box, quick=quick)
            pixels_HWC[:] = np.asarray(seen)
        caption = 0 if self.config.main_caption_only else int(rng.random() * len(sample.captions))
        synthetic = self._choose_synthetic(sample, rng.random())
        if self.config.synthetic_share is not None and synthetic is not None:
            mixed = synthetic if rng.random() < self.config.synthetic_share else caption
            caption, synthetic = mixed, None
        return _Pick(
            key=sample.key,
            shard=shard,
            row=row,
            view=number,
            caption=caption,
            synthetic=synthetic,
            texts=sample.texts(),
        )

    def _picture(self, sample: Sample, *, place: tuple[int, int]) -> Picture:
        cached = self._cached.get(place)
        if cached is not None:
            return cached
        picture = open_picture(sample.image, name=sample.key)
        num_bytes = 3 * picture.size[0] * picture.size[1]
        if num_bytes <= self._cache_left:
            self._cache_left -= num_bytes
            picture.whole()
            self._cached[place] = picture
        return picture

    def _view(self, chance: float, shard: int, row: int) -> tuple[int, Augmentation | None, AugmentSpec]:
        """The number of the stored view to replay and the view, or none."""
        if not self.config.replay:
            return 0, None, self.config.augment
        block = self._blocks[shard]
        view = int(chance * block.num_views)
        return view, unpack(block.params(row)[view]), block.header.augment

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

    def _collate(
        self,
        picks: Sequence[_Pick],
        pixels: Mapping[int, np.ndarray],
        *,
        side: int,
        dropped: tuple[Dropped, ...],
    ) -> Batch:
        captions = [pick.texts[pick.caption] for pick in picks]
        synthetic = [pick.texts[pick.synthetic] for pick in picks if pick.synthetic is not None]
        return Batch(
            keys=tuple(pick.key for pick in picks),
            pixels_BHWC=pixels[side],
            tokens_BL=self._tokenizer(captions),
            synthetic_BL=self._tokenizer(synthetic) if synthetic else None,
            stored={name: self._stored(name, picks) for name in self._teacher_scales()},
            dropped=dropped,
            captions=tuple(captions),
            synthetic_captions=tuple(synthetic),
            extra_BHWC={px: pixels[px] for px in self._extra_px},
        )

    def _stored(self, teacher: str, picks: Sequence[_Pick]) -> StoredRows:
        # All picks of a batch have a synthetic caption, or none has.
        numbers = [[pick.caption for pick in picks]]
        both = picks[0].synthetic is not None
        if both:
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
            synthetic_BD=rows.text_TBD[1] if both else None,
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
        reinforcement = Reinforcement(block, name=str(self._paths[index]), rows=self._readers[index].rows)
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

    def _check_shards(self, shard_B: np.ndarray) -> None:
        """Bytes that vanish or change under a running job would be other samples, or kill the process."""
        for shard in np.unique(shard_B).tolist():
            path = self._files[shard]
            try:
                same = _stamp(path) == self._stamps[shard]
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{path} was deleted while it was in use: put it back and start the same command again, the run "
                    "goes on from its last saved state"
                ) from None
            if not same:
                raise OSError(
                    f"{path} was changed while it was in use: put back what it was and start the same command again"
                )


def _stamp(path: Path) -> tuple[int, int]:
    """What changes with a file's bytes: its size and time of change, nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
