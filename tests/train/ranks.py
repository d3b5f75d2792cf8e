"""One of several processes that train together, as torchrun starts them.

    torchrun --nproc-per-node 2 ranks.py JOBS

JOBS is a JSON list of `{"config": ..., "data": ..., "out": ..., "steps": ...}`; `steps` ends a job early, as a kill
would, after that many.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from pocketclip.checkpoint import structure
from pocketclip.train import TrainConfig, train


def main() -> None:
    torch.set_num_threads(1)
    for job in json.loads(sys.argv[1]):
        seen, steps = [], job.get("steps")

        def evaluate(
            _model: torch.nn.Module, *, seen: list = seen, steps: int | None = steps
        ) -> dict[str, float]:
            seen.append(1)
            if len(seen) == steps:
                sys.stdout.flush()
                os._exit(7)
            return {"score": float(len(seen))}

        train(
            structure(job["config"], TrainConfig),
            data=Path(job["data"]),
            out=Path(job["out"]),
            evaluate=evaluate,
        )


main()
