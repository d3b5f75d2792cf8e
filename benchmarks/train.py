"""Does training on reinforced shards cost more than the same step on plain ones? And what do texts cost?

    .venv/bin/python benchmarks/train.py
    .venv/bin/python benchmarks/train.py --variant mobileclip2_b --batch-size 8
    .venv/bin/python benchmarks/train.py --photos FOLDER

Whole steps, data path included: read, decode, draw or replay a view, encode captions, gather the teachers' rows,
forward, loss, backward, clipping, AdamW. One after the other in one process, so that nothing hides behind anything.
Samples are those of benchmarks/data_path.py: JPEGs of 512 pixels, two teachers of width 768, true captions of 12 words
and synthetic ones of 10. Contenders take turns, another begins each round; the numbers are medians of the rounds, and
ratios are medians of the rounds' ratios to the first contender.

    plain, both captions         what reinforced steps are compared with: as many texts are encoded
    reinforced, both captions    the recipes' form
    reinforced, mixed            `stream.synthetic_share` 0.5: one text a sample
    reinforced, 40 tokens        `context_length` 40 in the place of 77
    reinforced, not cut          where the text tower is causal: texts not cut to the batch's longest

Needs `webdataset` and the extra `teachers`, as benchmarks/data_path.py does.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from data_path import Arguments as DataArguments
from data_path import make_data

from pocketclip.checkpoint import create
from pocketclip.data.batch import StreamConfig
from pocketclip.data.builder import BatchBuilder, Plan
from pocketclip.data.tokenize import Tokenizer
from pocketclip.fit.norm import share_norms
from pocketclip.fit.optim import OptimConfig, make_adamw
from pocketclip.fit.step import Stepper
from pocketclip.train import Objective, ObjectiveConfig

PLAIN = "plain, both captions"
REINFORCED = "reinforced, both captions"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    variant: str = "mobileclip2_s0"
    """Of the student."""
    batch_size: int = 8
    """Samples of a step."""
    rounds: int = 5
    """Turns of each contender, after one that does not count."""
    threads: int = 2
    """Of the arithmetic."""
    only: tuple[str, ...] = ()
    """Contenders; none for all that the variant has."""
    photos: Path | None = None
    """A folder of pictures; none for drawn ones."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A contender.

    Attributes:
        stream: of its batches.
        objective: of its steps.
        context_length: tokens of a text; None for the model's own.
        cut: whether texts are cut to the batch's longest, where that is exact.
    """

    stream: StreamConfig
    objective: ObjectiveConfig
    context_length: int | None = None
    cut: bool = True


def main(arguments: Arguments) -> None:
    """Measures in turn, prints Markdown."""
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        asked = DataArguments(photos=arguments.photos, num_samples=16 * arguments.batch_size)
        shard = make_data(Path(folder), asked).ours
        names = arguments.only or tuple(ways(arguments))
        steps = {name: prepared(ways(arguments)[name], shard, arguments) for name in names}
        times: dict[str, list[float]] = {name: [] for name in steps}
        order = list(steps)
        for turn in range(arguments.rounds + 1):
            for name in order:
                start = time.perf_counter()
                steps[name](turn)
                if turn:
                    times[name].append(time.perf_counter() - start)
            order = order[1:] + order[:1]
    print(f"{arguments.variant}, {arguments.batch_size} samples a step, {arguments.threads} threads\n")
    print("| step | seconds | times the first | spread of the ratio |\n|---|---|---|---|")
    first = times[names[0]]
    for name, each in times.items():
        ratios = [own / other for own, other in zip(each, first, strict=True)]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"| {name} | {statistics.median(each):.2f} | {statistics.median(ratios):.3f} | {spread} |")


def ways(arguments: Arguments) -> dict[str, Way]:
    """The contenders by name."""
    plain = Way(
        stream=StreamConfig(batch_size=arguments.batch_size, synthetic=".*"),
        objective=ObjectiveConfig(synthetic_weight=1.0),
    )
    reinforced = Way(
        stream=replace(plain.stream, replay=True),
        objective=ObjectiveConfig(distill_weight=1.0, synthetic_weight=1.0),
    )
    mixed = replace(
        reinforced,
        stream=replace(reinforced.stream, synthetic_share=0.5),
        objective=ObjectiveConfig(distill_weight=1.0),
    )
    found = {
        PLAIN: plain,
        REINFORCED: reinforced,
        "reinforced, mixed": mixed,
        "reinforced, 40 tokens": replace(reinforced, context_length=40),
    }
    if getattr(create(arguments.variant).config.model.text, "causal", False):
        found["reinforced, not cut"] = replace(reinforced, cut=False)
    return found


def prepared(way: Way, shard: Path, arguments: Arguments) -> Callable[[int], None]:
    """A function that makes the batch of that number and takes a step on it."""
    torch.manual_seed(0)
    start = create(arguments.variant)
    model, text = start.model, start.config.model.text
    length = way.context_length or text.context_length
    model = model.resized(context_length=length).to(memory_format=torch.channels_last)
    share_norms(model, device="cpu", together=False)
    tokenizer = Tokenizer(
        replace(start.tokenizer.config, context_length=length), merges=start.tokenizer.merges
    )
    size = start.config.preprocess.size
    builder = BatchBuilder([shard], config=replace(way.stream, image_px=size), tokenizer=tokenizer)
    optim = OptimConfig(lr_peak=1e-4)
    stepper = Stepper(
        model=model,
        runner=model,
        objective=Objective(
            way.objective,
            preprocess=start.config.preprocess,
            device="cpu",
            cut_texts=way.cut and getattr(text, "causal", False),
        ),
        optimizer=make_adamw(model, config=optim),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        precision="fp32",
        clip_norm=1.0,
        parts=1,
        seed=0,
        rank=0,
    )

    def step(number: int) -> None:
        first = number % 16 * arguments.batch_size
        members = np.arange(first, first + arguments.batch_size)
        batch = builder.build(Plan(epoch=number // 16, first=first, members=members, side=size))
        stepper(batch, step=number + 1, lr=1e-4)

    return step


if __name__ == "__main__":
    main(tyro.cli(Arguments))
