"""`pocketclip bench`: how fast, how large, how near to what the machine can."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome, UsageError


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure latency, throughput, memory and arithmetic of models, side by side in turns.

    A model is a variant's name (random weights: latency does not depend on them), a checkpoint, or an exported folder.
    Checkpoints are run by torch: eager (as trained), folded, compiled. Exported folders are run by the runtime's
    backends: onnxruntime, openvino and so on. A backend of the runtime that is named for a checkpoint has it exported
    for the occasion. All contenders of a race take turns, round after round, and each is compared with the first of
    its own round, so that other load on the machine hits all alike.

    Examples:
        pocketclip bench MobileCLIP2-S0 MobileCLIP2-S2
        pocketclip bench mine=runs/kd/checkpoint.safetensors MobileCLIP2-S0 --out bench.json --plot bench.png bench.svg
        pocketclip bench MobileCLIP2-S0 --backend folded compiled onnxruntime openvino --precision fp32 bf16
        pocketclip bench MobileCLIP2-S3 mci2_scaled --sweep-resolution 256 512 1024 --plot sweep.svg
    """

    models: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[NAME=]MODEL ...", help_behavior_hint="(required)")
    ]
    """Variants, checkpoints, exported folders."""
    tower: Annotated[tuple[Literal["image", "text"], ...], arg(metavar="image|text ...")] = ("image", "text")
    """Towers, measured apart."""
    backend: Annotated[
        tuple[str, ...],
        arg(
            metavar="BACKEND ...",
            help_behavior_hint="(default: eager folded, and onnxruntime for exported folders)",
        ),
    ] = ()
    """What runs them."""
    precision: Annotated[tuple[Literal["fp32", "bf16", "fp16"], ...], arg(metavar="fp32|bf16|fp16 ...")] = (
        "fp32",
    )
    """Of torch's weights and arithmetic."""
    batch: Annotated[tuple[int, ...], arg(metavar="N ...")] = (1, 16)
    """Pictures or texts at a time: 1 for latency, more for throughput."""
    threads: Annotated[tuple[int, ...], arg(metavar="N ...", help_behavior_hint="(default: one a core)")] = ()
    """Numbers of threads."""
    sweep_resolution: Annotated[
        tuple[int, ...], arg(metavar="PX ...", help_behavior_hint="(default: the model's own)")
    ] = ()
    """Measure the image tower at these sides of the picture, batch 1 unless --batch says otherwise."""
    rounds: int = 10
    """Turns of each contender."""
    turn_seconds: float = 0.3
    """How long a turn lasts; at least one call."""
    warmup: int = 2
    """Calls of each contender before the first round."""
    skip_memory: bool = False
    """Do not measure peak memory, which takes a process for each row."""
    device: str = "cpu"
    """Where torch runs: cpu, cuda."""
    out: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Write everything here as JSON."""
    plot: Annotated[
        tuple[Path, ...], arg(metavar="FILE.png|.svg ...", help_behavior_hint="(default: none)")
    ] = ()
    """Draw it."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Measures."""
        if not self.models:
            raise UsageError("bench needs a model or more, [NAME=]MODEL")
        models = named_models(self.models)
        require("bench", ("train",), device=self.device)
        from pocketclip.bench import BenchConfig, bench
        from pocketclip.bench.plot import check_plot, plot_bench

        given = {"threads": self.threads} if self.threads else {}
        sweep = self.sweep_resolution
        config = BenchConfig(
            towers=("image",) if sweep else self.tower,
            backends=self.backend or (("folded",) if sweep else ("eager", "folded", "onnxruntime")),
            precisions=self.precision,
            batch_sizes=(1,) if sweep and self.batch == (1, 16) else self.batch,
            sizes=sweep,
            rounds=self.rounds,
            turn_seconds=self.turn_seconds,
            warmup=self.warmup,
            memory=not self.skip_memory,
            device=self.device,
            **given,
        )
        if self.plot:
            check_plot(self.plot)
        with tempfile.TemporaryDirectory(prefix="pocketclip-bench-") as scratch:
            exported = _export(models, self.backend, Path(scratch))
            report = bench(models, config=config, exported=exported)
        if not self.backend:  # nobody asked for what a checkpoint is not run by
            report = report.without_left_out()
        if self.out:
            report.write(self.out)
        if self.plot:
            plot_bench(report, self.plot)
        written = [f"written: {path}" for path in (*([self.out] if self.out else []), *self.plot)]
        return Outcome("\n".join([report.table(), *written]), report.values())


def named_models(texts: Sequence[str]) -> dict[str, str]:
    """Name -> what it is, of NAME=MODEL or MODEL.

    Raises:
        UsageError: two of one name.
    """
    models: dict[str, str] = {}
    for text in texts:
        name, _, source = text.rpartition("=")
        name = name or _short(source)
        if name in models:
            raise UsageError(f"two models are called {name}: name them, NAME={source}")
        models[name] = source
    return models


def _short(source: str) -> str:
    """A run's folder for its checkpoint, else the last part."""
    path = Path(source)
    generic = path.stem in ("checkpoint", "results") and path.suffix and path.parent.name
    return path.parent.name if generic else path.name


def _export(models: Mapping[str, str], backends: Sequence[str], scratch: Path) -> dict[str, Path]:
    """Exports checkpoints for the runtime's backends that were asked for."""
    from pocketclip.bench.config import TORCH_BACKENDS
    from pocketclip.runtime.manifest import MANIFEST_FILE

    if not set(backends) - set(TORCH_BACKENDS):
        return {}
    wanted = {name: source for name, source in models.items() if not (Path(source) / MANIFEST_FILE).is_file()}
    if not wanted:
        return {}
    require("bench", ("train", "onnx"))
    from pocketclip.bench.subject import Subject
    from pocketclip.export import export

    folders = {name: scratch / str(number) for number, name in enumerate(wanted)}
    for name, source in wanted.items():
        export(Subject(name, source).loaded, folders[name])
    return folders
