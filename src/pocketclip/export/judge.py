"""A checkpoint on the witness stand: its embeddings of the probes, its towers traced, each worked out once."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from pocketclip.checkpoint import Loaded
from pocketclip.export.config import ExportConfig
from pocketclip.export.pairs import Pairs
from pocketclip.export.parity import embed_reference
from pocketclip.export.probes import PROBE_TEXTS, Probes, make_pictures
from pocketclip.export.towers import INPUT_NAMES, build_tower
from pocketclip.export.tune import tune


@dataclass
class Judge:
    """What many exports of one checkpoint share.

    Attributes:
        loaded: the checkpoint.
        probes: given pairs first, then made-up ones.
        scratch: a folder for traced towers, as long as the judge sits.
    """

    loaded: Loaded
    probes: Probes
    scratch: Path
    _traced: dict[tuple[str, str, int, int], Path] = field(default_factory=dict)
    _tuned: dict[tuple[str, str, int], nn.Module] = field(default_factory=dict)

    @cached_property
    def expected(self) -> dict[str, npt.NDArray[np.float32]]:
        """The checkpoint's embeddings of the probes: tower -> float32 [N, D].

        Raises:
            ParityError: see `embed_reference`.
        """
        return embed_reference(self.loaded, self.probes)

    def tower(
        self, role: str, *, config: ExportConfig, inputs: npt.NDArray[np.generic]
    ) -> tuple[nn.Module, Tensor]:
        """A tower as it is exported, tuned for int8 where that is configured, and an example of its input.

        Args:
            role: "image" or "text".
            config: pixels and steps of tuning.
            inputs: that it is tuned on, as the tower takes them [N, ...].
        """
        tower, example = build_tower(self.loaded, role, pixels=config.pixels)
        if not config.tunes:
            return tower, example
        key = (role, config.pixels, config.tunes)
        if key not in self._tuned:
            self._tuned[key] = tune(tower, inputs, steps=config.tunes, seed=config.seed)
        return self._tuned[key], example

    def traced(
        self, role: str, *, pixels: Literal["float32", "uint8"], opset: int, tuning_steps: int = 0
    ) -> Path:
        """A tower as float32 ONNX; not to be changed. Where it is tuned, `tower` comes first."""
        from pocketclip.export.onnx_graph import trace  # needs the `onnx` extra

        key = (role, pixels if role == "image" else "", opset, tuning_steps)
        if key not in self._traced:
            path = self.scratch / f"{'-'.join(map(str, key))}.onnx"
            tower, example = build_tower(self.loaded, role, pixels=pixels)
            tower = self._tuned[role, pixels, tuning_steps] if tuning_steps else tower
            trace(tower, example, path, input_name=INPUT_NAMES[role], opset=opset)
            self._traced[key] = path
        return self._traced[key]


@contextmanager
def sit(loaded: Loaded, *, pairs: Pairs, num_pictures: int, seed: int) -> Generator[Judge, None, None]:
    """A judge, whose scratch files go when it is done.

    Args:
        loaded: the checkpoint.
        pairs: real pictures and captions.
        num_pictures: made-up pictures besides.
        seed: of these.
    """
    probes = Probes(
        images=(*pairs.images, *make_pictures(num_pictures, seed=seed)),
        texts=(*pairs.texts, *PROBE_TEXTS),
        num_pairs=len(pairs),
    )
    with tempfile.TemporaryDirectory(prefix="pocketclip-export-") as scratch:
        yield Judge(loaded, probes, Path(scratch))
