"""What is asked of scoring and of filtering: plain data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketclip.filter.rules import Rule
from pocketclip.teachers.teacher import Precision, TeacherSpec

Captions = Literal["main", "mean", "best"]
"""The caption that a score is of: the first one, or the mean or the best of all ground-truth captions."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """All that score files depend on, apart from the input.

    Attributes:
        teachers: score with these.
        stored: score with the stored embeddings of these teachers of reinforced shards; nothing is encoded.
        captions: see `Captions`.
        embeddings: teachers whose embeddings of the pictures are kept too, in 8 bits, for near-duplicates and clusters.
        meta: numbers of a sample's own details that become columns, an NSFW score say.
        words: a file of words, one a line; captions' words on it are counted.
        languages: that occur in the captions; none for all that the detector knows.
        hash_pictures: compute perceptual hashes.
        splits: of a packed input; others have "train" alone.
        batch_size: rows that a teacher sees at once.
        device: where teachers run.
        precision: what they compute in; scores are float32 in any case.
        compiled: compile them with torch.compile.
        num_threads: of torch in each worker; None for torch's own number.
        shard_samples: pictures that make a score file, where the input is a folder of pictures.
    """

    teachers: tuple[TeacherSpec, ...] = ()
    stored: tuple[str, ...] = ()
    captions: Captions = "main"
    embeddings: tuple[str, ...] = ()
    meta: tuple[str, ...] = ("punsafe", "pwatermark")
    words: str | None = None
    languages: tuple[str, ...] = ()
    hash_pictures: bool = True
    splits: tuple[str, ...] = ("train",)
    batch_size: int = 256
    device: str = "cpu"
    precision: Precision = "fp32"
    compiled: bool = False
    num_threads: int | None = None
    shard_samples: int = 1000

    def __post_init__(self) -> None:
        names = [*(spec.name for spec in self.teachers), *self.stored]
        if len(set(names)) < len(names):
            raise ValueError(f"teachers need different names, got {names}")
        unknown = set(self.embeddings) - set(names)
        if unknown:
            raise ValueError(
                f"embeddings of {', '.join(sorted(unknown))} cannot be kept: name a teacher that scores"
            )
        if min(self.batch_size, self.shard_samples) < 1:
            raise ValueError("batch_size and shard_samples must be at least 1")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {self.num_threads}")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError(f"scoring needs one or more different splits, got {self.splits}")


@dataclass(frozen=True, kw_only=True)
class Top:
    """The largest values of a column.

    Attributes:
        column: `score/NAME`, or any other.
        fraction: of the pool's rows, those without a value included; None: `count` says.
        count: rows.
        of: "pool": the cut is that of the whole pool, whatever rules drop of it, as in DataComp's intersections;
            "kept": of the rows that rules and duplicates have left.
    """

    column: str
    fraction: float | None = None
    count: int | None = None
    of: Literal["pool", "kept"] = "pool"

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.count is None):
            raise ValueError(f"top {self.column}: give a fraction or a count")
        if self.fraction is not None and not 0.0 < self.fraction <= 1.0:
            raise ValueError(
                f"top {self.column}: a fraction is above 0 and at most 1 (100%), got {self.fraction}"
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"top {self.column}: a count is at least 1, got {self.count}")

    @property
    def name(self) -> str:
        """As it is written."""
        wanted = f"{100 * self.fraction:g}%" if self.fraction is not None else str(self.count)
        return f"top {self.column}={wanted}"

    def num(self, num_rows: int) -> int:
        """Rows to take of so many."""
        if self.fraction is None:
            assert self.count is not None
            return min(self.count, num_rows)
        return math.floor(self.fraction * num_rows + 0.5)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Rows near which a better one is go.

    Attributes:
        bits: by perceptual hash: two are near that differ in at most so many of 64 bits.
        teacher: by embedding: whose.
        cosine: by embedding: of near pictures, at least.
    """

    bits: int | None = None
    teacher: str | None = None
    cosine: float = 0.95

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.teacher is None):
            raise ValueError("duplicates are found by hash (bits) or by a teacher's embedding")

    @property
    def name(self) -> str:
        """As it is written."""
        return f"phash:{self.bits}" if self.teacher is None else f"{self.teacher}:{self.cosine:g}"


@dataclass(frozen=True, kw_only=True)
class ClusterFile:
    """Clusters of pictures, some of which are wanted.

    Attributes:
        teacher: whose embeddings are compared with the centroids.
        path: safetensors with `centroids`, float32 [K, D], and `wanted`, int64 numbers of centroids.
    """

    teacher: str
    path: str


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What is kept of a pool. Steps come in the order of the attributes; each counts what it drops.

    Attributes:
        rules: on the columns.
        clusters: DataComp's image-based filtering; None for none.
        duplicates: to drop, the best by `best` stays.
        tops: cuts, each by itself: what is kept is above all of them.
        samples: a uniform subset of so many, by a hash of the keys; None keeps all.
        weights: of the pools in a mixture; none for one pool of all score folders.
        repeat: take rows again where a pool is too small for its share.
        seed: of the subset.
        best: column by which the better of two duplicates is told; None takes the first top's, else the first score.
        split: of the score folders.
        output: "virtual": an index that names samples of the original shards; "copy": shards; "ids": keys alone.
        examples: pictures on the sheet for each decile, kept and dropped.
    """

    rules: tuple[Rule, ...] = ()
    clusters: ClusterFile | None = None
    duplicates: tuple[Duplicates, ...] = ()
    tops: tuple[Top, ...] = ()
    samples: int | None = None
    weights: tuple[float, ...] = ()
    repeat: bool = False
    seed: int = 0
    best: str | None = None
    split: str = "train"
    output: Literal["virtual", "copy", "ids"] = "virtual"
    examples: int = 3

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.weights and (min(self.weights) <= 0 or not all(map(math.isfinite, self.weights))):
            raise ValueError(f"weights must be above 0, got {self.weights}")
        if self.repeat and not self.weights:
            raise ValueError("repeat is for mixtures: give weights")
        if self.examples < 0:
            raise ValueError(f"examples must be at least 0, got {self.examples}")


def parse_top(text: str, *, of: Literal["pool", "kept"] = "pool") -> Top:
    """`score/NAME=15%` or `score/NAME=1000000`.

    Raises:
        ValueError: it is of another form.
    """
    match = re.fullmatch(r"([\w/.-]+)=(\d+(?:\.\d+)?)(%?)", text.replace(" ", ""))
    if match is None or (not match[3] and "." in match[2]):
        raise ValueError(f"top {text!r} is not of the form COLUMN=15% or COLUMN=COUNT")
    if match[3]:
        return Top(column=match[1], fraction=float(match[2]) / 100, of=of)
    return Top(column=match[1], count=int(match[2]), of=of)


def parse_duplicates(text: str) -> Duplicates:
    """`phash:4` (bits) or `TEACHER:0.95` (cosine).

    Raises:
        ValueError: it is of another form.
    """
    kind, separator, value = text.partition(":")
    try:
        if kind == "phash":
            return Duplicates(bits=int(value) if separator else 0)
        return Duplicates(teacher=kind, cosine=float(value) if separator else 0.95)
    except ValueError:
        raise ValueError(f"duplicates {text!r} are not of the form phash:BITS or TEACHER:COSINE") from None


def parse_clusters(text: str) -> ClusterFile:
    """`TEACHER=FILE`.

    Raises:
        ValueError: it is of another form.
    """
    teacher, separator, path = text.partition("=")
    if not separator or not teacher or not path:
        raise ValueError(f"clusters {text!r} are not of the form TEACHER=FILE")
    return ClusterFile(teacher=teacher, path=str(Path(path)))
