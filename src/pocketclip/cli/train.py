"""`pocketclip train`: recipes, what they cost, and their runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.shards import parse_teacher
from pocketclip.cli.verbs import Outcome

if TYPE_CHECKING:
    from pocketclip.recipes.cost import RunCost
    from pocketclip.recipes.run import RecipeRun

_NOTE = """\
Estimated from arithmetic alone, without teachers and data: a GPU that sustains 200 TFLOP/s in bf16, or
two CPU cores that sustain 50 GFLOP/s. Every recipe has a debug twin that takes seconds: ROOM.debug_NAME."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe on plain or reinforced shards; an interrupted run goes on where it was.

    Under torchrun the processes share every step (--loop.parallel ddp or fsdp2), and the first one prints.
    Curves go to OUT/metrics.jsonl and to TensorBoard (OUT/events).

    Examples:
        pocketclip train --list
        pocketclip train emoji.student_plain --data emoji/ --out runs/plain
        pocketclip train emoji.student_reinforced --data reinforced/ --out runs/kd --loop.num-steps 500
        pocketclip train emoji.student_reinforced --data emoji/ --out runs/online --online-teacher a=A.safetensors
        pocketclip train emoji.student_plain --data emoji/ --out runs/b --track.no-tensorboard --track.wandb mine
        pocketclip train emoji.student_plain --help    (every setting of the recipe)
    """

    recipe: Annotated[Positional[str], arg(help_behavior_hint="(required)")] = ""
    """Name of a recipe."""
    data: Annotated[Path | None, arg(help_behavior_hint="(required)")] = None
    """Folder of shards; reinforced ones for a reinforced recipe."""
    out: Annotated[Path | None, arg(help_behavior_hint="(required)")] = None
    """The run's folder."""
    validation: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Packed folder whose validation split is evaluated as the run goes."""
    online_teacher: Annotated[
        tuple[str, ...], arg(metavar="NAME=SOURCE[@SCALE] ...", help_behavior_hint="(default: none)")
    ] = ()
    """Teachers that run beside the student; the recipe then needs no reinforced shards."""
    list: bool = False
    """List the recipes with what they cost."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Lists the recipes; runs are `TrainRecipe`'s."""
        from pocketclip.recipes.cost import run_cost
        from pocketclip.recipes.registry import RECIPES

        about = {name: (make.__doc__ or "").splitlines()[0] for name, make in RECIPES.items()}
        costs = {name: run_cost(make()) for name, make in RECIPES.items()}
        rows = [
            (name, _short(cost.num_samples), _hours(cost), about[name])
            for name, cost in costs.items()
            if ".debug_" not in name
        ]
        lines = [*_table([("recipe", "samples", "takes about", ""), *rows]), "", _NOTE]
        values = {name: {"about": about[name], **asdict(cost)} for name, cost in costs.items()}
        return Outcome("\n".join(lines), values)


@dataclass(frozen=True)
class TrainRecipe:
    """`pocketclip train RECIPE`, its settings understood."""

    asked: RecipeRun

    @property
    def json(self) -> bool:
        """Whether a script reads the output."""
        return self.asked.json

    def run(self) -> Outcome:
        """Trains."""
        from pocketclip.recipes.run import taught_online, train_recipe

        asked, config = self.asked, self.asked.config
        require("train", (), device=config.device)
        if asked.online_teacher:
            config = taught_online(config, [parse_teacher(text) for text in asked.online_teacher])
        checkpoint = train_recipe(
            config, data=asked.data, out=asked.out, validation=asked.validation, track=asked.track
        )
        return Outcome(f"checkpoint: {checkpoint}", {"checkpoint": str(checkpoint)})


def _short(count: int) -> str:
    """A count with its unit: 25.6 thousand, 13.1 billion."""
    for size, unit in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _hours(cost: RunCost) -> str:
    if cost.device == "cuda":
        return f"{cost.hours:,.0f} GPU-hours"
    return f"{max(1, round(60 * cost.hours))} min on two cores"


def _table(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, samples, time, about in rows:
        yield f"{name:<{widths[0]}}  {samples:>{widths[1]}}  {time:>{widths[2]}}  {about}".rstrip()
