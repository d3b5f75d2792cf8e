"""From the last keystroke to the first pictures, in a real browser, on an index of many pictures.

    .venv/bin/python benchmarks/serve.py --out /tmp/served

Makes an index of made-up pictures (vectors around 2,000 centres, drawn thumbnails) and a model with random weights:
neither changes how long anything takes. Starts `pocketclip serve`, opens the page in Chromium and types queries that
were never asked before, a character at a time. For the last character it measures, in the page, the time from the key
event to the results' layout, and to the moment at which the pictures of the first row are loaded and drawn.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tyro
from PIL import Image, ImageDraw

from pocketclip.runtime.manifest import read_manifest
from pocketclip.search.store import IndexMeta
from pocketclip.search.writer import Content, Seen, open_writer

BATCH = 2000
CENTRES = 2000
DRAWN = 400  # different thumbnails
WORDS = (
    *("red", "small", "old", "wooden", "green", "bright", "tall", "wet", "round", "broken"),
    *("bicycle", "house", "boat", "dog", "mountain", "window", "bridge", "garden", "market", "train"),
)
MEASURE = """
(expected) => new Promise((resolve, reject) => {
  let pressed = 0, laid = 0;
  setTimeout(() => reject(new Error(`no results for ${expected}`)), 20000);
  document.getElementById("words").addEventListener("keydown", (event) => {
    pressed = event.timeStamp;
  }, { capture: true });
  const ended = () => resolve({ laid_ms: laid - pressed, drawn_ms: performance.now() - pressed });
  const look = () => {
    const tiles = [...document.querySelectorAll(".tile")];
    const top = Math.min(...tiles.map((tile) => tile.getBoundingClientRect().top));
    const isFirst = (tile) => Math.abs(tile.getBoundingClientRect().top - top) < 2;
    const row = tiles.filter(isFirst).map((tile) => tile.querySelector("img"));
    if (row.length && row.every((picture) => picture.complete && picture.naturalWidth)) {
      Promise.all(row.map((picture) => picture.decode())).then(
        () => requestAnimationFrame(() => setTimeout(ended)), () => requestAnimationFrame(look));
    } else requestAnimationFrame(look);
  };
  document.addEventListener("pocketclip-results", (event) => {
    if (event.detail.q !== expected || laid) return;
    laid = performance.now();
    look();
  });
})
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    out: Path
    """Folder for the model and the index; used again if they are there."""
    pictures: int = 100_000
    """In the index."""
    variant: str = "MobileCLIP2-S0"
    """Whose text tower runs, with random weights."""
    queries: int = 30
    """Typed one after the other."""
    key_ms: int = 60
    """Between keystrokes."""
    chromium: str = "/usr/bin/chromium"
    """The browser."""


def main(arguments: Arguments) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = arguments.out / "model"
    if not model.is_dir():
        from pocketclip.export import export

        export(arguments.variant, model)
    index = arguments.out / f"{arguments.pictures}.index"
    if not index.is_dir():
        make(index, model, num=arguments.pictures)
    with served(index) as address:
        rows = typed(address, arguments)
    for name, text in (("laid_ms", "results laid out"), ("drawn_ms", "first row of pictures drawn")):
        values = np.array([row[name] for row in rows])
        p50, p95 = np.percentile(values, (50, 95))
        print(
            f"{text}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, worst {values.max():.0f} ms ({len(values)} queries)"
        )


def make(index: Path, model: Path, *, num: int) -> None:
    """An index of made-up pictures."""
    manifest = read_manifest(model)
    meta = IndexMeta(
        model=model.absolute(),
        model_nearby=Path("..") / model.name,
        model_digest=manifest.digest,
        embed_dim=manifest.embed_dim,
        folders=(index.parent / "pictures",),
    )
    random = np.random.default_rng(0)
    drawn = [draw(random) for _ in range(DRAWN)]
    centres = random.standard_normal((CENTRES, manifest.embed_dim)).astype(np.float32)
    started = time.perf_counter()
    with open_writer(index, meta) as writer:
        writer.folder(meta.folders[0])
        for begin in range(0, num, BATCH):
            count = min(BATCH, num - begin)
            vectors_ND = near(centres, count, random)
            contents, files = [], []
            for number in range(begin, begin + count):
                sha256 = hashlib.sha256(str(number).encode()).digest()
                jpeg, width, height = drawn[number % DRAWN]
                path = Path(f"{2000 + number % 25}/{number:07d}.jpg")
                seen = Seen(folder=meta.folders[0], path=path, key=None, num_bytes=10**6, modified_ns=10**18)
                content = Content(
                    frame=0,
                    at_s=None,
                    kind="picture",
                    num_bytes=10**6,
                    width=width * 10,
                    height=height * 10,
                    taken=f"{2000 + number % 25}-06-01T12:00:00",
                    latitude=None,
                    longitude=None,
                    caption=None,
                    thumbnail=jpeg,
                )
                files.append((seen, sha256))
                contents.append((sha256, seen.modified, content))
            writer.add(files, contents, vectors_ND)
    print(f"{num:,} made-up pictures written in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def near(
    centres: npt.NDArray[np.float32], count: int, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Unit vectors around centres, float32 [count, D]."""
    rows = centres[random.integers(0, len(centres), count)]
    rows = rows + 0.7 * random.standard_normal(rows.shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw(random: np.random.Generator) -> tuple[bytes, int, int]:
    """A small JPEG with its width and height."""
    width, height = [(240, 160), (160, 240), (240, 180), (200, 200)][int(random.integers(4))]
    image = Image.new("RGB", (width, height), tuple(int(v) for v in random.integers(0, 255, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, r = (int(v) for v in random.integers(0, 240, 3))
        pen.ellipse(
            (x - r // 3, y - r // 3, x + r // 3, y + r // 3),
            tuple(int(v) for v in random.integers(0, 255, 3)),
        )
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue(), width, height


@contextmanager
def served(index: Path, *extra: str) -> Generator[str, None, None]:
    """`pocketclip serve` in a process of its own; gives its address."""
    command = [sys.executable, "-m", "pocketclip", "serve", str(index), "--port", "0", *extra]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://\S+", line):
                yield found.group()
                break
        else:
            raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        process.wait(20)


def typed(address: str, arguments: Arguments) -> Sequence[dict[str, Any]]:
    """Milliseconds for each query."""
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}?min=0")  # random weights match nothing
        page.wait_for_selector(".tile img.there")
        for number in range(arguments.queries + 2):
            text = f"a {WORDS[number % 10]} {WORDS[10 + number // 3 % 10]} {number}"
            page.fill("#words", "")
            page.wait_for_timeout(400)
            page.locator("#words").press_sequentially(text[:-1], delay=arguments.key_ms)
            page.evaluate(f"() => {{ window.measured = ({MEASURE})({json.dumps(text)}); }}")
            page.wait_for_timeout(arguments.key_ms)
            page.locator("#words").press(text[-1])
            rows.append(page.evaluate("() => window.measured"))
        browser.close()
    return rows[2:]  # the first ones load the model


if __name__ == "__main__":
    main(tyro.cli(Arguments))
