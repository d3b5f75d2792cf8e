"""How fast is a search among many vectors, how much does it miss, and how fast is indexing?

    .venv/bin/python benchmarks/search.py vectors --num 1000000
    .venv/bin/python benchmarks/search.py vectors --num 1000000 --real REINFORCED
    .venv/bin/python benchmarks/search.py index --photos PHOTOS --model EXPORTED

`vectors` draws random vectors of width 512, the hardest case (nothing is near anything), or lays embeddings of a
reinforced folder side by side, two views of a picture and both teachers in each row. They are written as an index has
them; exact search in float32 over the originals tells which are the nearest. Queries are asked one after another by a
fresh process, whose memory is told. Prints a row of a Markdown table for each case.

`index` indexes a folder, runs the image tower alone on pictures that were decoded before, and the runtime from the
files, in turn.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import tyro
from PIL import Image

from pocketclip.data.picture import decode
from pocketclip.search import encoding, firstpass
from pocketclip.search.vectors import Change, VectorReader, VectorWriter

DIM = 512
_BLOCK = 16_384
_TRUE = 50  # nearest that are known of each query


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Search among many vectors."""

    num: int = 1_000_000
    """How many."""
    queries: int = 500
    """How many."""
    real: Path | None = None
    """A reinforced folder with two teachers of width 128; random vectors without it."""
    folder: Path | None = None
    """Where to write (a temporary folder)."""
    threads: int = 2
    """That compare."""
    runner: str = ""
    """Runs the asking process: `chrt -r 5` keeps others off, where they use the same machine."""

    def run(self) -> None:
        """Builds, then asks in another process."""
        folder = self.folder or Path(tempfile.mkdtemp(prefix="bench-search-"))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run(folder)
        finally:
            shutil.rmtree(folder)

    def _run(self, folder: Path) -> None:
        blocks = _random(self.num) if self.real is None else _real(self.real, self.num)
        writer = VectorWriter(folder, rotation_DD=encoding.random_rotation(DIM))
        vectors_ND = np.empty((self.num, DIM), np.float32)
        done, write_s = 0, 0.0
        for block in blocks:
            started = time.perf_counter()
            writer.write(range(done, done + len(block)), block)
            write_s += time.perf_counter() - started
            vectors_ND[done : done + len(block)] = block
            done += len(block)
        writer.close()
        queries_QD = _queries(vectors_ND, self.queries, real=self.real is not None)
        _save_truth(folder, vectors_ND, queries_QD)
        del vectors_ND
        started = time.perf_counter()
        firstpass.keep_up(folder, _reader(folder, self.num, threads=self.threads))
        first_s = time.perf_counter() - started
        num_bytes = sum(
            path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz"
        )
        print(f"written {write_s:.0f} s, first pass {first_s:.0f} s, {num_bytes / 1e9:.3f} GB", flush=True)
        print("| among | p50 ms | p90 ms | p99 ms | recall@10 | recall@50 | resident MB |", flush=True)
        for name in ("all", "all, without a first pass", "60% allowed", "30% allowed", "1% allowed"):
            command = [
                *shlex.split(self.runner),
                sys.executable,
                __file__,
                "ask",
                "--folder",
                folder,
                "--num",
                str(self.num),
            ]
            subprocess.run([*command, "--case", name, "--threads", str(self.threads)], check=True)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The child of `vectors`: asks, and prints a row."""

    folder: Path
    num: int
    case: str
    threads: int

    def run(self) -> None:
        """Asks."""
        reader = _reader(self.folder, self.num, threads=self.threads)
        if "without" in self.case:
            shutil.move(next(self.folder.glob("first-*"), self.folder), self.folder / "away")
        truth = np.load(self.folder / "truth.npz")
        among = _among(self.case, self.num)
        milliseconds, found = [], {10: 0, 50: 0}
        for warm in (True, False):
            for query_D, near_K in zip(truth["queries"], truth[_truth_name(self.case)], strict=True):
                started = time.perf_counter()
                ids, _ = reader.search(query_D, 10, among=among)
                milliseconds.append((time.perf_counter() - started) * 1000)
                if not warm:
                    more, _ = reader.search(query_D, 50, among=among)
                    found[10] += len(set(ids.tolist()) & set(near_K[:10].tolist()))
                    found[50] += len(set(more.tolist()) & set(near_K.tolist()))
            milliseconds = [] if warm else milliseconds
        p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
        num = len(milliseconds)
        resident = psutil.Process().memory_info().rss / 1e6
        print(
            f"| {self.case} | {p50:.1f} | {p90:.1f} | {p99:.1f} | {found[10] / num / 10:.4f} | "
            f"{found[50] / num / 50:.4f} | {resident:.0f} |",
            flush=True,
        )
        if (self.folder / "away").exists():
            shutil.move(self.folder / "away", self.folder / "first-0000")


@dataclass(frozen=True, kw_only=True)
class Index:
    """Indexing, and the image tower alone."""

    photos: Path
    """Folder of pictures."""
    model: Path
    """Exported model."""
    rounds: int = 3
    """Of each, in turn."""
    num: int = 400
    """Pictures of a round."""
    decoders: int | None = None
    """Threads that decode for the index."""

    def run(self) -> None:
        """Measures."""
        from pocketclip.runtime import ExportedModel
        from pocketclip.search.build import IndexConfig, Indexer

        paths = sorted(path for path in self.photos.rglob("*") if path.is_file())[: self.num]
        model = ExportedModel(self.model)
        pixels = np.stack([model.preprocess.pixels(_decoded(path)) for path in paths])
        model.embed_pixels(pixels[:32])
        with tempfile.TemporaryDirectory() as scratch:
            some = Path(scratch, "photos")
            some.mkdir()
            for path in paths:
                shutil.copy(path, some)
            alone, files, whole = [], [], []
            for number in range(self.rounds):
                started = time.perf_counter()
                for begin in range(0, len(pixels), 32):
                    model.embed_pixels(pixels[begin : begin + 32])
                alone.append(len(paths) / (time.perf_counter() - started))
                started = time.perf_counter()
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    for begin in range(0, len(paths), 64):
                        images = list(pool.map(_decoded, paths[begin : begin + 64]))
                        model.embed_images(images)
                files.append(len(paths) / (time.perf_counter() - started))
                indexer = Indexer(
                    Path(scratch, f"{number}.index"),
                    model=self.model,
                    config=IndexConfig(decoders=self.decoders),
                )
                one = Path(scratch, f"{number}.one")
                one.mkdir()
                shutil.copy(paths[0], one)
                indexer.update([one])  # the model is loaded and the index begun before the clock starts
                started = time.perf_counter()
                summary = indexer.update([some])
                whole.append(summary.num_new / (time.perf_counter() - started))
        print(f"image tower alone: {json.dumps([round(rate, 1) for rate in alone])} pictures/s")
        print(f"indexing:          {json.dumps([round(rate, 1) for rate in whole])} pictures/s")
        print(f"from files:        {json.dumps([round(rate, 1) for rate in files])} pictures/s")
        print(f"indexing beside the tower alone: {np.median(whole) / np.median(alone):.3f}")
        print(f"indexing beside the runtime from files: {np.median(whole) / np.median(files):.3f}")


def _decoded(path: Path) -> Image.Image:
    return decode(path.read_bytes(), name=path.name)


def _random(num: int) -> Iterator[np.ndarray]:
    drawn = np.random.default_rng(1)
    for begin in range(0, num, _BLOCK):
        yield _unit(drawn.standard_normal((min(_BLOCK, num - begin), DIM), dtype=np.float32))


def _real(folder: Path, num: int) -> Iterator[np.ndarray]:
    from pocketclip.data.reinforced import embeddings_of, reinforcement_of
    from pocketclip.data.shard import ShardReader

    drawn = np.random.default_rng(1)
    shards = sorted(folder.glob("*/*.tar"))
    with_samples = []
    for path in shards:
        with ShardReader(path) as shard:
            block = reinforcement_of(shard)
            teachers = embeddings_of(block, np.arange(len(shard)))
            with_samples.append(
                np.concatenate([one.image_NAD for one in teachers], axis=2).astype(np.float32)
            )
    samples_NAD = np.concatenate(with_samples)
    each = -(-num // len(samples_NAD))
    done = 0
    for begin in range(0, len(samples_NAD), 100):
        some = samples_NAD[begin : begin + 100]
        first = drawn.integers(0, some.shape[1], (len(some), each))
        second = (first + drawn.integers(1, some.shape[1], first.shape)) % some.shape[1]
        row = np.arange(len(some))[:, None]
        block = _unit(np.concatenate([some[row, first], some[row, second]], axis=2).reshape(-1, DIM))
        yield block[: num - done]
        done += len(block[: num - done])


def _queries(vectors_ND: np.ndarray, num: int, *, real: bool) -> np.ndarray:
    """Random ones; or mixtures of two vectors with some noise, so that a query is near something, and no copy."""
    drawn = np.random.default_rng(2)
    noise = drawn.standard_normal((num, DIM), dtype=np.float32)
    if not real:
        return _unit(noise)
    one, other = drawn.integers(0, len(vectors_ND), (2, num))
    return _unit(vectors_ND[one] + 0.35 * vectors_ND[other] + 0.01 * noise)


def _save_truth(folder: Path, vectors_ND: np.ndarray, queries_QD: np.ndarray) -> None:
    """The nearest of each query, exactly, for every case."""
    truth = {}
    for case in ("all", "60% allowed", "30% allowed", "1% allowed"):
        among = _among(case, len(vectors_ND))
        some = vectors_ND if among is None else vectors_ND[among - 1]
        nearest = []
        for begin in range(0, len(queries_QD), 50):
            score_QN = queries_QD[begin : begin + 50] @ some.T
            best = np.argpartition(-score_QN, _TRUE, axis=1)[:, :_TRUE]
            order = np.argsort(-np.take_along_axis(score_QN, best, 1), axis=1)
            nearest.append(np.take_along_axis(best, order, 1))
        rows = np.concatenate(nearest)
        truth[_truth_name(case)] = rows + 1 if among is None else among[rows]
    np.savez(folder / "truth.npz", queries=queries_QD, **truth)


def _truth_name(case: str) -> str:
    return "near_" + case.split(",")[0].replace("%", "").replace(" ", "_")


def _among(case: str, num: int) -> np.ndarray | None:
    if "allowed" not in case:
        return None
    share = int(case.partition("%")[0]) / 100
    return np.flatnonzero(np.random.default_rng(3).random(num) < share) + 1


def _reader(folder: Path, num: int, *, threads: int) -> VectorReader:
    def changes(*, since: int, last_id: int) -> Change | None:
        del last_id
        if since == 0:
            return None
        return Change(
            generation=0, ids=np.arange(1, num + 1), slots=np.arange(num), gone=np.empty(0, np.int64)
        )

    return VectorReader(folder, rotation_DD=encoding.random_rotation(DIM), changes=changes, threads=threads)


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32, copy=False)


Command = (
    Annotated[Vectors, tyro.conf.subcommand("vectors")]
    | Annotated[Index, tyro.conf.subcommand("index")]
    | Annotated[Ask, tyro.conf.subcommand("ask")]
)

if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    tyro.cli(Command).run()  # ty: ignore[invalid-argument-type]
