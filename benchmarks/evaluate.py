"""`pocketclip evaluate` beside clip_benchmark: the same model and pictures, the same numbers, how fast?

    .venv/bin/python benchmarks/evaluate.py PHOTOS                       # a folder of n01440764_tench.JPEG and so on
    .venv/bin/python benchmarks/evaluate.py PHOTOS --variant mobileclip2_b --images 64 --rounds 2

The photographs are written once as shards of the public mirror's layout, in a temporary folder, labelled by the WordNet
ids in their names. Both evaluators read them from there: what is timed is everything from the shards to the metrics,
reading and decoding included, building the model excluded. Rounds are taken in turn. clip_benchmark gets its own data
loader with processes of its own (`--workers`, the better of several), first with the model as trained, then with our
folded one, so that one sees what folding gives and what the data path gives. Weights are random: time does not depend
on them.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tyro.conf import Positional

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/evaluate"))
from mirrors import accuracy, write_mirror  # ty: ignore[unresolved-import]

from pocketclip.checkpoint.store import Loaded, create
from pocketclip.evaluate import SuiteConfig, evaluate_tasks
from pocketclip.evaluate.prompts import class_names, wordnet_ids
from pocketclip.evaluate.sets import locate
from pocketclip.evaluate.tasks import TASKS

Metrics = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    photos: Positional[Path]
    """Folder of photographs whose names begin with a WordNet id."""
    variant: str = "mobileclip2_s0"
    """Model, with random weights."""
    images: int = 128
    """Photographs."""
    classes: int = 20
    """Of ImageNet's, each a prompt: texts are timed too."""
    batch_size: int = 32
    """Pictures a run of the network."""
    workers: tuple[int, ...] = (0, 2)
    """Processes of clip_benchmark's data loader."""
    rounds: int = 3
    """Of each evaluator, in turn."""


def main(arguments: Arguments) -> None:
    """Measures in turn, prints a Markdown table."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    loaded = create(arguments.variant)
    with tempfile.TemporaryDirectory() as folder:
        shards = write_photos(Path(folder) / "photos", arguments)
        runs: dict[str, Callable[[], Metrics]] = {}
        for workers in arguments.workers:
            for name, model in (("as trained", loaded), ("folded by us", loaded.folded())):
                runs[f"clip_benchmark, {workers} loader processes, model {name}"] = theirs(
                    model, shards, workers=workers, batch_size=arguments.batch_size
                )
        runs["pocketclip evaluate"] = ours(loaded, shards, batch_size=arguments.batch_size)
        seconds, metrics = timed(runs, rounds=arguments.rounds)
    report(seconds, metrics, arguments=arguments)


def write_photos(folder: Path, arguments: Arguments) -> Path:
    """The photographs of the first classes, over and over until there are enough."""
    ids = list(wordnet_ids(TASKS["imagenet1k"]))[: arguments.classes]
    names = (class_names(TASKS["imagenet1k"]) or ())[: arguments.classes]
    paths = [path for path in sorted(arguments.photos.iterdir()) if path.suffix.lower() in (".jpeg", ".jpg")]
    chosen = paths[:: max(1, len(paths) // arguments.images)][: arguments.images]
    known = {wnid: label for label, wnid in enumerate(ids)}
    samples = [
        {
            "jpg": path.read_bytes(),
            "cls": str(known.get(path.name.split("_")[0], number % len(ids))).encode(),
        }
        for number, path in enumerate(chosen)
    ]
    return write_mirror(folder, samples, names=names, templates=("a photo of a {c}.",))


def theirs(loaded: Loaded, folder: Path, *, workers: int, batch_size: int) -> Callable[[], Metrics]:
    """clip_benchmark's zero-shot classification."""
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics import zeroshot_classification

    zeroshot_classification.accuracy = accuracy

    def run() -> Metrics:
        pictures = build_dataset(
            "wds/photos", root=str(folder), transform=loaded.preprocess, split="test", download=False
        )
        loader = torch.utils.data.DataLoader(
            pictures.batched(batch_size), batch_size=None, shuffle=False, num_workers=workers
        )
        loader.dataset.classes = pictures.classes
        return zeroshot_classification.evaluate(
            loaded.model,
            loader,
            loaded.tokenize,
            pictures.classes,
            pictures.templates,
            device="cpu",
            amp=False,
        )

    return run


def ours(loaded: Loaded, folder: Path, *, batch_size: int) -> Callable[[], Metrics]:
    """`pocketclip evaluate --tasks`, less building the model: folding is timed."""
    wanted, _ = locate([f"photos={folder}"], roots=())

    def run() -> Metrics:
        config = SuiteConfig(batch_size=batch_size, resamples=1000)
        return evaluate_tasks({"m": loaded}, wanted, config=config).rows["m"][0].metrics

    return run


def timed(
    runs: Mapping[str, Callable[[], Metrics]], *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Metrics]]:
    """Seconds of every round, and metrics of the last."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    metrics: dict[str, Metrics] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):
                metrics[name] = run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, metrics


def report(
    seconds: Mapping[str, list[float]], metrics: Mapping[str, Metrics], *, arguments: Arguments
) -> None:
    """A Markdown table."""
    mine = seconds["pocketclip evaluate"]
    print(
        f"{arguments.variant}, {arguments.images} photographs and {arguments.classes} prompts, batches of "
        f"{arguments.batch_size}, {torch.get_num_threads()} threads of torch, {os.cpu_count()} cores, "
        f"{arguments.rounds} rounds\n"
    )
    print("| evaluator | median s | slowest and fastest | pictures/s | beside ours | acc1 | acc5 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, values in seconds.items():
        median = statistics.median(values)
        found = metrics[name]
        print(
            f"| {name} | {median:.2f} | {max(values):.2f} and {min(values):.2f} | "
            f"{arguments.images / median:.1f} | {statistics.median(mine) / median:.2f} x | "
            f"{found['acc1']:.6f} | {found['acc5']:.6f} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
