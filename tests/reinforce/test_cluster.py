"""Two actors of a local Ray cluster: killed and started again they end in the bytes of this process alone.

POCKETCLIP_TEST_KILLS=10 pytest tests/reinforce/test_cluster.py kills ten times instead of four.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("ray")

from tests.conftest import shape_samples

from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.shard import write_shard
from pocketclip.reinforce import reinforce

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("POCKETCLIP_TEST_KILLS", "4"))
PATIENCE_S = 240.0  # of a busy machine; a quiet one starts a cluster in 6 s


def write_folder(folder, *, num_shards, per_shard=4):
    samples = shape_samples(num_shards * per_shard)
    entries = tuple(
        write_shard(
            folder / "train" / f"{number:06d}.tar", samples[number * per_shard : (number + 1) * per_shard]
        )
        for number in range(num_shards)
    )
    write_index(folder, ShardIndex(source="shapes", splits={"train": entries}))
    return folder


def command(data, out, config, *options):
    """The command line of the same reinforcement."""
    teachers = [f"{spec.name}={spec.source}" for spec in config.teachers]
    settings = {"views": config.num_views, "batch-size": config.batch_size, "threads": config.num_threads}
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    arguments = [
        "reinforce",
        data,
        out,
        "--teacher",
        *teachers,
        *flags,
        "--engine",
        "ray",
        "--no-dashboard",
        *options,
    ]
    return [sys.executable, "-m", "pocketclip", *map(str, arguments)]


@pytest.fixture
def start():
    """Starts a command; what still runs after the test is killed."""
    started = []

    def start(*arguments, seconds="0", **environment):
        process = subprocess.Popen(
            command(*arguments),
            env={**os.environ, "OMP_NUM_THREADS": "1", "POCKETCLIP_TEST_SECONDS": seconds, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): timeless(path) if path.suffix == ".jsonl" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def timeless(path):
    changing = ("seconds", "cost", "engine", "earlier_failures")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: row[name] for name in row if name not in changing} for row in rows]


def descendants(pid):
    """Processes that come from this one, by their command lines, without those that have ended."""
    parents, lines = {}, {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            number = int(folder.name)
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[number] = int(parent)
                lines[number] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    found, new = {}, {pid}
    while new:
        new = {number for number, parent in parents.items() if parent in new and number not in found}
        found |= {number: lines[number] for number in new}
    return found


def wait_until(condition, *, of=None, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        assert of is None or of.poll() is None, of.communicate()[1]
        time.sleep(0.02)


def num_done(out):
    return len(list(out.glob(".done/train/*.json")))


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in _state(pid)]


def _state(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def kill(process, kind, *, rng, out):
    """Kills driver or worker at a random moment after the run made some progress; True when the run is over."""
    before = num_done(out)
    wait_until(lambda: num_done(out) > before or (out / "index.json").exists(), of=process)
    time.sleep(rng.uniform(0, 0.8))
    workers = [pid for pid, line in descendants(process.pid).items() if line.startswith("ray::Worker")]
    if kind == "worker":
        os.kill(rng.choice(workers), signal.SIGKILL)
        return False
    process.send_signal(signal.SIGTERM if kind == "terminate" else signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE_S)
    if kind == "terminate":
        assert process.returncode == 130, err
        assert err.rstrip().endswith("error: interrupted; the same command goes on from what is whole")
        assert not (out / ".partial").exists()
    # No worker outlives its driver. (Ray's own agents take a minute or two to see that it is gone.)
    wait_until(lambda: not alive(workers), seconds=60)
    return True


def test_killed_at_random_moments_it_ends_in_the_bytes_of_one_process(plain_config, tmp_path, start):
    data = write_folder(tmp_path / "data", num_shards=6 * KILLS)
    reinforce(data, tmp_path / "whole", config=plain_config)
    out, rng = tmp_path / "out", random.Random(11)
    arguments = (data, out, plain_config, "--min-workers", "2", "--max-workers", "2")
    kinds = (["driver", "worker", "terminate", "worker"] * 3)[:KILLS]
    process = start(*arguments, seconds="0.15")
    for kind in kinds:
        if kill(process, kind, rng=rng, out=out):
            process = start(*arguments, seconds="0.15")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "2 to 2 workers on Ray" in err
    assert contents(out) == contents(tmp_path / "whole")
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(manifest) == 6 * KILLS
    assert {row["engine"] for row in manifest} == {"ray"}
    died = [reason for row in manifest for reason in row["earlier_failures"]]
    assert all(reason.startswith("its worker died") for reason in died)


def test_a_straggler_does_not_hold_up_the_rest_and_actors_come_and_go(plain_config, tmp_path, start):
    data = write_folder(tmp_path / "data", num_shards=6)
    reinforce(data, tmp_path / "whole", config=plain_config)
    out = tmp_path / "out"
    # The first batch of all hangs, in whichever worker has it.
    once = {"POCKETCLIP_TEST_ONCE": str(tmp_path / "once")}
    options = ("--min-workers", "1", "--max-workers", "2", "--straggler", "2")
    process = start(data, out, plain_config, *options, seconds="1000", **once)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert (tmp_path / "once").exists()
    assert "by=2 workers" in err
    assert contents(out) == contents(tmp_path / "whole")


def test_what_is_wrong_is_said_as_in_one_process(plain_config, tmp_path, pack_shapes):
    data = pack_shapes(tmp_path / "data", train=4)
    process = subprocess.run(
        [*command(data, tmp_path / "out", plain_config), "--teacher", "gone=gone.safetensors"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert process.returncode == 1
    last = process.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: teacher gone: gone.safetensors does not exist: give a checkpoint")
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "out").exists()
