"""What does the engine cost beside the teacher alone, and what does it gain over the published worker's design?

    chrt -f 20 .venv/bin/python benchmarks/reinforce.py
    chrt -f 20 .venv/bin/python benchmarks/reinforce.py --pictures photos/ --precisions bf16 --workers 1 2
    chrt -f 20 .venv/bin/python benchmarks/reinforce.py --workers --rounds 5

One shard, one teacher of open_clip with random weights, the same samples, views and captions for all. Contenders take
turns, another begins each round; rates and ratios are medians over rounds. They are

- the teacher alone: the very batches that the engine makes, drawn before and kept in memory, nothing stored. No engine
  can be faster, and on a processor that has to draw the views too, none can be as fast;
- a plain loop: pictures are read, drawn and embedded in the same batches, one after the other, nothing stored;
- the engine in this process, and on actors of a local Ray cluster, down to the published shard and its marker. The
  cluster's start is printed and not counted;
- the published worker's design, written anew after its description: float32, pictures decoded by Pillow in the model's
  process as a batch needs them, one batch for each number of a view and of a caption, open_clip's own tokenizer, and
  gzipped bfloat16 tensors in a tar at the end.

Prints Markdown. Needs the extras `teachers` and, for --workers, `ray`.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import logging
import os
import secrets
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
import tyro
from PIL import Image
from torch import Tensor

from pocketclip.data.augment import AugmentSpec, apply, draw, pack, seeded
from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.objects import Place, open_store
from pocketclip.data.sample import JsonValue, Sample
from pocketclip.data.scratch import scratch_folder
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.engine import EngineConfig, Plan, plan_units
from pocketclip.engine.driver import Crew, Driver
from pocketclip.engine.job import Outcome
from pocketclip.engine.local import LocalCrew
from pocketclip.engine.marker import Marker
from pocketclip.engine.worker import Order
from pocketclip.reinforce import ReinforceConfig, ShardRequest
from pocketclip.reinforce.views import GroupEnd, Pictures, Views, draw_views, messages
from pocketclip.reinforce.worker import ReinforceTask
from pocketclip.teachers import Teacher, TeacherSpec, build_teacher

Precision = Literal["fp32", "bf16"]

ALONE, PLAIN, ENGINE, PUBLISHED = "teacher alone", "plain loop", "engine, in process", "published design"
MEAN, STD = (
    torch.tensor(row).view(3, 1, 1)
    for row in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
)
WORDS = "a photo of two small red birds on the old wooden bench near some green trees in summer light"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    pictures: Path | None = None
    """Folder of JPEGs; without, pictures of 500 x 375 pixels are made up."""
    samples: int = 192
    """Of the shard."""
    views: int = 2
    """Of each picture."""
    texts: int = 2
    """Of each picture."""
    batch_size: int = 64
    """Rows the teacher sees at once."""
    model: str = "ViT-B-32"
    """Of open_clip."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """What the teacher computes in; the published design always in float32."""
    workers: tuple[int, ...] = (1,)
    """Numbers of Ray actors, which share the threads; none to leave Ray out."""
    threads: int = 2
    """Of torch, in all."""
    loaders: tuple[int, ...] = (2,)
    """Threads of a worker that decode and augment; a contender in this process for each, on Ray the first alone."""
    published: bool = True
    """Whether the published design takes part."""
    rounds: int = 3
    """Turns of each contender."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to embed the shard.

    Attributes:
        name: of the way.
        precision: of its teacher.
        run: does it once.
    """

    name: str
    precision: Precision
    run: Callable[[], object]


def main(arguments: Arguments) -> None:
    """Measures in turn, prints."""
    logging.disable(logging.WARNING)
    os.environ |= {"TQDM_DISABLE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name, ExitStack() as crews:
        folder = Path(name)
        if arguments.workers:
            crews.enter_context(
                cluster(len(arguments.precisions) * sum(arguments.workers) * arguments.threads)
            )
        samples = pack_samples(folder / "in", arguments)
        contenders = []
        for precision in arguments.precisions:
            contenders += bare_contenders(samples, arguments, precision=precision)
            contenders += engine_contenders(folder, arguments, precision=precision, crews=crews)
        if arguments.published:
            contenders.append(published_contender(samples, folder, arguments))
        seconds = race(contenders, rounds=arguments.rounds)
        show(contenders, seconds, arguments)
        show_cost(folder)


def race(contenders: Sequence[Contender], *, rounds: int) -> list[list[float]]:
    """Seconds of every contender in every round, after one that does not count."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for number in range(-1, rounds):
        order = [(place + number) % len(contenders) for place in range(len(contenders))]
        for place in order:
            started = time.perf_counter()
            contenders[place].run()
            if number >= 0:
                seconds[place].append(time.perf_counter() - started)
    return seconds


def show(contenders: Sequence[Contender], seconds: Sequence[list[float]], arguments: Arguments) -> None:
    """Prints a table for all contenders."""
    alone, plain = (
        {one.precision: took for one, took in zip(contenders, seconds, strict=True) if one.name == name}
        for name in (ALONE, PLAIN)
    )
    published = seconds[-1] if arguments.published else None
    print(
        f"\n{arguments.samples} samples, {arguments.views} views, {arguments.texts} texts, {arguments.model}, batches "
        f"of {arguments.batch_size}, {arguments.threads} threads, {arguments.rounds} rounds\n"
    )
    print(
        "| | precision | samples/s | slowest and fastest | time beside the teacher alone | beside the plain loop "
        "| rate beside published |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    for one, took in zip(contenders, seconds, strict=True):
        rates = sorted(arguments.samples / value for value in took)
        cells = [more(took, alone.get(one.precision)), more(took, plain.get(one.precision))]
        cells.append(f"{ratio(published, took):.2f} x" if published else "-")
        print(
            f"| {one.name} | {one.precision} | {statistics.median(rates):.2f} | {rates[0]:.2f} to {rates[-1]:.2f} | "
            f"{' | '.join(cells)} |"
        )


def more(took: Sequence[float], other: Sequence[float] | None) -> str:
    """By how much longer than another, in percent."""
    return f"{100 * (ratio(took, other) - 1):+.1f}%" if other else "-"


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """Median over rounds."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def show_cost(folder: Path) -> None:
    """Prints where the engine's last runs spent their time, from the markers."""
    print()
    for path in sorted(folder.glob("out-*/.done/train/*.json")):
        cost = Marker.from_json(json.loads(path.read_bytes())).facts.seconds
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in cost.items())
        print(f"{path.parts[-4].removeprefix('out-')}: {parts} s")


# The data.


def pack_samples(folder: Path, arguments: Arguments) -> list[Sample]:
    """One packed shard; its samples."""
    paths = sorted(arguments.pictures.iterdir()) if arguments.pictures else []
    images = itertools.cycle(path.read_bytes() for path in paths) if paths else made_up()
    rng, words = np.random.default_rng(0), WORDS.split()
    samples = [
        Sample(
            key=f"sample{number:05d}",
            image=image,
            extension="jpg",
            captions=tuple(" ".join(rng.choice(words, 12)) for _ in range(arguments.texts)),
        )
        for number, image in enumerate(itertools.islice(images, arguments.samples))
    ]
    entry = write_shard(folder / "train" / "000000.tar", samples)
    write_index(folder, ShardIndex(source="made up", splits={"train": (entry,)}))
    with ShardReader(folder / "train" / "000000.tar") as reader:
        return [reader[row] for row in range(len(reader))]


def made_up() -> Iterator[bytes]:
    """JPEGs of 500 x 375 pixels, some 90 kB each: smooth blots and noise."""
    rng = np.random.default_rng(0)
    while True:
        blots = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375))
        noise = rng.normal(0, 12, (375, 500, 1))
        file = io.BytesIO()
        image = Image.fromarray(np.clip(np.asarray(blots) + noise, 0, 255).astype(np.uint8))
        image.save(file, "JPEG", quality=92)
        yield file.getvalue()


def request_of(arguments: Arguments) -> ShardRequest:
    """What the engine asks of a shard."""
    return ShardRequest(
        num_views=arguments.views,
        augment=AugmentSpec(),
        codec="bf16",
        seed=0,
        batch_size=arguments.batch_size,
        config_digest="benchmark",
    )


# Without the engine.


def bare_contenders(
    samples: Sequence[Sample], arguments: Arguments, *, precision: Precision
) -> list[Contender]:
    """The teacher alone, and a plain loop."""
    teacher = build_teacher(teacher_spec(arguments), precision=precision)
    request = request_of(arguments)

    def drawn() -> Iterator[Pictures | Views | GroupEnd]:
        sizes = [teacher.image_px]
        views = (draw_views(sample, sizes=sizes, request=request, captioned=False) for sample in samples)
        return messages(views, sizes=sizes, request=request)

    kept = list(drawn())
    return [
        Contender(
            name=ALONE, precision=precision, run=lambda: embed(teacher, kept, batch_size=request.batch_size)
        ),
        Contender(
            name=PLAIN,
            precision=precision,
            run=lambda: embed(teacher, drawn(), batch_size=request.batch_size),
        ),
    ]


def embed(
    teacher: Teacher, batches: Sequence[object] | Iterator[object], *, batch_size: int
) -> list[np.ndarray]:
    """Embeddings of all batches, image and text, in the engine's order."""
    rows = []
    for batch in batches:
        if isinstance(batch, Views):
            rows.append(teacher.encode_image(batch.pixels[teacher.image_px]))
        elif isinstance(batch, GroupEnd):
            texts = [text for one in batch.drawn for text in one.sample.texts()]
            rows += [
                teacher.encode_text(texts[at : at + batch_size]) for at in range(0, len(texts), batch_size)
            ]
    return rows


def teacher_spec(arguments: Arguments) -> TeacherSpec:
    """The one teacher."""
    return TeacherSpec(name="t", source=f"open_clip:{arguments.model}/random")


# The engine.


def engine_contenders(
    folder: Path, arguments: Arguments, *, precision: Precision, crews: ExitStack
) -> list[Contender]:
    """The engine in this process, and on Ray with each number of workers; their crews are kept open."""
    contenders = []
    ways = [(0, loaders) for loaders in arguments.loaders]
    ways += [(workers, arguments.loaders[0]) for workers in arguments.workers]
    for workers, loaders in ways:
        name = f"{ENGINE}, {loaders} loaders"
        if workers:
            name = f"engine, Ray, {workers} worker{'s' * (workers > 1)}, {loaders} loaders"
        config = ReinforceConfig(
            teachers=(teacher_spec(arguments),),
            num_views=arguments.views,
            batch_size=arguments.batch_size,
            precision=precision,
            num_threads=max(1, arguments.threads // max(1, workers)),
        )
        # As much for each worker, in a shard of its own.
        plan = shards_for(folder, num=max(1, workers))
        out = Place(url=str(folder / f"out-{name.replace(', ', '-').replace(' ', '-')}-{precision}"))
        kind: Literal["ray", "in-process"] = "ray" if workers else "in-process"
        task = ReinforceTask(config=config, num_loaders=loaders)
        order = Order(task=task, source=plan.place, out=out, engine=kind)
        crew = crews.enter_context(closing(opened(order, workers=workers, name=f"{name}, {precision}")))
        contenders.append(
            Contender(name=name, precision=precision, run=lambda c=crew, p=plan, o=out: through(c, p, o))
        )
    return contenders


@contextmanager
def cluster(num_cpus: int) -> Generator[None, None, None]:
    """A local Ray cluster that believes in so many cores, so that idle crews keep theirs; prints its start."""
    import ray

    started = time.perf_counter()
    with scratch_folder("ray") as folder:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _temp_dir=str(folder),
        )
        print(f"start-up of Ray's cluster: {time.perf_counter() - started:.1f} s", flush=True)
        yield
        ray.shutdown()


class Kept:
    """A crew that stays together when no work is left; see `Crew`."""

    def __init__(self, crew: Crew, *, num_workers: int) -> None:
        self._crew = crew
        self._num_workers = num_workers
        self.has_room, self.submit = crew.has_room, crew.submit
        self.describe, self.close = crew.describe, crew.close

    def open(self) -> Mapping[str, JsonValue]:
        """Returns when all workers are ready."""
        described = self._crew.open()
        while self.describe() not in (
            "",
            "1 worker" if self._num_workers == 1 else f"{self._num_workers} workers",
        ):
            self.wait(seconds=0.5, is_work_left=True)
        return described

    def wait(self, *, seconds: float, is_work_left: bool) -> list[Outcome]:
        """As if there were always more to do."""
        return self._crew.wait(seconds=seconds, is_work_left=True)


def opened(order: Order, *, workers: int, name: str) -> Crew:
    """A crew that is ready; prints how long that took."""
    started = time.perf_counter()
    crew: Crew = LocalCrew(order)
    if workers:
        from pocketclip.engine.cluster import RayCrew

        engine = EngineConfig(kind="ray", min_workers=workers, max_workers=workers, dashboard=False)
        crew = RayCrew(order, engine=engine)
    crew = Kept(crew, num_workers=workers)
    crew.open()
    print(f"start-up of {name}: {time.perf_counter() - started:.1f} s", flush=True)
    return crew


def shards_for(folder: Path, *, num: int) -> Plan:
    """The shard, or its samples in so many."""
    if num == 1:
        return plan_units(Place(url=str(folder / "in")), splits=("train",), shard_samples=1000)
    parts = folder / f"in-{num}"
    if not parts.exists():
        with ShardReader(folder / "in" / "train" / "000000.tar") as reader:
            entries = tuple(
                write_shard(
                    parts / "train" / f"{part:06d}.tar",
                    [reader[row] for row in range(part, len(reader), num)],
                )
                for part in range(num)
            )
        write_index(parts, ShardIndex(source="made up", splits={"train": entries}))
    return plan_units(Place(url=str(parts)), splits=("train",), shard_samples=1000)


def through(crew: Crew, plan: Plan, out: Place) -> None:
    """All shards, published and marked."""
    open_store(out).delete_folder("train")
    open_store(out).delete_folder(".done")
    driver = Driver(
        crew=crew, config_digest="benchmark", attempts=1, straggler=0, report=lambda outcome, is_final: None
    )
    failures = driver.run(plan.units)
    assert not failures, failures


# The published worker's design.


def published_contender(samples: Sequence[Sample], folder: Path, arguments: Arguments) -> Contender:
    """The published worker's design, in float32."""
    torch.manual_seed(0)
    model: Any = open_clip.create_model(arguments.model).eval()
    tokenizer = open_clip.get_tokenizer(arguments.model)

    @torch.inference_mode()
    def run() -> None:
        items = []
        for at in range(0, len(samples), arguments.batch_size):
            batch = samples[at : at + arguments.batch_size]
            drawn = [
                drawn_views(sample, num=arguments.views, size=model.visual.image_size[0]) for sample in batch
            ]
            image_BVCHW = torch.stack([views for views, _ in drawn])
            tokens_BTL = torch.stack([tokenizer(list(sample.texts())) for sample in batch])
            image = [model.encode_image(view, normalize=True) for view in image_BVCHW.unbind(1)]
            text = [model.encode_text(tokens, normalize=True) for tokens in tokens_BTL.unbind(1)]
            image_BVD, text_BTD = torch.stack(image, dim=1), torch.stack(text, dim=1)
            for row, sample in enumerate(batch):
                items.append(
                    (sample, drawn[row][1], {"image_emb": image_BVD[row], "text_emb": text_BTD[row]})
                )
        write_published(folder / "published.tar", items)

    return Contender(name=PUBLISHED, precision="fp32", run=run)


def drawn_views(sample: Sample, *, num: int, size: int) -> tuple[Tensor, list[list[int]]]:
    """float32 [views, 3, size, size], normalised, and their parameters."""
    image = Image.open(io.BytesIO(sample.image)).convert("RGBA").convert("RGB")
    rng = seeded(0, "reinforce", sample.key)
    views, params = [], []
    for _ in range(num):
        view = draw(rng, width=image.width, height=image.height, spec=AugmentSpec())
        pixels = np.array(apply(image, view, size=size, spec=AugmentSpec()))
        views.append((torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - MEAN) / STD)
        params.append(pack(view).tolist())
    return torch.stack(views), params


def write_published(
    path: Path, items: Sequence[tuple[Sample, list[list[int]], Mapping[str, Tensor]]]
) -> None:
    """A tar as published, with the pictures."""
    with tarfile.open(path, "w") as tar:
        for sample, params, rows in items:
            file = io.BytesIO()
            torch.save({name: value.to(torch.bfloat16) for name, value in rows.items()}, file)
            for suffix, data in (
                ("jpg", sample.image),
                ("txt", sample.captions[0].encode()),
                ("paug.json", json.dumps({"param_aug": params}).encode()),
                ("pth.gz", gzip.compress(file.getvalue())),
            ):
                info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
