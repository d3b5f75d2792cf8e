"""What a training batch is, and what may be asked of it."""

# Shape suffixes: B samples, H W C pixels, L tokens, D dimensions of an embedding.

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.index import Dropped
from pocketclip.data.picture import Decoding


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How samples become batches.

    Attributes:
        batch_size: samples a batch of each process; what is left of an epoch when there is less for all is left out.
        image_px: side of the pictures in pixels; None is for the trainer to fill in: what the model takes.
        sizes_px: sides of which one is drawn for each batch, in place of `image_px`; none for always the same.
        seed: of the order, the views, the sides and the choice among captions.
        augment: views to draw; of no effect where stored views are replayed.
        replay: use the stored views and embeddings of reinforced shards.
        synthetic: regular expression over captioners' names; None for no synthetic caption.
        synthetic_share: share of samples, drawn anew each time, with a synthetic caption in the place of their own, in
            [0, 1]: one text a sample is encoded. None reads both kinds.
        main_caption_only: always the first ground-truth caption rather than any of them.
        resample: draw samples with replacement: an epoch is as many samples, but some come again and some not at all.
        decode: "exact" for Pillow's pixels; "fast" divides the sides of a JPEG by 2, 4 or 8 while decoding it where
            the view's crop stays as large as what it is resized to (docs/data-path.md has the difference).
        num_threads: threads that build batches ahead, where there are no processes for that.
        num_workers: processes that build batches ahead; batches are the same, to the byte.
        cache_mb: memory for decoded pictures, so that a small data set is decoded once; 0 for none. Processes share it
            out among them.
    """

    batch_size: int
    image_px: int | None = None
    sizes_px: tuple[int, ...] = ()
    seed: int = 0
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    replay: bool = False
    synthetic: str | None = None
    synthetic_share: float | None = None
    main_caption_only: bool = False
    resample: bool = False
    decode: Decoding = "exact"
    num_threads: int = 1
    num_workers: int = 0
    cache_mb: int = 0

    def __post_init__(self) -> None:
        image_px = 1 if self.image_px is None else self.image_px
        if min(self.batch_size, image_px, self.num_threads, *self.sizes_px) < 1:
            raise ValueError("batch_size, image_px, sizes_px and num_threads must be at least 1")
        if min(self.num_workers, self.cache_mb) < 0:
            raise ValueError("num_workers and cache_mb must be at least 0")
        if self.decode not in get_args(Decoding):
            raise ValueError(f"decode must be {' or '.join(get_args(Decoding))}, got {self.decode!r}")
        if self.synthetic_share is not None and not 0.0 <= self.synthetic_share <= 1.0:
            raise ValueError(f"synthetic_share must be in [0, 1], got {self.synthetic_share}")
        if self.synthetic_share is not None and self.synthetic is None:
            raise ValueError(
                "synthetic_share needs synthetic captions: set synthetic to the captioners' names, a regular "
                "expression ('.*' for all)"
            )
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
