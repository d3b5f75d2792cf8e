"""Is a run of two processes that is killed -9 at random steps the run that nobody disturbed, to the last bit?

    .venv/bin/python benchmarks/killed.py --data REINFORCED
    .venv/bin/python benchmarks/killed.py --data REINFORCED --recipe recipes.mobileclip2.debug_b --kills 3

Starts `torchrun --nproc-per-node 2 -m pocketclip train RECIPE` once undisturbed, and once more in another folder,
where torchrun and both its processes are killed as soon as the run's journal has reached a step drawn at random, ten
times. The same command goes on each time. Prints the steps, and whether checkpoints and loss curves are equal.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro

from pocketclip.fit import read_journal, saved_states


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to kill."""

    data: Path
    """Folder of shards, reinforced ones for a reinforced recipe."""
    recipe: str = "recipes.emoji.debug_student_reinforced"
    """Name of a recipe."""
    num_steps: int = 60
    """Of the run."""
    kills: int = 10
    """Times."""
    seed: int = 0
    """Of the steps."""


def main(arguments: Arguments) -> None:
    """Trains both, prints."""
    rng = random.Random(arguments.seed)
    moments = sorted(rng.sample(range(1, arguments.num_steps), arguments.kills))
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        finish(start(arguments, whole))
        for moment in moments:
            process = start(arguments, killed)
            while last_step(killed) < moment:
                if process.poll() is not None:
                    finish(process)
                    sys.exit(f"the run ended at step {last_step(killed)}, before step {moment}")
                time.sleep(0.01)
            kill(process)
            states = ", ".join(str(int(path.stem.removeprefix("step-"))) for path in states_of(killed))
            print(
                f"killed at step {last_step(killed)} (drawn: {moment}); saved: {states or 'none'}", flush=True
            )
        finish(start(arguments, killed))
        digests = [
            hashlib.sha256((out / "checkpoint.safetensors").read_bytes()).hexdigest()
            for out in (whole, killed)
        ]
        curves = [
            [record["loss"] for record in read_journal(out / "metrics.jsonl")] for out in (whole, killed)
        ]
    print(f"checkpoints: {'equal' if digests[0] == digests[1] else 'different'}, sha256 {' '.join(digests)}")
    print(f"loss curves of {len(curves[0])} steps: {'equal' if curves[0] == curves[1] else 'different'}")
    sys.exit(digests[0] != digests[1] or curves[0] != curves[1])


def start(arguments: Arguments, out: Path) -> subprocess.Popen[str]:
    """The run, in processes of its own."""
    # fmt: off
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pocketclip",
        "train", arguments.recipe, "--data", str(arguments.data), "--out", str(out),
        "--loop.num-steps", str(arguments.num_steps), "--loop.evaluate-every", "0", "--track.no-tensorboard",
    ]
    # fmt: on
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for the run; what it complained of is printed where it failed."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(errors[-3000:])


def kill(process: subprocess.Popen[str]) -> None:
    """torchrun and its children, all by SIGKILL."""
    family = psutil.Process(process.pid)
    for one in (*family.children(recursive=True), family):
        one.kill()
    process.communicate()


def last_step(out: Path) -> int:
    """Of the journal, 0 where there is none yet."""
    path = out / "metrics.jsonl"
    records = read_journal(path) if path.is_file() else []
    return int(records[-1]["step"]) if records else 0


def states_of(out: Path) -> list[Path]:
    """The saved ones."""
    return saved_states(out / "states")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
