"""The ablations of docs/benchmarks.md: what of reinforced training helps a small student on emoji, and how much?

    .venv/bin/python benchmarks/ablation.py FOLDER --images docs/images
    .venv/bin/python benchmarks/ablation.py FOLDER --only views --seeds 0 1 2

Makes the data once (emoji, two trained teachers, shards reinforced with 30 views), trains every student of every table
(recipes `ablation.*`), and prints Markdown tables of what is done: recall@1 in percent, mean of both directions, mean
and standard deviation over seeds, and the paired difference from the table's first row. Every result is a line of
FOLDER/results.jsonl; a second start does only what is missing, and several starts at once share the students out.
Runs that belong to several tables are trained once. All students: an hour and a half on a quiet core.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from ablation_report import KINDS, SHARES, SPLITS, RunResult, Table, draw_samples, draw_tables, texts
from tyro.conf import Positional

from pocketclip.checkpoint import unstructure
from pocketclip.data.index import INDEX_FILE, read_index, split_shards, write_index
from pocketclip.data.reinforced import embeddings_of, reinforcement_of
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, pack_reinforcement
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.evaluate import EvaluateConfig, evaluate
from pocketclip.pack import EmojiConfig, pack_emoji
from pocketclip.recipes import ablation, emoji
from pocketclip.recipes.run import taught_online, train_recipe
from pocketclip.reinforce import reinforce
from pocketclip.teachers import TeacherSpec
from pocketclip.train import CHECKPOINT_FILE, TrainConfig

TEACHERS = {"teacher-conv": emoji.teacher_conv, "teacher-vit": emoji.teacher_vit}
SCALES = (0.25, 0.5, 2.0, 4.0)  # times what the teacher learned
VIEWS = (1, 2, 5, 10, 30)
FEW_SHARDS = 1  # of seven: a student sees each of their pictures 13 times


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to train and where."""

    folder: Positional[Path]
    """Everything is kept in it."""
    only: tuple[str, ...] = ()
    """Tables to do, by their names; none for all."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the students."""
    tables_only: bool = False
    """Print and draw what is done, train nothing."""
    images: Path | None = None
    """Folder for figures."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The part of the reinforced folder that a student is shown.

    Attributes:
        teachers: by name.
        scale: times each teacher's own logit scale.
        num_views: the first so many.
        num_shards: the first so many; None for all.
    """

    teachers: tuple[str, ...] = tuple(TEACHERS)
    scale: float = 1.0
    num_views: int = ablation.NUM_VIEWS
    num_shards: int | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        teachers = "+".join(name.removeprefix("teacher-") for name in self.teachers)
        return f"{teachers}-x{self.scale:g}-views{self.num_views}-shards{self.num_shards or 'all'}"


@dataclass(frozen=True, kw_only=True)
class Student:
    """What a row trains, but for the seed.

    Attributes:
        recipe: with a seed.
        choice: of the data.
        online: with the teachers beside it.
    """

    recipe: Callable[..., TrainConfig]
    choice: Choice = field(default_factory=Choice)
    online: bool = False


def main(arguments: Arguments) -> None:
    """Makes, trains, evaluates, prints, draws."""
    tables = {name: table for name, table in TABLES.items() if not arguments.only or name in arguments.only}
    if unknown := set(arguments.only) - set(TABLES):
        raise SystemExit(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    folder = arguments.folder
    if not arguments.tables_only:
        with claim(folder / "locks" / "data", wait=True):
            make_data(folder)
        for key, seed in in_order(tables, seeds=arguments.seeds):
            with claim(folder / "locks" / f"{key}-{seed}") as mine:
                if mine and (key, seed) not in read_results(folder):
                    keep(folder, train_student(folder, key, seed=seed))
    results = read_results(folder)
    print("\n\n".join(text for text in texts(tables, results) if text))
    if arguments.images:
        arguments.images.mkdir(parents=True, exist_ok=True)
        drawings = {"samples": draw_samples(results), "tables": draw_tables(tables, results)}
        for name, drawing in drawings.items():
            if drawing:
                (arguments.images / f"ablation-{name}.svg").write_text(drawing)


def in_order(tables: Mapping[str, Table], *, seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """All runs, each once: the first seed of every table, more seeds where a gain may be claimed, then the rest."""
    first, *more = seeds
    gains = [table for table in tables.values() if table.claims_gain]
    others = [table for table in tables.values() if not table.claims_gain]
    order = [(key, first) for table in (*gains, *others) for key in table.rows.values()]
    order += [
        (key, seed) for kind in (gains, others) for seed in more for t in kind for key in t.rows.values()
    ]
    yield from dict.fromkeys(order)


def make_data(folder: Path) -> None:
    """Emoji, teachers, reinforced shards; what is there is not made again."""
    data = folder / "emoji"
    if not (data / INDEX_FILE).is_file():
        pack_emoji(data, config=EmojiConfig())
    for name, recipe in TEACHERS.items():
        if not (folder / name / CHECKPOINT_FILE).is_file():
            train_recipe(recipe(), data=data, validation=data, out=folder / name)
        if (name, 0) not in read_results(folder):
            keep(folder, RunResult(key=name, seed=0, scores=scores(folder / name / CHECKPOINT_FILE, data)))
    if not (folder / "reinforced" / INDEX_FILE).is_file():
        reinforce(data, folder / "reinforced", config=ablation.reinforcement(teacher_paths(folder)))


def teacher_paths(folder: Path) -> dict[str, Path]:
    """The teachers' checkpoints by name."""
    return {name: folder / name / CHECKPOINT_FILE for name in TEACHERS}


def train_student(folder: Path, key: str, *, seed: int) -> RunResult:
    """One run, from its data to its scores."""
    student = STUDENTS[key]
    config = student.recipe(seed=seed)
    if student.online:
        paths = teacher_paths(folder).items()
        config = taught_online(config, [TeacherSpec(name=name, source=str(path)) for name, path in paths])
    shards = shards_of(folder, student.choice)
    out = folder / "students" / f"{key}-{seed}"
    whole = not out.exists()
    before, begun = time.process_time(), time.monotonic()
    checkpoint = train_recipe(config, data=shards, validation=None, out=out)
    cpu_s, wall_s = time.process_time() - before, time.monotonic() - begun
    found = RunResult(
        key=key,
        seed=seed,
        recipe=config.name,
        digest=digest(unstructure(config), asdict(student.choice)),
        num_steps=config.loop.num_steps,
        num_samples=config.loop.num_steps * config.samples_per_step(),
        cpu_s=cpu_s if whole else None,
        wall_s=wall_s if whole else None,
        scores=scores(checkpoint, folder / "emoji"),
    )
    shutil.rmtree(out)
    return found


def shards_of(folder: Path, choice: Choice) -> Path:
    """The reinforced folder, or the part of it that is chosen, made here where it is not there yet."""
    if choice == Choice():
        return folder / "reinforced"
    shards = folder / "shards" / choice.name
    with claim(folder / "locks" / choice.name, wait=True):
        if not (shards / INDEX_FILE).is_file():
            take_out(folder / "reinforced", shards, choice=choice)
    return shards


def scores(checkpoint: Path, data: Path) -> dict[str, dict[str, float]]:
    """Percent by split and metric."""
    report = evaluate({"it": checkpoint}, data, config=EvaluateConfig(splits=SPLITS, resamples=1))
    metrics = ("mean_recall@1", "mean_recall@5")
    return {
        split: {metric: 100 * report.result("it", split).scores[metric].value for metric in metrics}
        for split in SPLITS
    }


def take_out(source: Path, out: Path, *, choice: Choice) -> None:
    """Writes a part of a reinforced folder as a folder of its own; no teacher runs again."""
    index = read_index(source)
    entries = []
    for path in split_shards(source, "train")[: choice.num_shards]:
        with ShardReader(path) as shard:
            anew = block_of(shard, choice=choice)
            samples = [shard[row] for row in range(len(shard))]
            entries.append(write_shard(out / "train" / path.name, samples, blocks={BLOCK_NAME: anew}))
    config = {**index.config, "num_views": choice.num_views, "taken_out": asdict(choice)}
    write_index(out, replace(index, config=config, splits={"train": tuple(entries)}))


def block_of(shard: ShardReader, *, choice: Choice) -> bytes:
    """A shard's reinforcement with some teachers, at other scales, and the first views alone."""
    block = reinforcement_of(shard)
    header = block.header
    rows = embeddings_of(block, np.arange(len(block)))
    taken = [
        (
            replace(record, logit_scale=record.logit_scale * choice.scale),
            Embeddings(image_NAD=own.image_NAD[:, : choice.num_views], text_TD=own.text_TD),
        )
        for record, own in zip(header.teachers, rows, strict=True)
        if record.name in choice.teachers
    ]
    return pack_reinforcement(
        config_digest=digest(header.config_digest, asdict(choice)),
        input_sha256=header.input_sha256,
        augment=header.augment,
        codec=header.codec,
        params_NAP=block.augment_params_NAP[:, : choice.num_views],
        text_counts=np.diff(block.text_offsets).tolist(),
        teachers=taken,
        dropped=header.dropped,
    )


def digest(*parts: object) -> str:
    """SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def keep(folder: Path, result: RunResult) -> None:
    """Appends a line, whole: other processes append to the same file."""
    line = json.dumps(asdict(result), sort_keys=True) + "\n"
    file = os.open(folder / "results.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read_results(folder: Path) -> dict[tuple[str, int], RunResult]:
    """What was kept, by key and seed."""
    path = folder / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    results = [RunResult(**json.loads(line)) for line in lines]
    return {(result.key, result.seed): result for result in results}


@contextmanager
def claim(path: Path, *, wait: bool = False) -> Generator[bool]:
    """Whether this process may do the work of that name now; a process that ends lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _steps(recipe: Callable[..., TrainConfig], share: float, *, seed: int) -> TrainConfig:
    return ablation.shortened(recipe(seed=seed), num_steps=round(share * ablation.NUM_STEPS))


def _students() -> dict[str, Student]:
    """By key: what each row of the tables trains."""
    few = Choice(num_shards=FEW_SHARDS)
    students = {
        "plain": Student(recipe=ablation.plain),
        "reinforced": Student(recipe=ablation.reinforced),
        "lambda-0.5": Student(recipe=ablation.lambda_half),
        "lambda-1": Student(recipe=ablation.lambda_one),
        "synthetic": Student(recipe=ablation.synthetic),
        "both": Student(recipe=ablation.both),
        "online": Student(recipe=ablation.reinforced, online=True),
        "few-plain": Student(recipe=ablation.plain, choice=few),
    }
    for kind, recipe in (("plain", ablation.plain), ("reinforced", ablation.reinforced)):
        for share in SHARES:
            students[f"{kind}-{share}"] = Student(recipe=partial(_steps, recipe, share))
    for name in TEACHERS:
        for scale in (*SCALES, 1.0):
            choice = Choice(teachers=(name,), scale=scale)
            students[f"{name.removeprefix('teacher-')}-x{scale:g}"] = Student(
                recipe=ablation.reinforced, choice=choice
            )
    for views in VIEWS:
        students[f"views-{views}"] = Student(recipe=ablation.reinforced, choice=replace(few, num_views=views))
    return students


STUDENTS = _students()


TABLES = {
    "samples": Table(
        title="Data efficiency: complete runs of fewer samples",
        rows={
            "plain": "plain",
            "reinforced": "reinforced",
            **{
                f"{kind}, {share:.0%} of the samples": f"{kind}-{share}" for share in SHARES for kind in KINDS
            },
        },
        claims_gain=True,
    ),
    "lambda": Table(
        title="The weight of distillation",
        rows={"lambda 0": "plain", "0.5": "lambda-0.5", "0.7": "reinforced", "1": "lambda-1"},
        claims_gain=True,
    ),
    "teachers": Table(
        title="One teacher and two",
        rows={"both teachers": "reinforced", "conv alone": "conv-x1", "vit alone": "vit-x1", "none": "plain"},
        claims_gain=True,
    ),
    "captions": Table(
        title="Captions",
        rows={"ground truth": "reinforced", "synthetic": "synthetic", "both": "both"},
        claims_gain=True,
    ),
    "views": Table(
        title="Number of augmentations, a seventh of the pictures, each seen 13 times",
        rows={"plain": "few-plain", **{f"{views} views": f"views-{views}" for views in VIEWS}},
    ),
    "online": Table(
        title="Offline and online",
        rows={
            "offline, 30 stored views": "reinforced",
            "online, views drawn anew": "online",
        },
    ),
    **{
        f"scale-{teacher}": Table(
            title=f"Logit scale of {teacher} alone, times what it learned",
            rows={f"x {scale:g}": f"{teacher}-x{scale:g}" for scale in (1.0, *SCALES)},
        )
        for teacher in ("conv", "vit")
    },
}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
