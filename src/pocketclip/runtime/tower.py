"""One tower that runs, whatever runs it.

Shapes: B batch, D embedding.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Tower(Protocol):
    """A network from one batch of inputs to one batch of unit-norm embeddings. Safe to use from several threads."""

    def run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Pixels or tokens [B, ...] -> float32 [B, D].

        Raises:
            TowerError: the network failed.
        """
        ...


class TowerError(ValueError):
    """A network that cannot be loaded or run; the text says why, not where."""
