"""What a join is, and where its pictures come from: plain data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketclip.data.codec import Codec
from pocketclip.data.foreign.published import SYNTHETIC
from pocketclip.data.foreign.published_teachers import Generation
from pocketclip.data.reinforcement import TeacherRecord

_HEADER = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """All that the output's bytes depend on, apart from reinforcements and pictures.

    Attributes:
        generation: whose teachers the columns are of; "auto" tells by where the rows of synthetic captions are.
        teachers: the teachers in the order of their columns, where they are neither generation's; empty for those.
        augment: the `config.json` of the published set; None takes the one beside the shards, else the shipped one.
        synthetic: regular expression over the keys of synthetic captions to take.
        tag: what follows the names of arrays; None for any.
        codec: how embeddings are stored; in bf16 published bfloat16 stays what it is.
        sha256: "check" drops a picture whose hash is not the published one; "ignore" takes it.
        longest_px: shrink pictures whose longer side has more pixels, as the pictures that were reinforced had been.
    """

    generation: Generation | Literal["auto"] = "auto"
    teachers: tuple[TeacherRecord, ...] = ()
    augment: Path | None = None
    synthetic: str = SYNTHETIC
    tag: str | None = None
    codec: Codec = "bf16"
    sha256: Literal["check", "ignore"] = "check"
    longest_px: int | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.synthetic)
        except re.error as error:
            raise ValueError(f"synthetic is no regular expression: {self.synthetic!r} ({error})") from None
        if len({teacher.name for teacher in self.teachers}) < len(self.teachers):
            raise ValueError("two teachers have one name: give each its own")
        if self.longest_px is not None and self.longest_px < 1:
            raise ValueError(f"longest_px must be at least 1, got {self.longest_px}")


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How pictures are downloaded. No byte of the output depends on it.

    Attributes:
        connections: downloads at the same time.
        attempts: of each picture in one run, while the failure may pass.
        backoff_s: before the second attempt; doubled before each further one.
        timeout_s: without an answer or another byte; a whole download may take three times as long.
        max_bytes: of a picture; larger ones are left.
        user_agent: that servers get to see.
    """

    connections: int = 32
    attempts: int = 3
    backoff_s: float = 1.0
    timeout_s: float = 20.0
    max_bytes: int = 64 << 20
    user_agent: str = "pocketclip (pictures of a published data set)"

    def __post_init__(self) -> None:
        for name in ("connections", "attempts", "max_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.timeout_s > 0 or not self.backoff_s >= 0:
            raise ValueError("timeout_s must be above 0, backoff_s at least 0")
        if not _HEADER.fullmatch(self.user_agent):
            raise ValueError(f"user_agent must be printable ASCII, got {self.user_agent!r}")


@dataclass(frozen=True, kw_only=True)
class PictureSources:
    """Where pictures are looked for, in this order.

    Attributes:
        images: tars (a folder, a pattern, a file), or folders of picture files named after their uids.
        captions: a table (.jsonl, .csv, .tsv, .parquet) with the columns uid and text, for ground-truth captions that
            neither the published shards nor the images have.
        download: download what is not there; None for no downloads.
        retry: look again for what an earlier run did not find or get.
        num_threads: that decode.
    """

    images: tuple[str, ...] = ()
    captions: Path | None = None
    download: DownloadConfig | None = None
    retry: bool = False
    num_threads: int = 4

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {self.num_threads}")
