"""Memory of the process that drives a reinforcement, from 10 to 10,000 input shards.

    .venv/bin/python benchmarks/driver_memory.py --out benchmarks/driver_memory.csv --plot docs/images/driver_memory.svg

Each run is a process of its own: so many shards of one tiny picture, a teacher that adds up pixels, one view. The
in-process engine works through them; a thread notes the resident memory every tenth of a second, and how many shards
are done. What the engine itself needs (torch is loaded, pictures are decoded) is there after the first few shards;
what grows from then on is the driver's.
"""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardEntry, write_shard
from pocketclip.recipes.svg import Line, line_chart

PX = 8
WARM = 10  # shards after which the engine has all it needs
STYLE = """
svg { overflow: visible; }
text { font: 12.5px sans-serif; fill: #14212b; } .tick, .note { fill: #52606d; } .title { font-weight: 600; }
.paper { fill: #fff; } .grid { stroke: #e6ebef; } .axis { stroke: #d3dbe1; }
.line { fill: none; stroke-width: 2; stroke: #086973; } .dot { fill: #086973; }
"""


class SumTeacher:
    """Embeds by sums of pixels and of characters."""

    image_px = PX

    def __init__(self) -> None:
        self.record = TeacherRecord(name="sum", embed_dim=4, logit_scale=30.0, digest="sum")

    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """Float32 [B, 4]."""
        return _unit(pixels_BHWC.astype(np.float32).sum(axis=(1, 2)))

    def encode_text(self, texts: list[str]) -> np.ndarray:
        """Float32 [B, 4]."""
        return _unit(np.array([[len(text), sum(map(ord, text)), 1] for text in texts], np.float32))

    def describe(self) -> dict[str, str]:
        """Nothing more."""
        return {}


def make(spec: object, **_: object) -> SumTeacher:
    """For `python:driver_memory:make`."""
    return SumTeacher()


def _unit(rows_BD: np.ndarray) -> np.ndarray:
    rows_BD = np.concatenate([rows_BD, np.ones((len(rows_BD), 1), np.float32)], axis=1)
    return rows_BD / np.linalg.norm(rows_BD, axis=1, keepdims=True)


def main(
    sizes: tuple[int, ...] = (10, 100, 1000, 10_000),
    out: Path | None = None,
    plot: Path | None = None,
    only: int | None = None,
) -> None:
    """Measures and prints Markdown.

    Args:
        sizes: numbers of input shards.
        out: CSV of all samples: shards of the run, shards done, seconds, resident megabytes.
        plot: SVG.
        only: internal; the one run of this process.
    """
    if only is not None:
        print(json.dumps(measure(only)))
        return
    runs = {}
    for size in sizes:
        done = subprocess.run(
            [sys.executable, __file__, "--only", str(size)], capture_output=True, text=True, check=True
        )
        runs[size] = json.loads(done.stdout)
        print(f"{size} shards: {runs[size][-1][1]:.0f} s", file=sys.stderr, flush=True)
    print("| shards | after 10 of them, MB | after all, MB | largest, MB | seconds |\n|---|---|---|---|---|")
    for size, samples in runs.items():
        warm, end = level(samples, WARM), level(samples, size)
        print(
            f"| {size:,} | {warm:.1f} | {end:.1f} | {max(mb for _, _, mb in samples):.1f} | {samples[-1][1]:.0f} |"
        )
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["shards", "done", "seconds", "resident_mb"])
            writer.writerows([size, *sample] for size, samples in runs.items() for sample in samples)
    if plot is not None:
        plot.write_text(draw(runs[max(runs)]), encoding="utf-8")


def measure(num_shards: int) -> list[tuple[int, float, float]]:
    """Reinforces so many shards; (shards done, seconds, resident megabytes), a sample every tenth of a second."""
    from pocketclip.engine import driver
    from pocketclip.reinforce import ReinforceConfig, reinforce
    from pocketclip.teachers import TeacherSpec

    with tempfile.TemporaryDirectory() as folder:
        data = write_folder(Path(folder) / "data", num_shards)
        config = ReinforceConfig(
            teachers=(TeacherSpec(name="sum", source="python:driver_memory:make"),),
            num_views=1,
            num_threads=1,
        )
        samples: list[tuple[int, float, float]] = []
        count, over, started = [0], threading.Event(), time.perf_counter()
        note = driver.Progress.outcome

        def counted(self: driver.Progress, outcome: driver.Outcome, is_final: bool) -> None:
            count[0] += 1
            note(self, outcome, is_final)

        driver.Progress.outcome = counted

        def watch() -> None:
            while not over.wait(0.1):
                samples.append((count[0], round(time.perf_counter() - started, 2), round(resident_mb(), 2)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            reinforce(data, Path(folder) / "out", config=config)
        finally:
            over.set()
            watcher.join()
        return samples


def write_folder(folder: Path, num_shards: int) -> Path:
    """Shards of one sample each: one file under many names."""
    picture = io.BytesIO()
    Image.new("RGB", (PX, PX), "teal").save(picture, "PNG")
    sample = Sample(key="one", image=picture.getvalue(), extension="png", captions=("a teal square",))
    first = folder / "train" / "000000.tar"
    entry = write_shard(first, [sample])
    entries = [entry]
    for number in range(1, num_shards):
        path = first.with_name(f"{number:06d}.tar")
        os.link(first, path)
        entries.append(
            ShardEntry(
                file=f"train/{path.name}", num_samples=1, num_bytes=entry.num_bytes, sha256=sha256_file(first)
            )
        )
    write_index(folder, ShardIndex(source="one", splits={"train": tuple(entries)}))
    return folder


def resident_mb() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def level(samples: list[tuple[int, float, float]], done: int) -> float:
    """Median of the samples about when so many shards were done."""
    near = [mb for at, _, mb in samples if abs(at - done) <= max(5, done // 20)]
    return statistics.median(near) if near else samples[-1][2]


def draw(samples: list[tuple[int, float, float]]) -> str:
    """Resident memory over shards done, from zero."""
    points = [(float(done), mb) for done, _, mb in samples if done >= 1]
    chart = line_chart(
        [Line(label="resident memory of the driver", tone="memory", points=points)],
        alt="Resident memory of the driver over the number of shards that are done",
        x_label="shards done",
        y_label="MB",
        y_from_zero=True,
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 430 280"><style>{STYLE}</style>'
    return f'{head}<rect class="paper" width="430" height="280"/>{chart}</svg>\n'


if __name__ == "__main__":
    tyro.cli(main)
