"""What scoring costs beside encoding, and what choosing the top of 100 million scores takes.

    .venv/bin/python benchmarks/filter.py make /tmp/pool          100 million rows in 1,000 files, 3.3 GB
    .venv/bin/python benchmarks/filter.py select /tmp/pool /tmp/kept
    .venv/bin/python benchmarks/filter.py overhead /tmp/overhead --model open_clip:ViT-B-32/random

`select` filters with `--top score/dfn=20%`, keys alone, and prints seconds and the largest resident memory. `overhead`
encodes the same pictures and captions in a bare loop (decode, resize, both towers, batches of the same size, decoding
in as many threads) and with `score`, in turn, and prints both.
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from tyro.conf import Positional, subcommand

os.environ.setdefault("GOMP_SPINCOUNT", "5000")


@dataclass(frozen=True, kw_only=True)
class Make:
    """Write a pool of scores."""

    pool: Positional[Path]
    rows: int = 100_000_000
    files: int = 1000

    def run(self) -> None:
        """Cosines as a CLIP gives them, a key of eleven digits for each row."""
        from pocketclip.data.index import ShardIndex, write_index
        from pocketclip.data.publish import publish_file
        from pocketclip.data.shard import ShardEntry
        from pocketclip.filter.scores import score_bytes

        each, entries = self.rows // self.files, []
        powers = 10 ** np.arange(10, -1, -1)
        for number in range(self.files):
            generator = np.random.default_rng(number)
            key = np.arange(number * each, (number + 1) * each)
            letters = np.empty((each, 12), np.int8)
            letters[:, :11] = key[:, None] // powers % 10 + ord("0")
            letters[:, 11] = ord("\n")
            columns = {
                "id": generator.integers(-(2**63), 2**63, each),
                "score/dfn": generator.normal(0.2, 0.06, each).astype(np.float32),
                "keys": letters.ravel(),
                "key_ends": 12 * np.arange(1, each + 1),
            }
            data = score_bytes(columns, about={"shard": "", "input_sha256": ""})
            name = f"train/{number:06d}.safetensors"
            with publish_file(self.pool / name) as file:
                file.write(data)
            digest = hashlib.sha256(data).hexdigest()
            entries.append(ShardEntry(file=name, num_samples=each, num_bytes=len(data), sha256=digest))
        config = {"verb": "score", "digest": "made up", "data": "", "kind": "tar"}
        index = ShardIndex(source="made up", splits={"train": tuple(entries)}, config=config)
        write_index(self.pool, index)


@dataclass(frozen=True, kw_only=True)
class Select:
    """Choose the top of a pool."""

    pool: Positional[Path]
    out: Positional[Path]
    top: str = "20%"

    def run(self) -> None:
        """Filters, and checks the number that is kept."""
        from pocketclip.filter import FilterConfig, filter_pool, parse_top

        shutil.rmtree(self.out, ignore_errors=True)
        config = FilterConfig(tops=(parse_top(f"score/dfn={self.top}"),), output="ids")
        started = time.perf_counter()
        decision = filter_pool([self.pool], self.out, config=config)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        with (self.out / "kept.txt").open("rb") as file:
            num_lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 24), b""))
        assert num_lines == decision.num_kept, "a key for each row that is kept"
        print(
            "| rows | kept | cut | seconds | largest resident memory, GiB |",
            "|---|---|---|---|---|",
            sep="\n",
        )
        print(
            f"| {len(decision.times_N):,} | {decision.num_kept:,} | {decision.steps[0].facts['cut']:.6f} | "
            f"{seconds:.0f} | {peak:.2f} |"
        )


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Compare scoring with encoding alone."""

    folder: Positional[Path]
    model: str = "open_clip:ViT-B-32/random"
    pictures: int = 256
    batch_size: int = 32
    rounds: int = 3
    loaders: int = 2

    def run(self) -> None:
        """In turn, so that what else the machine does falls on both."""
        import torch

        from pocketclip.engine import EngineConfig
        from pocketclip.filter import ScoreConfig, score
        from pocketclip.teachers import TeacherSpec, build_teacher

        data = self.folder / "data"
        _photographs(data, num=self.pictures)
        spec = TeacherSpec(name="clip", source=self.model)
        teacher = build_teacher(spec)
        threads = torch.get_num_threads()

        def bare() -> float:
            started = time.perf_counter()
            _encode(data, teacher, batch_size=self.batch_size, loaders=self.loaders)
            return time.perf_counter() - started

        def scored(**options) -> Callable[[], float]:  # noqa: ANN003
            def run() -> float:
                out = self.folder / "scores"
                shutil.rmtree(out, ignore_errors=True)
                config = ScoreConfig(
                    teachers=(spec,), batch_size=self.batch_size, num_threads=threads, **options
                )
                score(data, out, config=config, engine=EngineConfig(num_loaders=self.loaders))
                return _spent(out)

            return run

        kinds = {
            "encode alone": bare,
            "score": scored(),
            "score, embeddings kept": scored(embeddings=("clip",)),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(self.rounds + 1):
            for kind, run in kinds.items():
                spent = run()
                if number:  # the first round warms up
                    seconds[kind].append(spent)
        base = statistics.median(seconds["encode alone"])
        print(f"{self.pictures} pictures of 640 x 480, {self.model}, {threads} threads of torch")
        print("| | seconds, median | each round | over encoding |", "|---|---|---|---|", sep="\n")
        for kind, found in seconds.items():
            middle = statistics.median(found)
            each = ", ".join(f"{one:.2f}" for one in found)
            print(f"| {kind} | {middle:.2f} | {each} | {100 * (middle / base - 1):+.1f}% |")


def _spent(out: Path) -> float:
    """Seconds of the shards of a run: without starting, which does not grow with the data."""
    import json

    lines = (out / "manifest.jsonl").read_text().splitlines()
    return sum(json.loads(line)["seconds"] for line in lines)


def _encode(data: Path, teacher, *, batch_size: int, loaders: int) -> None:  # noqa: ANN001
    """What any scoring must do: read, decode, resize, both towers, cosines."""
    from pocketclip.data.index import split_shards
    from pocketclip.data.picture import decode
    from pocketclip.data.preprocess import Preprocess
    from pocketclip.data.shard import ShardReader
    from pocketclip.engine import mapped

    own = Preprocess.from_json(teacher.describe()["preprocess"])
    for path in split_shards(data, "train"):
        with ShardReader(path) as shard, ThreadPoolExecutor(loaders) as pool:
            pixels, texts = [], []

            def load(sample):  # noqa: ANN001, ANN202
                return own.pixels(decode(sample.image, name=sample.key)), sample.captions[0]

            window = loaders + 2 * batch_size
            for number, (picture, text) in enumerate(mapped(load, shard, pool=pool, window=window), 1):
                pixels.append(picture)
                texts.append(text)
                if len(texts) == batch_size or number == len(shard):
                    image_BD = teacher.encode_image(np.stack(pixels))
                    text_BD = teacher.encode_text(texts)
                    (image_BD * text_BD).sum(axis=1)
                    pixels, texts = [], []


def _photographs(folder: Path, *, num: int) -> None:
    """JPEGs of 640 x 480 with something in them, and captions of a dozen words."""
    from PIL import Image

    from pocketclip.data.index import ShardIndex, write_index
    from pocketclip.data.sample import Sample
    from pocketclip.data.shard import write_shard

    if (folder / "index.json").is_file():
        return
    generator = np.random.default_rng(0)
    words = ("a", "the", "red", "small", "dog", "house", "tree", "on", "under", "with", "near", "street", "snow")
    samples = []
    for number in range(num):
        coarse = generator.integers(0, 256, (30, 40, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        caption = " ".join(generator.choice(words, 12))
        samples.append(
            Sample(key=f"p{number:06d}", image=file.getvalue(), extension="jpg", captions=(caption,))
        )
    half = num // 2
    entries = [
        write_shard(folder / "train" / f"{number:06d}.tar", samples[number * half : (number + 1) * half])
        for number in range(2)
    ]
    write_index(folder, ShardIndex(source="made up", splits={"train": tuple(entries)}))


if __name__ == "__main__":
    command = tyro.cli(
        Annotated[Make, subcommand("make")]
        | Annotated[Select, subcommand("select")]
        | Annotated[Overhead, subcommand("overhead")],
        description=__doc__,
        args=sys.argv[1:],
    )
    command.run()
