"""Whether stored embeddings and views can be what they claim."""

# Shape suffixes: N rows, A views, D dimensions.

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from pocketclip.data.augment import Augmentation, AugmentSpec, apply
from pocketclip.data.codec import Codec
from pocketclip.data.codec_error import CodecError

REPLAY_PX = 32
"""Side at which views are replayed: whether it succeeds does not depend on it."""

_ROUNDING = {"fp32": 1e-3, "bf16": 4e-3, "int8": 4e-3, "q4": 4e-3}
"""How far from 1 a length may be besides what the codec's error explains: its teacher's and the format's rounding."""

_LARGEST = {"fp32": 0.0, "bf16": 0.01, "int8": 0.05, "q4": 0.35}
"""The most that a codec's error may explain: a row of nothing has a cosine of 0, and explains nothing."""


def length_tolerance(codec: Codec, error: CodecError | None) -> float:
    """How far from 1 the length of a stored row may be.

    A row of length 1 and its stored self with cosine c are at most sqrt(2 - 2c) apart where their lengths agree, and so
    are their lengths; c is the worst of the table.

    Args:
        codec: how rows are stored.
        error: of their table, measured when it was written.
    """
    apart = math.sqrt(max(0.0, 2 - 2 * error.cosine_min)) if error is not None else 0.0
    return _ROUNDING[codec] + min(apart, _LARGEST[codec])


def wrong_rows(rows_ND: np.ndarray, *, tolerance: float) -> dict[int, str]:
    """Rows that are no embeddings, each with its reason."""
    finite_N = np.isfinite(rows_ND).all(axis=1)
    length_N = np.linalg.norm(np.where(np.isfinite(rows_ND), rows_ND, 0.0).astype(np.float64), axis=1)
    reasons = {
        int(row): "not finite: it has values that are not numbers" for row in np.flatnonzero(~finite_N)
    }
    for row in np.flatnonzero(finite_N & (np.abs(length_N - 1) > tolerance)):
        reasons[int(row)] = f"length: it has length {length_N[row]:.4f}, not 1 within {tolerance:.4f}"
    return dict(sorted(reasons.items()))


def replay(image: Image.Image, view: Augmentation, *, spec: AugmentSpec) -> str:
    """Replays a view; the reason why that fails, or nothing."""
    if image.size != (view.width, view.height):
        return f"size: it was drawn for a picture of {view.width}x{view.height}, which is {image.width}x{image.height}"
    try:
        pixels = apply(image, view, size=REPLAY_PX, spec=spec)
    except ValueError as error:
        return f"parameters: {error}"
    return "" if pixels.size == (REPLAY_PX, REPLAY_PX) else f"replay: it gave {pixels.size}"
