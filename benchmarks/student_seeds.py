"""Is the reinforced student better by more than the spread over seeds?

    .venv/bin/pocketclip demo demo
    .venv/bin/python benchmarks/student_seeds.py demo --seeds 0 1 2

Trains the plain and the reinforced student of the demo with each seed, at equal steps, on the demo's shards; prints a
Markdown table of mean recall@1 on the three test sets (mean and standard deviation over seeds), the teachers beside
them. Finished runs are kept in DEMO/seeds and not trained again.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

os.environ.setdefault("GOMP_SPINCOUNT", "5000")

METRIC = "mean_recall@1"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to train."""

    demo: Positional[Path]
    """Folder of a finished demo."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students."""


def main(arguments: Arguments) -> None:
    """Trains, evaluates, prints."""
    from pocketclip.evaluate import EvaluateConfig, evaluate
    from pocketclip.recipes import emoji
    from pocketclip.recipes.run import train_recipe

    kinds = {
        "student-plain": (emoji.student_plain, arguments.demo / "emoji"),
        "student-reinforced": (emoji.student_reinforced, arguments.demo / "reinforced"),
    }
    models: dict[str, Path] = {
        name: arguments.demo / name / "checkpoint.safetensors" for name in ("teacher-conv", "teacher-vit")
    }
    for seed in arguments.seeds:
        for kind, (recipe, shards) in kinds.items():
            folder = arguments.demo / "seeds" / f"{kind}-{seed}"
            models[f"{kind}-{seed}"] = train_recipe(
                recipe(seed=seed), data=shards, out=folder, validation=None
            )
    config = EvaluateConfig()
    report = evaluate(models, arguments.demo / "emoji", config=config)
    scores = {
        (model, split): 100 * report.result(model, split).scores[METRIC].value
        for model in models
        for split in config.splits
    }
    print(table(scores, models=list(models), kinds=list(kinds), splits=config.splits, seeds=arguments.seeds))


def table(
    scores: Mapping[tuple[str, str], float],
    *,
    models: list[str],
    kinds: list[str],
    splits: tuple[str, ...],
    seeds: tuple[int, ...],
) -> str:
    """A Markdown table, percent."""
    lines = ["| mean recall@1, % | " + " | ".join(splits) + " |", "|---" * (len(splits) + 1) + "|"]
    lines += [
        f"| {model} | " + " | ".join(f"{scores[model, split]:.1f}" for split in splits) + " |"
        for model in models
    ]
    for kind in kinds:
        cells = []
        for split in splits:
            values = [scores[f"{kind}-{seed}", split] for seed in seeds]
            cells.append(f"**{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}**")
        lines.append(
            f"| **{kind}, mean ± standard deviation of {len(seeds)} seeds** | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
