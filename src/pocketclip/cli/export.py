"""`pocketclip export` and `pocketclip parity`: a checkpoint leaves for devices, and is held against what left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome, UsageError

if TYPE_CHECKING:
    from pocketclip.checkpoint import Loaded
    from pocketclip.export import ExportConfig, ExportRow, Material, ParityReport, TowerParity

_JUDGED = 256
_NAMED = 3  # pictures that cannot be read


@dataclass(frozen=True, kw_only=True)
class Export:
    """Fold a checkpoint and write its towers for devices; published only if they agree with the checkpoint.

    One target in one precision becomes the folder OUT; several become OUT/TARGET-PRECISION, side by side in a table.

    Examples:
        pocketclip export runs/kd/checkpoint.safetensors exported/
        pocketclip export runs/kd/checkpoint.safetensors exported/ --to openvino --precision int8 --data emoji/
        pocketclip export runs/kd/checkpoint.safetensors site/ --to web --pictures photos/
        pocketclip export runs/kd/checkpoint.safetensors model/ --host transformers.js
        pocketclip export CKPT out/ --to onnx,openvino,coreml --precision fp32,fp16,int8 --data emoji/
    """

    checkpoint: Positional[Path]
    """File written by `pocketclip train`."""
    out: Positional[Path]
    """Folder for the towers, tokenizer.json and manifest.json."""
    to: Annotated[str, arg(metavar="TARGET,...")] = "onnx"
    """Formats: onnx, openvino, coreml, executorch, litert, pt2, web (a page that runs the model in the browser)."""
    host: Literal["none", "open_clip", "transformers.js", "sentence-transformers", "immich"] = "none"
    """Lay the folder out for another program instead; --to is onnx then, or not needed."""
    precision: Annotated[str, arg(metavar="PRECISION,...")] = "fp32"
    """fp32, fp16, bf16, int8 (calibrated), int8-weights."""
    data: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Folder written by `pocketclip pack`: pictures and captions that int8 is calibrated on and the gate judges by."""
    labels: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Text file, a class a line, that goes into the folder."""
    pictures: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Folder of pictures that the page of `--to web` can search."""
    towers: Annotated[tuple[str, ...], arg(metavar="TOWER ...")] = ("image", "text")
    """image, text or both."""
    pixels: Literal["float32", "uint8"] = "float32"
    """What the image tower takes: normalised pixels, or 8-bit ones that it normalises itself."""
    table: Literal["same", "int4"] = "same"
    """The text tower's token table: in the precision of the rest, or in 4 bits (onnx, openvino)."""
    tune: Annotated[int, arg(metavar="STEPS")] = 0
    """Steps of self-distillation with rounding in the forward pass, before int8."""
    opset: int = 20
    """ONNX operator set."""
    force: bool = False
    """Publish what the gate refuses, marked as failed."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Exports."""
        require("export", ("train",))
        from pocketclip.checkpoint import load
        from pocketclip.export import ExportConfig, Precision, Target, export, export_all

        targets = _listed(self.to, get_args(Target), what="--to")
        precisions = _listed(self.precision, get_args(Precision), what="--precision")
        if self.pictures is not None and "web" not in targets:
            raise UsageError("--pictures is for the page of --to web")
        loaded = load(self.checkpoint)
        config = ExportConfig(
            towers=self.towers,
            pixels=self.pixels,
            table=self.table,
            tuning_steps=self.tune,
            opset=self.opset,
            force=self.force,
        )
        material = self._material(config)
        if self.host != "none":
            return self._for_host(loaded, config, material, targets=targets, precisions=precisions)
        if len(targets) == len(precisions) == 1:
            one = replace(config, target=targets[0], precision=precisions[0])
            report = export(loaded, self.out, config=one, material=material)
            return _said(self.out, report, target=one.target)
        rows = export_all(
            loaded,
            self.out,
            targets=targets,
            precisions=precisions,
            config=config,
            material=material,
            announce=lambda line: print(line, file=sys.stderr, flush=True),
        )
        is_refused = any(row.verdict == "refused" for row in rows)
        return Outcome(table(rows), {"exports": [row.to_json() for row in rows]}, code=int(is_refused))

    def _for_host(
        self,
        loaded: Loaded,
        config: ExportConfig,
        material: Material,
        *,
        targets: list[Any],
        precisions: list[Any],
    ) -> Outcome:
        from pocketclip.export.hosts import export_for

        if targets != ["onnx"] or len(precisions) != 1 or self.host == "none":
            raise UsageError("--host takes one --precision, and no --to")
        one = replace(config, precision=precisions[0])
        report = export_for(loaded, self.out, host=self.host, config=one, material=material)
        if report is None:
            return Outcome(f"wrote the weights to {self.out}, for {self.host}", {"host": self.host})
        said = _said(self.out, report, target="onnx")
        return Outcome(f"{said.text}\nlaid out for {self.host}", said.values)

    def _material(self, config: ExportConfig) -> Material:
        from pocketclip.export import Material, read_pairs, splits_for

        labels = tuple(self.labels.read_text(encoding="utf-8").split("\n")) if self.labels else ()
        labels = tuple(label.strip() for label in labels if label.strip())
        if self.data is None:
            return Material(labels=labels, pictures=self.pictures)
        calibrate, judge = splits_for(self.data)
        return Material(
            judged_by=read_pairs(self.data, splits=judge, num=_JUDGED, seed=config.seed),
            calibrated_on=read_pairs(
                self.data, splits=calibrate, num=config.num_calibration, seed=config.seed + 1
            ),
            labels=labels,
            pictures=self.pictures,
        )


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Hold an exported folder against the checkpoint it came from; exit code 1 if they differ.

    Says what differs: preprocessing, tokenizer, or which layers.

    Example:
        pocketclip parity runs/kd/checkpoint.safetensors exported/ --data emoji/
    """

    checkpoint: Positional[Path]
    """File written by `pocketclip train`."""
    folder: Positional[Path]
    """Folder written by `pocketclip export`."""
    data: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Folder written by `pocketclip pack`: pictures and captions to judge by."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Compares."""
        require("parity", ("train",))
        from pocketclip.checkpoint import load
        from pocketclip.export import check, read_pairs, splits_for

        loaded: Loaded = load(self.checkpoint)
        pairs = None
        if self.data is not None:
            pairs = read_pairs(self.data, splits=splits_for(self.data)[1], num=_JUDGED, seed=0)
        report = check(loaded, self.folder, judged_by=pairs)
        verdict = "agrees with" if report.passed else "differs from"
        lines = [f"{self.folder} {verdict} {self.checkpoint}:", str(report), *report.disagreements()]
        lines += [f"{one.tower} {one.layer}: cosine {one.cosine:.4f}" for one in report.layers[:5]]
        return Outcome("\n".join(lines), report.to_json(), code=int(not report.passed))


def table(rows: Sequence[ExportRow]) -> str:
    """Targets by precisions: size, parity, latency, verdict; reasons of refusals below."""
    head = ("target", "precision", "MB", "image cos", "text cos", "top-1", "image ms", "text ms", "verdict")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    reasons = [f"{row.target} {row.precision}: {row.reason}" for row in rows if row.reason]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


def _cells(row: ExportRow) -> tuple[str, ...]:
    worst = [_worst(row.report, tower) if row.report else None for tower in ("image", "text")]
    agreed = row.report.agreement if row.report else None
    return (
        row.target,
        row.precision,
        "-" if row.num_megabytes is None else f"{row.num_megabytes:.1f}",
        *("-" if one is None or one.min_cosine is None else f"{one.min_cosine:.5f}" for one in worst),
        "-" if agreed is None else f"{agreed.top1:.3f}",
        *(f"{row.latency_ms[tower]:.2f}" if tower in row.latency_ms else "-" for tower in ("image", "text")),
        row.verdict,
    )


def _worst(report: ParityReport, tower: str) -> TowerParity | None:
    """What a browser gave, where one did; else what ran here."""
    return report.worst(f"browser {tower}") or report.worst(tower)


def _said(out: Path, report: ParityReport, *, target: str) -> Outcome:
    if not report.was_run:
        text = (
            f"exported to {out}; nothing on this machine runs it, so it was not compared with the checkpoint"
        )
        return Outcome(text, report.to_json())
    verdict = (
        "it agrees with the checkpoint" if report.passed else "it FAILED the gate, and is marked as failed"
    )
    lines = [f"exported to {out}; {verdict}:"]
    towers = dict.fromkeys(entry.tower for entry in report.towers)
    worst = {tower: report.worst(tower) for tower in towers}
    lines += [f"{tower:6} {one.numbers()}" for tower, one in worst.items() if one is not None]
    if (agreed := report.agreement) is not None:
        lines.append(
            f"on {agreed.num_pairs} real pairs: same best caption {agreed.top1:.1%}, overlap of the ten best "
            f"{agreed.recall10:.1%}, same of 20 classes {agreed.zero_shot:.1%}, margin {agreed.margin:.3f}"
        )
    if target == "web":
        if not any(tower.startswith("browser") for tower in towers):
            lines.append(
                "the page was not run in a browser: install playwright and a Chromium, and `pocketclip parity` runs it"
            )
        lines += _unreadable(out)
        lines.append(f"look at it: python -m http.server --directory {out}, then open http://localhost:8000")
    return Outcome("\n".join(lines), report.to_json())


def _unreadable(out: Path) -> list[str]:
    """Pictures that are not in the page's index, and why; the first few."""
    from pocketclip.runtime.manifest import read_manifest

    found = read_manifest(out).settings.get("unreadable")
    sentences = [str(one) for one in found] if isinstance(found, list) else []
    if not sentences:
        return []
    more = [f"and {len(sentences) - _NAMED} more"] if len(sentences) > _NAMED else []
    return [f"pictures that cannot be read, {len(sentences)}: {'; '.join([*sentences[:_NAMED], *more])}"]


def _listed(text: str, known: tuple[str, ...], *, what: str) -> list[Any]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UsageError(f"{what} is {text!r}: it must list some of {', '.join(known)}")
    return list(dict.fromkeys(names))
