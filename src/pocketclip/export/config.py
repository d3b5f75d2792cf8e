"""How to export: targets, precisions, and what the parity gate runs and allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

Target: TypeAlias = Literal["onnx", "openvino", "coreml", "executorch", "litert", "pt2", "web"]
"""Format of the towers."""

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8", "int8-weights"]
"""fp16: weights and arithmetic, but for what overflows; bf16: arithmetic of weights that stay fp32; int8: static, with
calibration, but for layers that it hurts; int8-weights: weights in int8, arithmetic as in fp32."""

PRECISIONS: Mapping[Target, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8", "int8-weights"),
    "coreml": ("fp32", "fp16", "int8-weights"),
    "executorch": ("fp32", "int8"),
    "litert": ("fp32", "int8-weights"),
    "pt2": ("fp32", "fp16"),
    "web": ("fp32", "fp16", "int8"),
}
"""What can be written."""

TokenTable: TypeAlias = Literal["same", "int4"]
"""How the token table of a text tower is kept: as the precision says, or in 4 bits."""

FOUR_BIT_TABLES: tuple[Target, ...] = ("onnx", "openvino")
"""Targets that can keep the token table in 4 bits."""

CALIBRATED: tuple[Precision, ...] = ("int8",)
"""Precisions that need real pictures and captions."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What the gate allows, for the worst probe or the whole set.

    Attributes:
        min_cosine: of an exported embedding with the checkpoint's, for the worst probe.
        mean_cosine: the same, over all probes.
        max_difference: of any channel of any unit-norm embedding.
        top1: share of pictures whose best caption is the checkpoint's, 0 to 1.
        recall10: mean overlap of the ten best captions with the checkpoint's, 0 to 1.
        zero_shot: share of pictures whose best of 20 captions is the checkpoint's, 0 to 1.
        margin: mean distance of the best caption from the second, as a share of the checkpoint's.
    """

    min_cosine: float
    mean_cosine: float
    max_difference: float
    top1: float
    recall10: float
    zero_shot: float
    margin: float

    def __post_init__(self) -> None:
        for name in ("min_cosine", "mean_cosine", "top1", "recall10", "zero_shot", "margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 0 to 1")
        if self.max_difference < 0:
            raise ValueError(f"max_difference is {self.max_difference}: it must not be negative")


ALLOWED: Mapping[Precision, Allowed] = {
    "fp32": Allowed(
        min_cosine=0.99999,
        mean_cosine=0.99999,
        max_difference=1e-4,
        top1=0.99,
        recall10=0.99,
        zero_shot=0.99,
        margin=0.99,
    ),
    "fp16": Allowed(
        min_cosine=0.999,
        mean_cosine=0.9995,
        max_difference=0.02,
        top1=0.98,
        recall10=0.98,
        zero_shot=0.99,
        margin=0.95,
    ),
    "bf16": Allowed(
        min_cosine=0.998,
        mean_cosine=0.999,
        max_difference=0.03,
        top1=0.97,
        recall10=0.97,
        zero_shot=0.98,
        margin=0.95,
    ),
    "int8-weights": Allowed(
        min_cosine=0.98,
        mean_cosine=0.99,
        max_difference=0.1,
        top1=0.95,
        recall10=0.95,
        zero_shot=0.97,
        margin=0.9,
    ),
    "int8": Allowed(
        min_cosine=0.95,
        mean_cosine=0.985,
        max_difference=0.15,
        top1=0.92,
        recall10=0.92,
        zero_shot=0.95,
        margin=0.85,
    ),
}
"""Thresholds of each precision; agreement counts only where real pictures and captions are given."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Configuration of an export.

    Attributes:
        target: format of the towers.
        precision: of weights and arithmetic.
        towers: those that are written.
        pixels: what the image tower takes: "float32" for normalised BCHW, "uint8" for 8-bit BHWC that the graph
            normalises itself.
        opset: ONNX operator set.
        force: publish what the gate refuses, marked as failed.
        batch_sizes: the exported towers are run on every probe in batches of each of these.
        num_pictures: seeded pictures that are made up for the gate, besides those given.
        num_calibration: pictures and captions, of those given, that int8 is calibrated on.
        max_sensitive: layers, worst first, that int8 may leave in float32 so that the gate passes.
        table: how the token table of the text tower is kept: as `precision` says, or in 4 bits, where `FOUR_BIT_TABLES`
            has the target (and not with fp16). It is many of a small model's bytes, and is looked up, not multiplied.
        tuning_steps: of self-distillation with rounding in the forward pass, where the precision is int8.
        seed: of made-up pictures and of choices among those given.
        allowed: what the gate allows; None for that of the precision.
    """

    target: Target = "onnx"
    precision: Precision = "fp32"
    towers: tuple[str, ...] = ("image", "text")
    pixels: Literal["float32", "uint8"] = "float32"
    opset: int = 20
    force: bool = False
    batch_sizes: tuple[int, ...] = (1, 2, 7)
    num_pictures: int = 14
    num_calibration: int = 128
    max_sensitive: int = 12
    table: TokenTable = "same"
    tuning_steps: int = 0
    seed: int = 0
    allowed: Allowed | None = field(default=None)

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ValueError(f"target is {self.target!r}: it must be one of {', '.join(get_args(Target))}")
        if self.precision not in PRECISIONS[self.target]:
            raise ValueError(
                f"precision is {self.precision!r}: {self.target} is written in {', '.join(PRECISIONS[self.target])}"
            )
        if not self.towers or set(self.towers) - {"image", "text"}:
            raise ValueError(f"towers is {self.towers}: it must hold image, text or both")
        if self.target == "web" and set(self.towers) != {"image", "text"}:
            raise ValueError(f"towers is {self.towers}: a page needs image and text")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"batch_sizes is {self.batch_sizes}: it must hold at least one number above 0")
        if self.num_pictures < max(self.batch_sizes):
            raise ValueError(
                f"num_pictures is {self.num_pictures}: it must fill the largest batch, {max(self.batch_sizes)}"
            )
        if not 18 <= self.opset <= 23:
            raise ValueError(f"opset is {self.opset}: it must be 18 to 23")
        if self.num_calibration < 1 or self.max_sensitive < 0:
            raise ValueError("num_calibration must be at least 1 and max_sensitive not negative")
        if self.tuning_steps < 0:
            raise ValueError(f"tuning_steps is {self.tuning_steps}: it must not be negative")

    @property
    def tunes(self) -> int:
        """Steps of tuning for this precision."""
        return self.tuning_steps if self.precision == "int8" else 0

    @property
    def has_small_table(self) -> bool:
        """Whether the token table is kept in 4 bits, for this target and precision."""
        return self.table == "int4" and self.target in FOUR_BIT_TABLES and self.precision != "fp16"

    @property
    def gate(self) -> Allowed:
        """What the gate allows."""
        return self.allowed or ALLOWED[self.precision]
