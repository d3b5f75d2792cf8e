"""What may be wrong with samples, told from their rows, their captions and a few pixels; pure functions."""

# Shape suffixes: N samples, D embedding, S numbers of a signature, P pairs, B rows of a block, M rows to compare with.

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.search.groups import Rows, deviations, duplicates

CaptionFault = Literal["empty", "too long", "cut off", "repeated", "file name"]

_SIDE = 16  # of a signature
_FLAT = 8.0  # grey values: of less spread than this a picture is one colour
_APART, _PLACES = 40.0, 0.98  # grey values that copies differ by at most, in this share of the places
_PRODUCTS = 1 << 22
_CUT = re.compile(r"(?:\.\.\.|…|\[\.\.\.\]|\[…\])\W*$")
_FILE = re.compile(
    r"(?:(?:img|dsc|dscn|dscf|pict|image|photo|screenshot)[\s_\-]*\d+|[\d_\-]{6,})", re.IGNORECASE
)
_FILE_ENDING = re.compile(r"\S+\.(?:jpe?g|png|gif|webp|tiff?|bmp)", re.I)
_REPEATED = 5


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """Samples with the same picture.

    Attributes:
        kind: "exact" where all have the very same bytes, else "near".
        members: numbers of the samples, ascending.
        keep: the one to keep: in the smallest of its splits, which is the one to test with, the largest picture.
        splits: in which they lie; several are a leak.
    """

    kind: Literal["exact", "near"]
    members: tuple[int, ...]
    keep: int
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A picture and a caption that hardly belong together.

    Attributes:
        sample: its number.
        own: cosine of picture and caption.
        z: by how much others fit better than its own, against what is usual in this set, in standard deviations.
        better: number of the sample whose caption fits the picture best.
        better_cosine: of the picture with that caption.
        captions_better: share of the other captions that fit the picture better than its own, 0 to 1.
        pictures_better: share of the other pictures that fit the caption better.
    """

    sample: int
    own: float
    z: float
    better: int
    better_cosine: float
    captions_better: float
    pictures_better: float


@dataclass(frozen=True, kw_only=True)
class CaptionFinding:
    """A caption that is no good.

    Attributes:
        sample: its number.
        fault: what is wrong.
        note: for a person.
    """

    sample: int
    fault: CaptionFault
    note: str


def signature(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A picture in 16 x 16 pixels, uint8 [S]: enough to tell a copy from another picture of the same thing."""
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX)).reshape(-1)


def alike(
    one_PS: npt.NDArray[np.uint8], other_PS: npt.NDArray[np.uint8], *, correlation: float
) -> npt.NDArray[np.bool_]:
    """Whether pictures are copies of one another, by their signatures: bool [P].

    Their pixels are correlated and nowhere far apart: a copy with other brightness, contrast or compression is one, and
    so is one that lost a narrow edge. Pictures of one colour are compared as they are.
    """
    one, other = one_PS.astype(np.float32), other_PS.astype(np.float32)
    apart_PS = np.abs(one - other)
    flat_P = (one.std(axis=1) < _FLAT) | (other.std(axis=1) < _FLAT)
    most = int(_PLACES * apart_PS.shape[1])
    local_P = np.partition(apart_PS, most, axis=1)[:, most] <= _APART
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    together_P = np.einsum("ps,ps->p", one, other) / np.maximum(lengths, 1e-6) >= correlation
    return np.where(flat_P, apart_PS.max(axis=1) < _FLAT, together_P & local_P)


def find_duplicates(
    image_ND: Rows,
    signature_NS: npt.NDArray[np.uint8],
    sha256: Sequence[bytes],
    *,
    splits: Sequence[str],
    num_pixels: Sequence[int],
    cosine: float,
    correlation: float,
) -> list[DuplicateGroup]:
    """Groups of samples whose pictures are the same, byte for byte or nearly; the model proposes, pixels confirm."""

    def confirm(one_P: npt.NDArray[np.int64], other_P: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return alike(signature_NS[one_P], signature_NS[other_P], correlation=correlation)

    size = Counter(splits)
    groups = []
    for rows in duplicates(image_ND, threshold=cosine, confirm=confirm):
        members = tuple(rows.tolist())
        groups.append(
            DuplicateGroup(
                kind="exact" if len({sha256[row] for row in members}) == 1 else "near",
                members=members,
                keep=min(members, key=lambda row: (size[splits[row]], -num_pixels[row], row)),
                splits=tuple(sorted({splits[row] for row in members})),
            )
        )
    return groups


def find_misfits(
    image_ND: Rows,
    text_ND: Rows,
    *,
    caption_N: npt.NDArray[np.int64],
    group_N: npt.NDArray[np.int64],
    threshold: float,
    num_best: int = 5,
    max_compared: int = 20_000,
    seed: int = 0,
) -> list[Misfit]:
    """Samples whose own caption fits far worse than others' do, and whose caption fits other pictures far better.

    Rows are taken less their mean, and so no caption fits everything. How much better others fit, both ways, is
    compared with what is usual in the set: under a weak model others fit better everywhere, and little stands out.

    Args:
        image_ND: float32 [N, D], length 1.
        text_ND: of the captions, likewise.
        caption_N: the same number for the same caption.
        group_N: the same number for copies of a picture.
        threshold: standard deviations from which on a sample stands out.
        num_best: others whose cosines are averaged.
        max_compared: samples to compare with; of more, so many are drawn.
        seed: of the draw.

    Returns:
        The worst first.
    """
    num = len(image_ND)
    if num < num_best + 2:
        return []
    chosen_M = np.arange(num)
    if num > max_compared:
        chosen_M = np.sort(np.random.default_rng(seed).choice(num, max_compared, replace=False))
    image, text = _centred(image_ND), _centred(text_ND)
    own_N = np.einsum("nd,nd->n", image, text)
    kin = (caption_N, group_N)
    by_picture = _others(image, text[chosen_M], own_N, chosen_M, kin=kin, num_best=num_best)
    by_text = _others(text, image[chosen_M], own_N, chosen_M, kin=kin, num_best=num_best)
    gap_N = (by_picture.best_N + by_text.best_N) / 2 - own_N
    z_N = deviations(gap_N)
    found_N = (z_N >= threshold) & (by_picture.best_N > own_N) & (by_text.best_N > own_N)
    rows = np.flatnonzero(found_N)
    return [
        Misfit(
            sample=int(row),
            own=float(image_ND[row] @ text_ND[row]),
            z=float(z_N[row]),
            better=int(by_picture.first_N[row]),
            better_cosine=float(image_ND[row] @ text_ND[by_picture.first_N[row]]),
            captions_better=float(by_picture.share_N[row]),
            pictures_better=float(by_text.share_N[row]),
        )
        for row in rows[np.argsort(-z_N[rows], kind="stable")]
    ]


@dataclass(frozen=True, kw_only=True)
class _Others:
    """For every row: the mean of the best others' cosines, the first of them, the share above its own."""

    best_N: npt.NDArray[np.float32]
    first_N: npt.NDArray[np.int64]
    share_N: npt.NDArray[np.float32]


def _others(
    rows_ND: Rows,
    others_MD: Rows,
    own_N: npt.NDArray[np.float32],
    chosen_M: npt.NDArray[np.int64],
    *,
    kin: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    num_best: int,
) -> _Others:
    num = len(rows_ND)
    best_N, share_N = np.empty(num, np.float32), np.empty(num, np.float32)
    first_N = np.empty(num, np.int64)
    step = max(1, _PRODUCTS // len(chosen_M))
    for begin in range(0, num, step):
        rows = np.arange(begin, min(num, begin + step))
        cosine_BM = rows_ND[rows] @ others_MD.T
        for label_N in kin:  # its own, and those that are as good as its own
            cosine_BM[label_N[rows, None] == label_N[chosen_M]] = -1.0
        best_BK = np.partition(cosine_BM, -num_best, axis=1)[:, -num_best:]
        best_N[rows] = best_BK.mean(axis=1)
        first_N[rows] = chosen_M[cosine_BM.argmax(axis=1)]
        share_N[rows] = (cosine_BM > own_N[rows, None]).mean(axis=1)
    return _Others(best_N=best_N, first_N=first_N, share_N=share_N)


def _centred(rows_ND: Rows) -> Rows:
    rows = rows_ND - rows_ND.mean(axis=0)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def find_captions(
    captions: Sequence[str], num_tokens: Sequence[int], *, most_tokens: int, sha256: Sequence[bytes]
) -> list[CaptionFinding]:
    """Captions that say nothing, or of which something is missing.

    Args:
        captions: main one of every sample; empty where there is none.
        num_tokens: of each, start and end included.
        most_tokens: that the model sees.
        sha256: of the pictures: a caption is repeated when different ones have it.
    """
    pictures: dict[str, set[bytes]] = {}
    for caption, digest in zip(captions, sha256, strict=True):
        pictures.setdefault(caption.strip().casefold(), set()).add(digest)
    often = max(_REPEATED, len(captions) // 100)
    found = []
    for number, (caption, tokens) in enumerate(zip(captions, num_tokens, strict=True)):
        text = caption.strip()
        fault: tuple[CaptionFault, str] | None = None
        if not any(map(str.isalnum, text)):
            fault = ("empty", "there is no caption" if not text else "there is no word in it")
        elif _FILE.fullmatch(text) or _FILE_ENDING.fullmatch(text):
            fault = ("file name", "the name of a file, not a caption")
        elif tokens > most_tokens:
            fault = ("too long", f"{tokens:,} tokens, of which the model sees {most_tokens}")
        elif _CUT.search(text):
            fault = ("cut off", "it ends in dots")
        elif len(pictures[text.casefold()]) >= often:
            fault = ("repeated", f"{len(pictures[text.casefold()]):,} pictures have it")
        if fault is not None:
            found.append(CaptionFinding(sample=number, fault=fault[0], note=fault[1]))
    return found
