"""int8 of a family-size image tower: trained briefly on real pictures, exported, held against its own float32.

    .venv/bin/python benchmarks/int8.py OUT --reinforced ablation/reinforced --data ablation/emoji
    .venv/bin/python benchmarks/int8.py OUT --data emoji --checkpoint demo/student-reinforced/checkpoint.safetensors

The first trains MCi0, the image tower of MobileCLIP2-S0, with the demo's text tower on the demo's reinforced emoji at
96 pixels (random weights say nothing of int8); a checkpoint that is there is not trained again. Then float32, bfloat16
and int8 of ONNX Runtime and OpenVINO, with and without tuning, as the gate measures them, and last dynamic int8 over
everything, which the gate must refuse. For latency see `pocketclip bench`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from onnxruntime.quantization import quantize_dynamic
from tyro.conf import Positional

from pocketclip.checkpoint import CheckpointConfig, load, save
from pocketclip.cli.export import table
from pocketclip.export import (
    ExportConfig,
    Material,
    ParityError,
    export,
    export_all,
    read_pairs,
    splits_for,
)
from pocketclip.export.targets import onnx_target
from pocketclip.export.towers import TowerRequest
from pocketclip.fit import LoopConfig, OptimConfig
from pocketclip.models import VARIANTS, Clip
from pocketclip.recipes import emoji
from pocketclip.recipes.run import train_recipe
from pocketclip.train import CHECKPOINT_FILE


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to train and where."""

    out: Positional[Path]
    """Everything is kept in it."""
    data: Path
    """Packed emoji."""
    reinforced: Path | None = None
    """The same, reinforced; needed where there is no checkpoint yet."""
    checkpoint: Path | None = None
    """A trained one, instead of training."""
    image_px: int = 96
    """Of the pictures in training and export."""
    steps: int = 240
    """Of training, 64 samples each."""
    tuning_steps: int = 60
    """Of self-distillation before int8, in the second table."""
    num_judged: int = 700
    """Pairs that the gate judges by."""
    threads: int = 2
    """Of the arithmetic."""


def main(arguments: Arguments) -> None:
    """Trains, exports, prints."""
    torch.set_num_threads(arguments.threads)
    loaded = load(arguments.checkpoint or trained(arguments))
    calibrate, judge = splits_for(arguments.data)
    material = Material(
        judged_by=read_pairs(arguments.data, splits=judge, num=arguments.num_judged, seed=0),
        calibrated_on=read_pairs(arguments.data, splits=calibrate, num=128, seed=1),
    )
    for steps in (0, arguments.tuning_steps):
        rows = export_all(
            loaded,
            arguments.out / f"tuned-{steps}",
            targets=["onnx", "openvino"],
            precisions=["int8"] if steps else ["fp32", "bf16", "int8"],
            config=ExportConfig(force=True, tuning_steps=steps, max_sensitive=0, batch_sizes=(1,)),
            material=material,
        )
        print(f"tuned for {steps} steps, {len(material.judged_by)} pairs")
        print(table(rows))
        for row in rows:
            if row.report and row.report.agreement:
                print(f"{row.target} {row.precision}: {row.report.agreement}")
    onnx_target.quantise = everything_dynamic  # ty: ignore[invalid-assignment]
    try:
        export(loaded, arguments.out / "dynamic", config=ExportConfig(precision="int8"), material=material)
    except ParityError as error:
        print(f"dynamic int8 over everything is refused: {error}")
    else:
        print("dynamic int8 over everything passes")


def everything_dynamic(request: TowerRequest, target: Path) -> list[str]:
    """What `quantize_dynamic` does unless told otherwise."""
    quantize_dynamic(str(request.plain()), str(target))
    return []


def trained(arguments: Arguments) -> Path:
    """The checkpoint of the brief training; one that is there is taken."""
    run = arguments.out / "run"
    if (run / CHECKPOINT_FILE).is_file():
        return run / CHECKPOINT_FILE
    if arguments.reinforced is None:
        raise SystemExit("nothing is trained yet: give --reinforced FOLDER")
    start = arguments.out / "start.safetensors"
    start_with(start, image_px=arguments.image_px)
    base = emoji.student_reinforced()
    config = replace(
        base,
        name="benchmark.mci0",
        variant=None,
        start=str(start),
        stream=replace(base.stream, batch_size=64, image_px=arguments.image_px),
        optim=OptimConfig(lr_peak=1.5e-3, warmup_steps=arguments.steps // 5),
        loop=LoopConfig(num_steps=arguments.steps, evaluate_every=0, save_every=40),
    )
    return train_recipe(config, data=arguments.reinforced, validation=None, out=run)


def start_with(path: Path, *, image_px: int) -> None:
    """Random weights: MCi0, and the text tower of the demo's student.

    Its layer scales begin at 0.1: from the published 1e-5 a few hundred steps change nothing.
    """
    small = load("pocketclip_tiny")
    image = replace(VARIANTS["mobileclip2_s0"].model.image, layer_scale_init=0.1)
    model = replace(small.config.model, image=image, embed_dim=256)
    config = CheckpointConfig(
        model=model,
        preprocess=replace(small.config.preprocess, size=image_px),
        tokenizer=small.config.tokenizer,
    )
    torch.manual_seed(0)
    save(path, Clip(model), config=config, tokenizer=small.tokenizer)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
