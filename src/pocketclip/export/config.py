"""How to export: the operator set, and what the parity gate runs and allows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Configuration of an export.

    Attributes:
        opset: ONNX operator set of the towers.
        batch_sizes: the exported towers are run on every probe in batches of each of these.
        num_pictures: seeded pictures that are made up for the gate, besides those given.
        seed: of these pictures.
        min_cosine: of an exported embedding with the checkpoint's, for the worst probe.
        max_difference: of any channel of any unit-norm embedding.
    """

    opset: int = 20
    batch_sizes: tuple[int, ...] = (1, 2, 7)
    num_pictures: int = 14
    seed: int = 0
    min_cosine: float = 0.99999
    max_difference: float = 1e-4

    def __post_init__(self) -> None:
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"batch_sizes is {self.batch_sizes}: it must hold at least one number above 0")
        if self.num_pictures < max(self.batch_sizes):
            raise ValueError(
                f"num_pictures is {self.num_pictures}: it must fill the largest batch, {max(self.batch_sizes)}"
            )
        if not 18 <= self.opset <= 23:
            raise ValueError(f"opset is {self.opset}: it must be 18 to 23")
        if not 0 < self.min_cosine <= 1 or self.max_difference < 0:
            raise ValueError("min_cosine must be in (0, 1] and max_difference not negative")
