"""Do a small captioner's captions help students? Everything on the emoji data set.

    .venv/bin/pocketclip pack emoji emoji
    .venv/bin/python benchmarks/captioner_emoji.py emoji --out captioner --seeds 0 1 2

A captioner is pre-trained on half of the concepts and fine-tuned on a small clean part of them (main captions alone).
It writes captions of the test pictures, which are scored and drawn, and of the other half of the concepts. Students are
trained on these: with ground truth only, with the captioner's captions only, and with both; with each seed, at equal
steps. Prints Markdown. Finished steps are kept in --out and not made again.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import tyro
from tyro.conf import Positional

from pocketclip.data.foreign.candidate import unit_hash
from pocketclip.data.index import INDEX_FILE, ShardIndex, split_shards, write_index
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader, write_shard

os.environ.setdefault("GOMP_SPINCOUNT", "5000")

METRIC = "mean_recall@1"
CAPTIONER = "coca"
TESTS = ("test-style", "test-composition", "test-unseen")
KINDS: Mapping[str, tuple[float, float]] = {
    "ground truth": (1.0, 0.0),
    "synthetic": (0.0, 1.0),
    "both": (1.0, 1.0),
}
"""Students: weights of the ground-truth and of the synthetic captions' loss."""
SHARD_SAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to train."""

    emoji: Positional[Path]
    """Folder written by `pocketclip pack emoji`."""
    out: Path
    """Folder for everything."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students, two or more."""
    clean: int = 400
    """Pictures to fine-tune on."""
    pretrain_steps: int = 600
    """Of the captioner."""
    finetune_steps: int = 100
    """Of the captioner."""
    student_steps: int = 200
    """Of each student."""
    captions: int = 2
    """Synthetic captions of a picture."""
    sheet: int = 24
    """Pictures on the contact sheet."""


def main(arguments: Arguments) -> None:
    """Trains, captions, evaluates, prints."""
    out = arguments.out
    data = out / "data"
    if not (data / INDEX_FILE).is_file():
        make_halves(arguments.emoji, data, clean=arguments.clean)
    captioner = train_captioner(arguments, data=data)
    captioned = out / "captioned"
    if not (captioned / INDEX_FILE).is_file():
        write_captions(data, captioned, captioner=captioner, num_captions=arguments.captions)
    table = students(arguments, data=captioned)
    print(caption_report(arguments, captioner=captioner))
    print()
    print(table)


def make_halves(source: Path, out: Path, *, clean: int) -> None:
    """Splits: `web`, half of the training concepts; `clean`, a part of it; `rest`, the other half; the test sets."""
    train = sorted(read_split(source, "train"), key=lambda sample: unit_hash("order", sample.key))
    web = [sample for sample in train if unit_hash("half", str(sample.meta["concept"])) < 0.5]
    keys = {sample.key for sample in web}
    splits = {
        "web": web,
        "clean": [replace(sample, captions=sample.captions[:1]) for sample in web[:clean]],
        "rest": [sample for sample in train if sample.key not in keys],
        **{name: list(read_split(source, name)) for name in TESTS},
    }
    publish(out, splits, source=str(source))


def in_parts(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """The samples, so many at a time."""
    rest = iter(samples)
    while part := list(islice(rest, size)):
        yield part


def read_split(folder: Path, split: str) -> Iterator[Sample]:
    """The samples of a split, in order."""
    for path in split_shards(folder, split):
        with ShardReader(path) as reader:
            yield from reader


def publish(out: Path, splits: Mapping[str, Sequence[Sample]], *, source: str) -> None:
    """Writes splits as a packed folder."""
    entries = {
        name: tuple(
            write_shard(out / name / f"{number:06d}.tar", part)
            for number, part in enumerate(in_parts(samples, SHARD_SAMPLES))
        )
        for name, samples in splits.items()
    }
    write_index(out, ShardIndex(source=source, splits=entries))


def train_captioner(arguments: Arguments, *, data: Path) -> Path:
    """The fine-tuned captioner's checkpoint."""
    from pocketclip.recipes import captioner
    from pocketclip.recipes.run import train_recipe

    pre = captioner.emoji_pretrain()
    pre = replace(pre, split="web", loop=replace(pre.loop, num_steps=arguments.pretrain_steps))
    started = train_recipe(pre, data=data, out=arguments.out / "pretrained", validation=None)
    fine = captioner.emoji_finetune()
    fine = replace(
        fine,
        split="clean",
        start=str(started),
        loop=replace(fine.loop, num_steps=arguments.finetune_steps),
    )
    return train_recipe(fine, data=data, out=arguments.out / "tuned", validation=None)


def write_captions(data: Path, out: Path, *, captioner: Path, num_captions: int) -> None:
    """The other half of the concepts with synthetic captions, and the test sets as they are."""
    from pocketclip.data.picture import decode
    from pocketclip.teachers import CaptionerSpec, build_captioner

    spec = CaptionerSpec(
        name=CAPTIONER, source=str(captioner), num_captions=num_captions, max_length=20, no_repeat_ngram=3
    )
    writer = build_captioner(spec)
    samples: list[Sample] = []
    begun = time.perf_counter()
    for part in in_parts(read_split(data, "rest"), 32):
        images = [decode(sample.image, name=sample.key) for sample in part]
        texts = writer.caption(images, [sample.key for sample in part])
        samples += [
            replace(sample, synthetic={CAPTIONER: written or sample.captions[:1]})
            for sample, written in zip(part, texts, strict=True)
        ]
        print(f"captioned {len(samples)} in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    publish(
        out, {"rest": samples, **{name: list(read_split(data, name)) for name in TESTS}}, source=str(data)
    )


def students(arguments: Arguments, *, data: Path) -> str:
    """Trains and evaluates the students: a Markdown table of mean recall@1 in percent."""
    from pocketclip.evaluate import EvaluateConfig, evaluate
    from pocketclip.recipes import emoji
    from pocketclip.recipes.run import train_recipe
    from pocketclip.train import ObjectiveConfig

    models: dict[str, Path] = {}
    for seed in arguments.seeds:
        for kind, (truth, synthetic) in KINDS.items():
            run = emoji.student_plain(seed=seed)
            run = replace(
                run,
                split="rest",
                stream=replace(run.stream, batch_size=64, synthetic=CAPTIONER),
                objective=ObjectiveConfig(caption_weight=truth, synthetic_weight=synthetic),
                loop=replace(run.loop, num_steps=arguments.student_steps, evaluate_every=0),
            )
            name = f"{kind}-{seed}"
            models[name] = train_recipe(
                run, data=data, out=arguments.out / name.replace(" ", "-"), validation=None
            )
    report = evaluate(models, data, config=EvaluateConfig(splits=TESTS))
    lines = ["| student on | " + " | ".join(TESTS) + " |", "|---" * (len(TESTS) + 1) + "|"]
    for kind in KINDS:
        cells = []
        for split in TESTS:
            values = [
                100 * report.result(f"{kind}-{seed}", split).scores[METRIC].value for seed in arguments.seeds
            ]
            cells.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def caption_report(arguments: Arguments, *, captioner: Path) -> str:
    """Captions of the test pictures before and after fine-tuning: scores as Markdown, and a contact sheet."""
    from pocketclip.caption import CaptionConfig, caption, caption_sheet, score_captions

    data = arguments.out / "data"
    sources = {"pre-trained": arguments.out / "pretrained", "fine-tuned": captioner.parent}
    rows: dict[str, Mapping[str, float]] = {}
    for name, source in sources.items():
        for split in ("test-style", "test-unseen"):
            references = {sample.key: sample.captions for sample in read_split(data, split)}
            config = CaptionConfig(
                models={CAPTIONER: str(source)},
                splits=(split,),
                num_captions=1,
                temperature=0.0,
                max_length=20,
            )
            written = list(caption([data], config=config))
            candidates = {
                one.key: [text for texts in one.captions.values() for text in texts] for one in written
            }
            rows[f"{name}, {split}"] = score_captions(candidates, references).values()
            if name == "fine-tuned":
                shown = sorted(written, key=lambda one: unit_hash("sheet", one.key))[: arguments.sheet]
                caption_sheet(shown, arguments.out / f"{split}.png", references=references)
    (arguments.out / "scores.json").write_text(json.dumps(rows, indent=1))
    return markdown(rows)


def markdown(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A table with a row for each name."""
    columns = list(next(iter(rows.values())))
    lines: Iterable[str] = (
        f"| {name} | " + " | ".join(f"{values[column]:.3f}" for column in columns) + " |"
        for name, values in rows.items()
    )
    return "\n".join(
        ["| captions of | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *lines]
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
