"""How fast are the rows read that training samples use, beside readers of the published layouts?

    .venv/bin/python benchmarks/rows.py

A training sample uses one view and two captions, from two teachers of width 768. Shards of random rows are written to
a temporary folder (3 GB with the defaults), ours and the published members (one npz or pth.gz a sample in a tar);
random batches are read from them and decoded to float32, in one process on one core, rounds taken in turn. Everything
is in the page cache, and what counts is the time of that core, so that other work on the machine does not. Prints a
Markdown table of samples a second, medians.
"""

from __future__ import annotations

import gzip
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
import torch
import tyro
from PIL import Image

from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import CODECS, Codec
from pocketclip.data.reinforcement import (
    BLOCK_NAME,
    Embeddings,
    Reinforcement,
    TeacherRecord,
    pack_reinforcement,
    read_rows,
)
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader, write_shard

WIDTH = 768
TEACHERS = ("one", "two")
TEXTS = 6

Read = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, list[np.ndarray]]]
"""Rows of samples (numbered through all shards), one view and two texts of each: by teacher, three float32 [B, 768]."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to read."""

    samples: int = 6000
    """In all shards together."""
    shards: tuple[int, ...] = (1, 6, 60)
    """Over which they are spread; a column for each."""
    views: int = 10
    """Of each picture."""
    batch: int = 4096
    """Samples that are read at once."""
    rounds: int = 7
    """Of each reader."""


def main(arguments: Arguments) -> None:
    """Writes, checks that all readers agree, measures, prints."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rows = {
        name: unit(np.random.default_rng(seed), arguments.samples, arguments.views + TEXTS)
        for seed, name in enumerate(TEACHERS)
    }
    with tempfile.TemporaryDirectory(prefix="pocketclip-rows-") as temporary:
        folder = Path(temporary)
        readers: dict[str, dict[int, Read]] = {
            "npz, fp32 (published)": {1: published(folder, rows, arguments, kind="npz")},
            "pth.gz, bf16 (published)": {1: published(folder, rows, arguments, kind="pth.gz")},
        }
        for codec in CODECS:
            readers[codec] = {
                num: ours(folder, rows, arguments, codec=codec, num_shards=num) for num in arguments.shards
            }
        rates = measured(readers, rows, arguments)
    print("| samples a second | " + " | ".join(f"{num} shards" for num in arguments.shards) + " |")
    print("|---" * (1 + len(arguments.shards)) + "|")
    for name in readers:
        cells = [f"{rates[name, num]:,.0f}" if num in readers[name] else "" for num in arguments.shards]
        print(f"| {name} | " + " | ".join(cells) + " |")


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.standard_normal((*shape, WIDTH), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows


def ours(
    folder: Path, rows: dict[str, np.ndarray], arguments: Arguments, *, codec: Codec, num_shards: int
) -> Read:
    """Writes shards and opens them, memory-mapped."""
    per_shard = arguments.samples // num_shards
    blocks = []
    for shard in range(num_shards):
        part = slice(shard * per_shard, (shard + 1) * per_shard)
        path = folder / f"{codec}-{num_shards}" / f"{shard:06d}.tar"
        path.parent.mkdir(exist_ok=True)
        write_shard(
            path, pictures(per_shard), blocks={BLOCK_NAME: block_of(rows, part, arguments, codec=codec)}
        )
        block = ShardReader(path).block(BLOCK_NAME)
        assert block is not None
        blocks.append(Reinforcement(block, name=path.name))

    def read(sample_B: np.ndarray, view_B: np.ndarray, text_TB: np.ndarray) -> dict[str, list[np.ndarray]]:
        found = {}
        for teacher in TEACHERS:
            shard_B, own_B = np.divmod(sample_B, per_shard)
            got = read_rows(
                blocks, teacher=teacher, shard_B=shard_B, sample_B=own_B, view_B=view_B, text_TB=text_TB
            )
            found[teacher] = [got.image_BD, *got.text_TBD]
        return found

    return read


def pictures(num: int) -> list[Sample]:
    """Samples with a picture each that is not looked at."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    captions = tuple(f"caption {number}" for number in range(TEXTS))
    return [
        Sample(key=f"{row:08d}", image=file.getvalue(), extension="png", captions=captions)
        for row in range(num)
    ]


def block_of(rows: dict[str, np.ndarray], part: slice, arguments: Arguments, *, codec: Codec) -> bytes:
    num = len(next(iter(rows.values()))[part])
    teachers = [
        (
            TeacherRecord(name=name, embed_dim=WIDTH, logit_scale=100.0, digest=""),
            Embeddings(
                image_NAD=rows[name][part, : arguments.views],
                text_TD=rows[name][part, arguments.views :].reshape(-1, WIDTH),
            ),
        )
        for name in TEACHERS
    ]
    return pack_reinforcement(
        config_digest="",
        input_sha256="",
        augment=AugmentSpec(),
        codec=codec,
        params_NAP=np.zeros((num, arguments.views, AugmentSpec().num_params), np.int32),
        text_counts=[TEXTS] * num,
        teachers=teachers,
        dropped={},
    )


def published(folder: Path, rows: dict[str, np.ndarray], arguments: Arguments, *, kind: str) -> Read:
    """Writes one tar of members as published and opens it: found by their places, read one by one."""
    path = folder / f"published.{kind}.tar"
    num = min(arguments.samples, 1000)
    with tarfile.open(path, "w") as tar:
        for row in range(num):
            arrays = {
                "image_emb": np.concatenate(
                    [rows[name][row, : arguments.views] for name in TEACHERS], axis=1
                ),
                "text_emb": np.concatenate([rows[name][row, arguments.views :] for name in TEACHERS], axis=1),
            }
            data = npz(arrays) if kind == "npz" else pth_gz(arrays)
            info = tarfile.TarInfo(f"{row:08d}.{kind}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as tar:
        places = [(member.offset_data, member.size) for member in tar]
    content = np.memmap(path, np.uint8, "r")

    def load(sample: int) -> tuple[np.ndarray, np.ndarray]:
        start, size = places[sample % num]
        file = io.BytesIO(content[start : start + size].tobytes())
        if kind == "npz":
            with np.load(file, allow_pickle=False) as arrays:
                return arrays["image_emb"], arrays["text_emb"]
        tensors = torch.load(io.BytesIO(gzip.decompress(file.getvalue())), weights_only=True)
        return tensors["image_emb"], tensors["text_emb"]

    def read(sample_B: np.ndarray, view_B: np.ndarray, text_TB: np.ndarray) -> dict[str, list[np.ndarray]]:
        out = np.empty((3, len(sample_B), 2 * WIDTH), np.float32)
        for at, (sample, view, texts) in enumerate(
            zip(sample_B.tolist(), view_B.tolist(), text_TB.T.tolist(), strict=True)
        ):
            image, text = load(sample)
            chosen = (image[view], text[texts[0]], text[texts[1]])
            for which, row in enumerate(chosen):
                out[which, at] = row.float().numpy() if isinstance(row, torch.Tensor) else row
        return {name: list(out[:, :, i * WIDTH : (i + 1) * WIDTH]) for i, name in enumerate(TEACHERS)}

    return read


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def pth_gz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(array).bfloat16() for name, array in arrays.items()}, file)
    return gzip.compress(file.getvalue())


def measured(
    readers: dict[str, dict[int, Read]], rows: dict[str, np.ndarray], arguments: Arguments
) -> dict[tuple[str, int], float]:
    """Samples a second, by reader and number of shards."""
    rng = np.random.default_rng(0)

    def batch(num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sample_B = rng.integers(0, arguments.samples, num)
        return sample_B, rng.integers(0, arguments.views, num), rng.integers(0, TEXTS, (2, num))

    for by_shards in readers.values():
        for read in by_shards.values():
            check(read, rows, batch(200), views=arguments.views)
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds + 1):
        for name, by_shards in readers.items():
            for num_shards, read in by_shards.items():
                size = 500 if "published" in name else arguments.batch
                chosen = batch(size)
                start = time.process_time()
                read(*chosen)
                seconds.setdefault((name, num_shards), []).append((time.process_time() - start) / size)
    return {place: 1 / statistics.median(taken[1:]) for place, taken in seconds.items()}


def check(
    read: Read, rows: dict[str, np.ndarray], chosen: tuple[np.ndarray, np.ndarray, np.ndarray], *, views: int
) -> None:
    """A reader of other rows than it was asked for would be fast, too."""
    sample_B, view_B, text_TB = chosen
    sample_B %= min(len(next(iter(rows.values()))), 1000)
    found = read(sample_B, view_B, text_TB)
    for name, exact in rows.items():
        wanted = [exact[sample_B, view_B], *(exact[sample_B, views + text_B] for text_B in text_TB)]
        for got, row in zip(found[name], wanted, strict=True):
            assert ((got * row).sum(axis=-1) > 0.7).all(), name


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
