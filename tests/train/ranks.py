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
from pocketclip.fit import joined_ranks
from pocketclip.train import TrainConfig, train


def main() -> None:
    torch.set_num_threads(1)
    with joined_ranks("cpu"):
        for job in json.loads(sys.argv[1]):
            run(job)


def run(job: dict) -> None:
    seen = []

    def evaluate(_model: torch.nn.Module) -> dict[str, float]:
        seen.append(1)
        if len(seen) == job.get("steps"):
            sys.stdout.flush()
            os._exit(7)
        return {"score": float(len(seen))}

    config = structure(job["config"], TrainConfig)
    train(config, data=Path(job["data"]), out=Path(job["out"]), evaluate=evaluate)


main()
