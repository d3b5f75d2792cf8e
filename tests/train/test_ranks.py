"""Two processes train what one would with the double batch, in both ways to share the work, and go on after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pocketclip.checkpoint import load, unstructure
from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig, read_journal, saved_states
from pocketclip.reinforce import ReinforceConfig, reinforce
from pocketclip.teachers import TeacherSpec
from pocketclip.train import ObjectiveConfig, TrainConfig, train

torch.set_num_threads(1)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reinforced(teachers, shapes, tmp_path_factory):
    out = tmp_path_factory.mktemp("reinforced") / "data"
    specs = tuple(TeacherSpec(name=name, source=str(path)) for name, path in teachers.items())
    reinforce(shapes, out, config=ReinforceConfig(teachers=specs, num_views=2))
    return out


def config(*, batch_size, num_steps=20, **loop):
    return TrainConfig(
        name="ranks",
        variant="pocketclip_tiny",
        stream=StreamConfig(batch_size=batch_size, replay=True, synthetic="rule"),
        objective=ObjectiveConfig(distill_weight=0.7, synthetic_weight=1.0),
        optim=OptimConfig(lr_peak=1e-3, warmup_steps=5),
        loop=LoopConfig(num_steps=num_steps, log_every=1, save_every=10, average_decay=0.9, **loop),
    )


def torchrun(*jobs):
    arguments = [{**job, "config": unstructure(job["config"]), **paths(job)} for job in jobs]
    # fmt: off
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            str(Path(__file__).with_name("ranks.py")), json.dumps(arguments),
        ],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    # fmt: on


def paths(job):
    return {name: str(job[name]) for name in ("data", "out")}


def curve(out):
    return [record["loss"] for record in read_journal(out / "metrics.jsonl") if "loss" in record]


def weights(out):
    return load(out / "checkpoint.safetensors").model.state_dict()


def test_two_ranks_are_one_with_the_double_batch(reinforced, tmp_path):
    ways = {"ddp": {}, "fsdp2": {"parallel": "fsdp2"}, "parts": {"parts": 2}}
    jobs = [
        {"config": config(batch_size=8, **loop), "data": reinforced, "out": tmp_path / way}
        for way, loop in ways.items()
    ]
    done = torchrun(*jobs)
    assert done.returncode == 0, done.stderr
    train(config(batch_size=16), data=reinforced, out=tmp_path / "one")
    one = weights(tmp_path / "one")
    for way in ("ddp", "fsdp2"):
        assert curve(tmp_path / way) == pytest.approx(curve(tmp_path / "one"), rel=1e-5)  # measured 1.1e-6
        # Adam makes full steps of gradients that are zero but for rounding: single weights wander, most do not.
        for name, value in weights(tmp_path / way).items():
            assert (value - one[name]).abs().double().mean() < 2e-4, name
    # Parts have statistics of their own in BatchNorm: near, not equal.
    assert curve(tmp_path / "parts")[0] == pytest.approx(curve(tmp_path / "one")[0], rel=0.2)
    assert len(curve(tmp_path / "parts")) == 20


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_run_of_two_ranks_goes_on_after_a_kill_bit_for_bit(reinforced, tmp_path, parallel):
    run = config(batch_size=8, num_steps=8, parallel=parallel, evaluate_every=1, keep_states=1)
    run = TrainConfig(**{**run.__dict__, "loop": LoopConfig(**{**run.loop.__dict__, "save_every": 3})})
    whole = {"config": run, "data": reinforced, "out": tmp_path / "whole"}
    killed = {"config": run, "data": reinforced, "out": tmp_path / "killed", "steps": 5}
    ended = torchrun(killed)
    assert ended.returncode != 0
    assert [path.name for path in saved_states(tmp_path / "killed" / "states")] == [
        "step-00000003.safetensors"
    ]
    done = torchrun({**killed, "steps": None}, whole)
    assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == other
    assert curve(tmp_path / "whole") == curve(tmp_path / "killed")


def test_torchrun_and_its_processes_killed_at_random_steps_change_nothing(reinforced):
    script = Path(__file__).parents[2] / "benchmarks" / "killed.py"
    command = [sys.executable, str(script), "--data", str(reinforced), "--num-steps", "12", "--kills", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed at step") == 2
    assert "checkpoints: equal" in done.stdout
