"""Training batches out of shards: shuffled, augmented or replayed, with a position that can be saved.

A batch is a pure function of (shards, config, epoch, place within the epoch). So threads or processes may build batches
ahead in any order, and a run that goes on from a saved position sees the same bytes as one that never stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from pocketclip.data.augment import seeded
from pocketclip.data.batch import Batch, StoredRows, StreamConfig
from pocketclip.data.builder import BatchBuilder, Plan
from pocketclip.data.index import Dropped
from pocketclip.data.tokenize import Tokenizer
from pocketclip.data.workers import AHEAD, Pending, Workers

__all__ = ["Batch", "Position", "StoredRows", "Stream", "StreamConfig"]


@dataclass(frozen=True)
class Position:
    """Where a stream stands: all processes together have taken `sample` samples of `epoch`."""

    epoch: int = 0
    sample: int = 0


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
        self.position = position or Position()
        self._sizes = config.sizes_px or (config.image_px,)
        self._rank = rank
        self._together = num_ranks * config.batch_size
        self.dropped: dict[str, Dropped] = {}
        self._order: tuple[int, np.ndarray] | None = None
        self._builder = BatchBuilder(shards, config=config, tokenizer=tokenizer, extra_px=extra_px)
        self._num_samples = self._builder.num_samples
        if self._num_samples < self._together:
            raise ValueError(
                f"{self._num_samples} samples are fewer than one batch of {self._together}: "
                "pack more pictures or take a smaller batch"
            )
        if self.position.sample >= self._num_samples:
            raise ValueError(
                f"sample {self.position.sample} of an epoch of {self._num_samples} does not exist: the saved "
                "position belongs to other data; start the run again"
            )
        self.position = self._whole(self.position)
        self._pool = ThreadPoolExecutor(config.num_threads, thread_name_prefix="batches")
        self._workers = self._start_workers(shards, tokenizer, extra_px) if config.num_workers else None

    def __len__(self) -> int:
        """Batches of each process in an epoch."""
        return self._num_samples // self._together

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads and processes, and closes the shards."""
        if self._workers is not None:
            self._workers.close()
        self._pool.shutdown(cancel_futures=True)
        self._builder.close()

    def __iter__(self) -> Iterator[Batch]:
        ahead: deque[tuple[Position, Future[Batch] | Pending]] = deque()
        following = self.position
        while True:
            while len(ahead) < AHEAD * (self.config.num_workers or self.config.num_threads):
                building = self._submit(self._plan(following))
                following = self._after(following)
                ahead.append((following, building))
            after, building = ahead.popleft()
            batch = building.result()
            self.position = after
            # Here and not where batches are built, which runs ahead: what was dropped belongs to the position.
            self.dropped.update((dropped.source, dropped) for dropped in batch.dropped)
            yield batch

    def _start_workers(
        self, shards: Sequence[Path], tokenizer: Tokenizer, extra_px: Sequence[int]
    ) -> Workers:
        return Workers(
            shards,
            config=self.config,
            tokenizer=tokenizer,
            extra_px=extra_px,
            known=self._builder.known(),
            batch_bytes=self._builder.batch_bytes(max(self._sizes)),
        )

    def _submit(self, plan: Plan) -> Future[Batch] | Pending:
        if self._workers is not None:
            return self._workers.submit(plan)
        return self._pool.submit(self._builder.build, plan)

    def _plan(self, position: Position) -> Plan:
        """This process's batch after `position`. All processes' have one side."""
        first = position.sample + self._rank * self.config.batch_size
        chance = seeded(self.config.seed, "side", position.epoch, position.sample).random()
        return Plan(
            epoch=position.epoch,
            first=first,
            members=self._epoch_order(position.epoch)[first : first + self.config.batch_size],
            side=self._sizes[int(chance * len(self._sizes))],
        )

    def _after(self, position: Position) -> Position:
        return self._whole(Position(position.epoch, position.sample + self._together))

    def _whole(self, position: Position) -> Position:
        """The position, or the next epoch's first where this one has too few samples left."""
        enough = position.sample + self._together <= self._num_samples
        return position if enough else Position(position.epoch + 1, 0)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """Numbers of samples in the order in which the epoch takes them, int64."""
        if self._order is None or self._order[0] != epoch:
            seed = seeded(self.config.seed, "order", epoch).getrandbits(64)
            generator = np.random.Generator(np.random.PCG64(seed))
            num = self._num_samples
            order = generator.integers(num, size=num) if self.config.resample else generator.permutation(num)
            self._order = (epoch, order)
        return self._order[1]
