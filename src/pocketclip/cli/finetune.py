"""`pocketclip finetune`: one command from a folder of pictures to a better model for them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from pocketclip.cli.extras import require
from pocketclip.cli.shards import parse_teacher
from pocketclip.cli.verbs import Outcome


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune a checkpoint on your own pictures and captions, and see what was gained and what was forgotten.

    Packs the pictures, lets the starting checkpoint (and --teacher) reinforce them as a regulariser, trains with early
    stopping on a validation split, and keeps the best point between the old weights and the new. Prints a table of
    before and after on your pictures, and on --general, pictures that are not trained on. Each step is done once: an
    interrupted command goes on where it was. OUT/checkpoint.safetensors is the model, OUT/report.md the report.

    --freeze image          locked-image tuning: only the text tower learns
    --freeze all-but-heads  only the last linear map of each tower learns, as in a linear probe

    Examples:
        pocketclip finetune --data photos/ --from runs/kd/checkpoint.safetensors --out tuned/
        pocketclip finetune --data photos/ --from runs/kd --out tuned/ --general emoji/ --teacher big=B.safetensors
        pocketclip finetune --data photos/ --from hf-hub:apple/MobileCLIP2-S0 --out tuned/ --freeze image
    """

    data: Path
    """Pictures with captions, as `pocketclip pack` reads them, or a packed folder with train and validation."""
    start: Annotated[str, arg(name="from", metavar="CHECKPOINT")]
    """The checkpoint to begin with: a file, a run's folder, hf-hub:ORG/NAME."""
    out: Path
    """Folder for everything."""
    general: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Packed folder that is not trained on, to see what is forgotten."""
    general_split: Annotated[
        tuple[str, ...],
        arg(metavar="SPLIT ...", help_behavior_hint="(default: the test splits, else validation)"),
    ] = ()
    """Splits of --general."""
    teacher: Annotated[
        tuple[str, ...], arg(metavar="NAME=SOURCE[@SCALE] ...", help_behavior_hint="(default: none)")
    ] = ()
    """Teachers besides the starting checkpoint."""
    distill_weight: float = 0.5
    """Weight of the teachers' opinion against that of the captions, from 0 (none) to 1."""
    freeze: Literal["nothing", "image", "text", "all-but-heads"] = "nothing"
    """What keeps its weights."""
    epochs: int = 40
    """Passes over the training pictures, at most."""
    patience: int = 12
    """Epochs without a better validation score after which training ends; 0: never."""
    batch_size: int = 64
    """Pictures of a step."""
    lr: Annotated[float | None, arg(help_behavior_hint="(default: from the checkpoint's own)")] = None
    """Learning rate after warm-up; by default half of what the checkpoint was trained with, scaled to the batch."""
    views: int = 8
    """Augmented views of each picture that the teachers see."""
    validation: float = 0.2
    """Share of a folder of pictures that is kept for validation."""
    seed: int = 0
    """Seed of views, order and draws."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Where models run."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Fine-tunes."""
        require("finetune", ("train",), device=self.device)
        from pocketclip.fit import TrackConfig
        from pocketclip.recipes.finetune import FinetuneConfig, finetune

        config = FinetuneConfig(
            teachers=tuple(parse_teacher(text) for text in self.teacher),
            distill_weight=self.distill_weight,
            freeze=self.freeze,
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            lr_peak=self.lr,
            num_views=self.views,
            validation=self.validation,
            seed=self.seed,
            device=self.device,
        )
        result = finetune(
            self.data,
            start=self.start,
            out=self.out,
            config=config,
            general=self.general,
            general_splits=self.general_split,
            announce=lambda line: print(f"== {line}", file=sys.stderr, flush=True),
            track=TrackConfig(),
        )
        lines = [result.tuned.text(), "", f"checkpoint: {result.checkpoint}", f"report: {result.report}"]
        values = {
            "checkpoint": str(result.checkpoint),
            "report": str(result.report),
            **result.tuned.values(),
        }
        return Outcome("\n".join(lines), values)
