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
import tempfile
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
        """In turn, so that what else the machine does falls on both; what starting takes is left out."""
        import torch

        from pocketclip.data.objects import Place, open_store
        from pocketclip.engine import Job, open_unit, plan_units
        from pocketclip.filter import ScoreConfig
        from pocketclip.filter.run import ScoreTask
        from pocketclip.teachers import TeacherSpec, build_teacher

        data = self.folder / "data"
        _photographs(data, num=self.pictures)
        spec = TeacherSpec(name="clip", source=self.model)
        teacher = build_teacher(spec)
        plan = plan_units(Place(url=str(data)), splits=("train",), shard_samples=1000)
        store = open_store(plan.place)

        def scored(**options) -> Callable[[], None]:  # noqa: ANN003
            config = ScoreConfig(teachers=(spec,), batch_size=self.batch_size, **options)
            maker = ScoreTask(config=config, num_loaders=self.loaders, source=plan.place).build()

            def run() -> None:
                for unit in plan.units:
                    with open_unit(unit, store) as opened, tempfile.TemporaryFile() as file:
                        job = Job(unit=unit, config_digest="")
                        maker.make(opened, file, job=job, folder=None, progress=lambda _: None)

            return run

        kinds: dict[str, Callable[[], None]] = {
            "encode alone": lambda: _encode(data, teacher, batch_size=self.batch_size, loaders=self.loaders),
            "score": scored(),
            "score, embeddings kept": scored(embeddings=("clip",)),
        }
        spent: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for number in range(self.rounds + 1):
            for kind, run in kinds.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                if number:  # the first round warms up
                    spent[kind].append((time.perf_counter() - wall, time.process_time() - cpu))
        threads = torch.get_num_threads()
        print(f"{self.pictures} pictures of 640 x 480, {self.model}, {threads} threads of torch")
        print(
            "| | seconds, median | over encoding | CPU seconds, median | over encoding |",
            "|---|---|---|---|---|",
            sep="\n",
        )
        base = [statistics.median(found) for found in zip(*spent["encode alone"], strict=True)]
        for kind, found in spent.items():
            middle = [statistics.median(one) for one in zip(*found, strict=True)]
            cells = [
                f"{one:.2f} | {100 * (one / other - 1):+.1f}%"
                for one, other in zip(middle, base, strict=True)
            ]
            print(f"| {kind} | " + " | ".join(cells) + " |")


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
    words = (
        "a",
        "the",
        "red",
        "small",
        "dog",
        "house",
        "tree",
        "on",
        "under",
        "with",
        "near",
        "street",
        "snow",
    )
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
