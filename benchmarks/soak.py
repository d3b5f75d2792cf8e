"""Mixed queries and indexing against a served index for minutes; does memory stay flat?

    .venv/bin/python benchmarks/soak.py --pictures photos/ --model exported/ --out /tmp/soak --minutes 30

Copies the pictures, indexes them, starts `pocketclip serve --watch`, and then, at the same time: asks by words, by
pictures and by items, pages through the grid, fetches thumbnails and originals, follows the events; and changes the
folder, ten files a second or so: new ones, copies, renames, deletions. Samples the resident memory of the server and of
its indexer each second, writes them to `memory.csv`, draws them, and prints the slope of a straight line through the
second half, in MB an hour, with what was asked and answered.
"""

from __future__ import annotations

import csv
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import tyro
from PIL import Image
from serve import served

from pocketclip.search.build import index

WORDS = (
    "red",
    "old",
    "small",
    "green",
    "dog",
    "flag",
    "house",
    "face",
    "water",
    "tree",
    "car",
    "woman",
    "night",
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to do, and for how long."""

    pictures: Path
    """Folder of pictures; they are copied."""
    model: Path
    """Exported model."""
    out: Path
    """Folder for the copies, the index, memory.csv and memory.png."""
    minutes: float = 30
    """How long."""
    askers: int = 2
    """Clients that ask without a pause."""
    most: int = 2000
    """Pictures that are copied."""
    seed: int = 0
    """Of all that is drawn."""


@dataclass
class Run:
    """What has happened so far."""

    address: str
    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    events: int = 0
    changes: int = 0


def main(arguments: Arguments) -> None:
    shutil.rmtree(arguments.out, ignore_errors=True)
    folder = arguments.out / "pictures"
    folder.mkdir(parents=True)
    found = sorted(
        path for path in arguments.pictures.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    for number, path in enumerate(found[: arguments.most]):
        shutil.copy(path, folder / f"{number:05d}{path.suffix}")
    summary = index([folder], arguments.out / "soak.index", model=arguments.model)
    print(f"{summary.num_items} pictures indexed")
    with served(summary.path, "--watch", "--rate", "100000") as address:
        run = Run(address=address, folder=folder)
        works: list[Callable[[], None]] = [lambda: follow(run), lambda: change(run, arguments.seed)]
        works += [lambda seed=seed: ask(run, seed) for seed in range(arguments.askers)]
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        rows = sample(run, minutes=arguments.minutes)
        run.stop.set()
        for thread in threads:
            thread.join(30)
    report(run, rows, arguments.out)


def ask(run: Run, seed: int) -> None:
    """Asks all kinds of questions."""
    drawn = random.Random(seed)
    with httpx.Client(base_url=run.address, timeout=60) as client:
        ids = [item["id"] for item in client.get("/api/items", params={"limit": 500}).json()["items"]]
        while not run.stop.is_set():
            kind = drawn.choice(
                ("words", "words", "item", "picture", "page", "thumbnails", "original", "status")
            )
            started = time.perf_counter()
            try:
                status = question(client, kind, ids, drawn)
            except httpx.HTTPError as error:
                if not run.stop.is_set():
                    run.failures.append(f"{kind}: {error!r}")
                continue
            run.latency_ms.append(1e3 * (time.perf_counter() - started))
            run.answers[f"{kind} {status}"] += 1
            if status >= 500:
                run.failures.append(f"{kind}: {status}")


def question(client: httpx.Client, kind: str, ids: Sequence[int], drawn: random.Random) -> int:
    """Asks once; gives the status."""
    number = drawn.choice(ids)
    if kind == "words":
        text = " ".join(drawn.sample(WORDS, drawn.randint(1, 4)))
        return client.get(
            "/api/search", params={"q": f"{text} {drawn.random():.3f}", "min_score": "auto"}
        ).status_code
    if kind == "item":
        return client.get("/api/search", params={"like": number, "k": 100, "unique": "true"}).status_code
    if kind == "picture":
        thumbnail = client.get(f"/api/items/{number}/thumbnail").content
        files = {"picture": ("x.jpg", thumbnail, "image/jpeg")}
        return client.post("/api/search", params={"q": drawn.choice(WORDS)}, files=files).status_code
    if kind == "page":
        return client.get("/api/items", params={"after": number, "limit": 200}).status_code
    if kind == "thumbnails":
        return max(client.get(f"/api/items/{drawn.choice(ids)}/thumbnail").status_code for _ in range(20))
    if kind == "original":
        return client.get(f"/api/items/{number}/file").status_code
    return max(client.get(path).status_code for path in ("/api/status", "/api/filters", "/metrics"))


def follow(run: Run) -> None:
    """Follows the events."""
    with httpx.Client(base_url=run.address, timeout=httpx.Timeout(10, read=None)) as client:
        try:
            with client.stream("GET", "/api/events") as stream:
                for line in stream.iter_lines():
                    run.events += line.startswith("data:")
        except httpx.HTTPError:
            return  # the server has ended


def change(run: Run, seed: int) -> None:
    """Changes the folder, about as many files come as go."""
    drawn = random.Random(seed)
    own: list[Path] = []
    number = 0
    while not run.stop.wait(0.1):
        kind = drawn.choice(("new", "copy", "rename", "delete")) if len(own) < 300 else "delete"
        number += 1
        path = run.folder / f"own-{number:06d}.jpg"
        if kind == "new" or not own:
            noise = np.random.default_rng(number).integers(0, 255, (60, 90, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((900, 600)).save(path, quality=70)
            own.append(path)
        elif kind == "copy":
            shutil.copy(drawn.choice(own), path)
            own.append(path)
        elif kind == "rename":
            own.append(own.pop(drawn.randrange(len(own))).rename(path))
        else:
            own.pop(drawn.randrange(len(own))).unlink()
        run.changes += 1


def sample(run: Run, *, minutes: float) -> list[tuple[float, float, float]]:
    """Seconds, MB of the server, MB of its indexer; one row a second."""
    port = int(run.address.rstrip("/").rpartition(":")[2])
    server = next(one for one in psutil.Process().children(recursive=True) if listens(one, port))
    started = time.monotonic()
    rows = []
    while (seconds := time.monotonic() - started) < 60 * minutes:
        children = [child for child in server.children() if child.is_running()]
        indexer = sum(child.memory_info().rss for child in children)
        rows.append((seconds, server.memory_info().rss / 1e6, indexer / 1e6))
        time.sleep(1)
    return rows


def listens(process: psutil.Process, port: int) -> bool:
    """Whether a process is the one that serves."""
    return any(
        one.laddr and one.laddr.port == port and one.status == "LISTEN" for one in process.net_connections()
    )


def report(run: Run, rows: list[tuple[float, float, float]], out: Path) -> None:
    """Prints, writes and draws."""
    with (out / "memory.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seconds", "server_mb", "indexer_mb"))
        writer.writerows([(f"{s:.1f}", f"{server:.1f}", f"{indexer:.1f}") for s, server, indexer in rows])
    table = np.array(rows)
    half = table[len(table) // 2 :]
    slopes = [np.polyfit(half[:, 0] / 3600, half[:, column], 1)[0] for column in (1, 2)]
    latency = np.percentile(run.latency_ms, (50, 99))
    print(
        f"{sum(run.answers.values()):,} answers, p50 {latency[0]:.0f} ms, p99 {latency[1]:.0f} ms: {dict(run.answers)}"
    )
    print(
        f"{run.changes:,} changes of files, {run.events:,} events; {len(run.failures)} failures {run.failures[:3]}"
    )
    for name, column, slope in (("server", 1, slopes[0]), ("indexer", 2, slopes[1])):
        print(
            f"{name}: {table[0, column]:.0f} MB at first, {half[:, column].mean():.0f} in the second half, "
            f"at most {table[:, column].max():.0f}; slope {slope:+.1f} MB an hour"
        )
    draw(table, slopes, out / "memory.png")


def draw(table: np.ndarray, slopes: Sequence[float], path: Path) -> None:
    """Memory over time."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for name, column, colour, slope in (
        ("server", 1, "#27685a", slopes[0]),
        ("indexer", 2, "#b4652a", slopes[1]),
    ):
        label = f"{name} ({slope:+.1f} MB an hour in the second half)"
        axes.plot(table[:, 0] / 60, table[:, column], color=colour, label=label)
    axes.set(xlabel="minutes", ylabel="resident memory, MB", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=140)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
