"""Does a filtering network find shuffled captions, and is the student better for it?

    .venv/bin/pocketclip pack emoji emoji
    .venv/bin/python benchmarks/filter_emoji.py emoji --out filter_emoji --figure docs/images/filter-emoji.png

Of the emoji data set's training pictures two in five, drawn at random, are the clean part; the rest is the pool, in
which 40% of the captions are shuffled among themselves. The network is trained on the pool as it is, then tuned on the
clean part; it scores the pool, and the top 60% is kept, by `pocketclip score` and `pocketclip filter`. Students are
trained at equal steps on the whole pool, on what was kept and, if asked, on the pairs of the pool that were left as
they are (what a perfect filter would keep). Prints Markdown tables, draws precision and recall. Finished runs are kept
in OUT and not trained again.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

os.environ.setdefault("GOMP_SPINCOUNT", "5000")

METRIC = "mean_recall@1"
SPLITS = ("test-style", "test-composition", "test-unseen")
NOISE, KEPT = 0.4, 0.6
STUDENTS = {"everything": "pool", "kept": "kept", "perfect": "perfect"}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to do."""

    emoji: Positional[Path]
    """What `pocketclip pack emoji` wrote."""
    out: Path = Path("filter_emoji")
    """Folder for everything that is made."""
    clean: float = 0.4
    """Share of the training pictures that is the clean part."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students."""
    steps: int = 200
    """Of each student."""
    students: tuple[str, ...] = ("everything", "kept")
    """Which to train."""
    figure: Path | None = None
    """Where to draw precision and recall."""


def main(arguments: Arguments) -> None:
    """Makes, trains, scores, filters, trains, evaluates, prints."""
    from pocketclip.recipes import dfn

    out = arguments.out
    make_sets(arguments.emoji, out, clean=arguments.clean)
    start = train(dfn.emoji_pretrain(), data=out / "pool", out=out / "pretrained")
    network = train(replace(dfn.emoji(), start=str(start)), data=out / "clean", out=out / "network")
    quality = filter_pool(network, out=out)
    print(quality)
    if arguments.figure:
        draw(quality, arguments.figure)
    models = train_students(arguments.students, arguments=arguments)
    print(table(models, arguments=arguments))


def train_students(kinds: Sequence[str], *, arguments: Arguments) -> dict[str, Path]:
    """The checkpoint of each kind and seed."""
    from pocketclip.recipes import emoji

    models: dict[str, Path] = {}
    for seed in arguments.seeds:
        for kind in kinds:
            folder = arguments.out / f"{kind}-{seed}"
            config = emoji.student_plain(seed=seed)
            config = replace(config, loop=replace(config.loop, num_steps=arguments.steps, evaluate_every=0))
            models[f"{kind}-{seed}"] = train(config, data=arguments.out / STUDENTS[kind], out=folder)
    return models


def train(config, *, data: Path, out: Path) -> Path:  # noqa: ANN001
    """The checkpoint of a run."""
    from pocketclip.recipes.run import train_recipe

    return train_recipe(config, data=data, out=out, validation=None)


def make_sets(emoji: Path, out: Path, *, clean: float) -> None:
    """Writes the clean part, the pool, and the pool's pairs that were left as they are."""
    from pocketclip.data.index import ShardIndex, split_shards, write_index
    from pocketclip.data.shard import ShardReader, write_shard

    if (out / "perfect" / "index.json").is_file():
        return
    samples = []
    for path in split_shards(emoji, "train"):
        with ShardReader(path) as shard:
            samples.extend(shard)
    samples.sort(key=lambda sample: hashlib.sha256(f"order {sample.key}".encode()).digest())
    num_clean = round(clean * len(samples))
    pool = list(shuffled(samples[num_clean:]))
    sets = {
        "clean": samples[:num_clean],
        "pool": pool,
        "perfect": [sample for sample in pool if sample.meta["clean"]],
    }
    for name, members in sets.items():
        entries = [
            write_shard(out / name / "train" / f"{number:06d}.tar", members[start : start + 500])
            for number, start in enumerate(range(0, len(members), 500))
        ]
        write_index(out / name, ShardIndex(source=f"emoji, {name}", splits={"train": tuple(entries)}))


def shuffled(samples: Sequence) -> Iterator:
    """The samples; so many of them with the captions of another one that shows something else."""
    rng = random.Random(0)
    noisy = sorted(rng.sample(range(len(samples)), round(NOISE * len(samples))))
    others = rng.sample(noisy, len(noisy))

    def own() -> list[int]:
        """Places that got a caption of their own: the same emoji is there in another style."""
        return [
            place
            for place, (one, other) in enumerate(zip(noisy, others, strict=True))
            if samples[one].captions[0] == samples[other].captions[0]
        ]

    while places := own():
        for place in places:
            other = rng.randrange(len(others))
            others[place], others[other] = others[other], others[place]
    partner = dict(zip(noisy, others, strict=True))
    for number, sample in enumerate(samples):
        other = samples[partner.get(number, number)]
        yield replace(
            sample,
            captions=other.captions,
            synthetic=other.synthetic,
            meta={**sample.meta, "clean": int(number not in partner)},
        )


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well a score parts shuffled pairs from others, along the pool from its highest score down."""

    shares: np.ndarray
    """Of the pool that is kept."""
    precision: np.ndarray
    """Clean pairs among what is kept."""
    recall: np.ndarray
    """Of all clean pairs."""
    auc: float
    """Chance that a clean pair scores higher than a shuffled one."""
    num_kept: int
    """By `pocketclip filter`."""
    clean_kept: float
    """Clean pairs among these."""

    def __str__(self) -> str:
        lines = ["| kept, % of the pool | clean among them, % | of all clean pairs, % |", "|---|---|---|"]
        for share in (0.1, 0.2, 0.3, 0.4, 0.5, KEPT, 0.7, 0.8, 0.9, 1.0):
            place = round(share * len(self.shares)) - 1
            cells = (share, self.precision[place], self.recall[place])
            lines.append("| " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |")
        return "\n".join(
            [
                *lines,
                "",
                f"AUC {self.auc:.4f}; `filter` kept {self.num_kept}, of which {100 * self.clean_kept:.2f}% are clean",
            ]
        )


def filter_pool(network: Path, *, out: Path) -> Quality:
    """Scores and filters the pool with the commands, and looks at what they did."""
    from pocketclip.cli import main as cli
    from pocketclip.filter import Pool

    pool, scores, kept = (str(out / name) for name in ("pool", "scores", "kept"))
    for command in (
        ["score", pool, scores, "--teacher", f"network={network}", "--meta", "clean"],
        ["filter", scores, kept, "--top", f"score/network={100 * KEPT:g}%"],
    ):
        code = cli(command)
        assert code == 0, command
    columns: dict[str, list[np.ndarray]] = {"score/network": [], "meta/clean": []}
    keys: list[str] = []
    table = Pool([Path(scores)])
    for chunk in table.chunks(list(columns)):
        for name, parts in columns.items():
            parts.append(chunk.columns[name])
        keys += table.keys(chunk.file, np.ones(chunk.file.num_rows, np.uint8)).decode().split()
    score, clean = (np.concatenate(parts) for parts in columns.values())
    chosen = set((Path(kept) / "kept.txt").read_text().split())
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(clean[order])
    rank = np.empty(len(score))
    rank[order[::-1]] = np.arange(len(score))
    num_clean = clean.sum()
    below = rank[clean == 1].sum() - num_clean * (num_clean - 1) / 2
    return Quality(
        shares=np.arange(1, len(score) + 1) / len(score),
        precision=found / np.arange(1, len(score) + 1),
        recall=found / num_clean,
        auc=float(below / (num_clean * (len(score) - num_clean))),
        num_kept=len(chosen),
        clean_kept=float(np.mean([flag for key, flag in zip(keys, clean, strict=True) if key in chosen])),
    )


def draw(quality: Quality, path: Path) -> None:
    """Precision and recall over the share that is kept, and over each other."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    first = max(1, len(quality.shares) // 200)  # a handful of pairs says little
    left.plot(
        100 * quality.shares[first:],
        100 * quality.precision[first:],
        label="precision: clean of what is kept",
    )
    left.plot(100 * quality.shares[first:], 100 * quality.recall[first:], label="recall: of all clean pairs")
    left.axhline(60, color="grey", lw=1, ls=":", label="precision of keeping at random")
    left.axvline(100 * KEPT, color="grey", lw=1)
    place = round(KEPT * len(quality.shares)) - 1
    left.annotate(
        f"{100 * quality.precision[place]:.1f}% clean",
        (100 * KEPT, 100 * quality.precision[place]),
        xytext=(10, -52),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": "grey"},
    )
    left.set(xlabel="kept, % of the pool", ylabel="%", ylim=(0, 102), xlim=(0, 100))
    left.legend(loc="lower right", framealpha=1.0, edgecolor="none")
    right.plot(100 * quality.recall[first:], 100 * quality.precision[first:])
    right.plot(100 * quality.recall[place], 100 * quality.precision[place], "o", color="C0")
    right.annotate(
        "the top 60%",
        (100 * quality.recall[place], 100 * quality.precision[place]),
        xytext=(-72, -18),
        textcoords="offset points",
    )
    right.axhline(60, color="grey", lw=1, ls=":")
    right.set(xlabel="recall, %", ylabel="precision, %", ylim=(50, 102), xlim=(0, 102))
    right.set_title(f"AUC {quality.auc:.3f}", loc="left", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def table(models: Mapping[str, Path], *, arguments: Arguments) -> str:
    """Mean and standard deviation over seeds, percent; and the paired gains."""
    from pocketclip.evaluate import EvaluateConfig, evaluate

    report = evaluate(dict(models), arguments.emoji, config=EvaluateConfig())
    kinds = list(dict.fromkeys(name.rpartition("-")[0] for name in models))
    lines = ["| mean recall@1, % | " + " | ".join(SPLITS) + " |", "|---" * (len(SPLITS) + 1) + "|"]
    values = {
        (kind, split): [
            100 * report.result(f"{kind}-{seed}", split).scores[METRIC].value for seed in arguments.seeds
        ]
        for kind in kinds
        for split in SPLITS
    }
    for kind in kinds:
        cells = [spread(values[kind, split]) for split in SPLITS]
        lines.append(f"| trained on {kind} | " + " | ".join(cells) + " |")
    for kind in kinds[1:]:
        gains = [
            spread(
                [one - other for one, other in zip(values[kind, split], values[kinds[0], split], strict=True)]
            )
            for split in SPLITS
        ]
        lines.append(f"| {kind} minus {kinds[0]}, by seed | " + " | ".join(gains) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean, standard deviation, and each."""
    each = ", ".join(f"{value:.1f}" for value in values)
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"**{statistics.mean(values):.1f} ± {deviation:.1f}** ({each})"


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
