"""Batches that processes build are those of threads, to the byte, whatever happens to the processes."""

import gc
import os
import signal
import subprocess
import time
import warnings
from collections import Counter, deque
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from tests.conftest import shape_samples

from pocketclip.data.index import split_shards
from pocketclip.data.shard import write_shard
from pocketclip.data.stream import Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig

TOKENIZER = Tokenizer(TokenizerConfig(vocab_size=600, context_length=64))


def open_stream(shards, *, position=None, extra_px=(), **config):
    config = StreamConfig(**{"batch_size": 8, "image_px": 24, "num_workers": 1, **config})
    return Stream(shards, config=config, tokenizer=TOKENIZER, position=position, extra_px=extra_px)


def take(num, shards, **more):
    with open_stream(shards, **more) as stream:
        return [fingerprint(batch) for batch in islice(stream, num)]


def fingerprint(batch):
    """Every byte of a batch."""
    arrays = [batch.pixels_BHWC, batch.tokens_BL, batch.synthetic_BL, *batch.extra_BHWC.values()]
    for rows in batch.stored.values():
        arrays += [rows.image_BD, rows.text_BD, rows.synthetic_BD]
    described = [
        None if array is None else (array.shape, str(array.dtype), array.tobytes()) for array in arrays
    ]
    return batch.keys, batch.captions, batch.synthetic_captions, batch.dropped, tuple(batch.stored), described


def exhaust(batches):
    """Takes what is built ahead, and more."""
    deque(islice(batches, 12), maxlen=0)


def worker_pids():
    """Processes of ours that build batches."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], stdout=subprocess.PIPE, text=True
    )
    lines = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    return [int(pid) for pid, arguments in lines if "pocketclip.data.worker" in arguments]


@pytest.fixture
def shards(tmp_path):
    paths = [tmp_path / "train" / f"{number:06d}.tar" for number in range(2)]
    for path in paths:
        write_shard(path, shape_samples(20, prefix=path.stem))
    return paths


@pytest.mark.parametrize(
    "more", [{"num_workers": 1}, {"num_workers": 2, "sizes_px": (24, 40), "cache_mb": 8}]
)
def test_processes_build_what_threads_build(shards, more):
    config = {"synthetic": "rule", "extra_px": (17,), "seed": 5, **more}
    assert take(12, shards, **config) == take(12, shards, **{**config, "num_workers": 0})


def test_stored_views_and_rows_come_through_processes(reinforced):
    shards = split_shards(reinforced, "train")
    config = {"replay": True, "synthetic": "rule", "batch_size": 16}
    assert take(7, shards, **config) == take(7, shards, num_workers=0, **config)


def test_batches_that_are_kept_keep_their_bytes(shards):
    with open_stream(shards) as stream:
        batches = list(islice(stream, 9))
        kept = [fingerprint(batch) for batch in batches]
        assert kept == take(9, shards, num_workers=0)
        batches[0].pixels_BHWC[:] = 0  # theirs alone
        assert [fingerprint(batch) for batch in batches[1:]] == kept[1:]
    assert [fingerprint(batch) for batch in batches[1:]] == kept[1:]


def test_a_stream_can_be_taken_up_again(shards):
    expected = take(6, shards, num_workers=0)
    with open_stream(shards) as stream:
        found = [fingerprint(batch) for _ in range(3) for batch in islice(stream, 2)]
    assert found == expected


def test_damage_is_dropped_and_named_in_processes_too(tmp_path):
    samples = shape_samples(16)
    samples[3] = replace(samples[3], image=samples[3].image[:60])
    write_shard(path := tmp_path / "train" / "000000.tar", samples)
    with open_stream([path]) as stream:
        found = [fingerprint(batch) for batch in islice(stream, 2)]
        (dropped,) = stream.dropped.values()
    assert dropped.source == "train/000000.tar: sample0003"
    assert found == take(2, [path], num_workers=0)


def test_an_error_of_a_process_is_raised_here(tmp_path):
    samples = [replace(sample, image=sample.image[:60]) for sample in shape_samples(8)]
    write_shard(path := tmp_path / "train" / "000000.tar", samples)
    with pytest.raises(ValueError, match=r"none of the 8 samples .*sample000\d: .*damaged") as error:
        take(1, [path])
    assert "In a process that builds batches" in error.value.__notes__[0]


def test_a_killed_process_is_told_and_replaced_and_no_byte_differs(shards):
    def taken_while_processes_are_killed():
        with open_stream(shards, num_workers=2) as stream:
            for number, batch in enumerate(islice(stream, 24)):
                yield fingerprint(batch)
                if number in (3, 12):
                    os.kill(worker_pids()[0], signal.SIGKILL)
            assert len(worker_pids()) == 2

    killed = "killed by SIGKILL .*another one has taken its place"
    with pytest.warns(UserWarning, match=killed) as told:
        found = list(taken_while_processes_are_killed())
    assert found == take(24, shards, num_workers=0)
    assert len(told) == 2


def test_processes_that_keep_dying_stop_the_run(shards, monkeypatch):
    with open_stream(shards) as stream:
        batches = iter(stream)
        next(batches)
        at_once = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        monkeypatch.setattr("pocketclip.data.workers._WORKER", at_once)
        os.kill(worker_pids()[0], signal.SIGKILL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(
                ChildProcessError, match="3 processes .* were killed .*lower stream.num_workers"
            ):
                exhaust(batches)


def test_a_process_that_fails_stops_the_run(shards, monkeypatch):
    monkeypatch.setattr("pocketclip.data.workers._WORKER", ("-c", "raise SystemExit(3)"))
    with (
        open_stream(shards) as stream,
        pytest.raises(ChildProcessError, match=r"has failed \(exit status 3;"),
    ):
        next(iter(stream))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_is_deleted_or_changed_under_a_run_is_named(shards, num_workers):
    with open_stream(shards, num_workers=num_workers, batch_size=16) as stream:
        batches = iter(stream)
        next(batches)
        shards[1].rename(shards[1].with_suffix(".gone"))
        with pytest.raises(
            FileNotFoundError, match=r"000001\.tar was deleted while it was in use: put it back"
        ):
            exhaust(batches)
        shards[1].with_suffix(".gone").rename(shards[1])
        position = stream.position
    expected = take(6, shards, num_workers=0, batch_size=16)
    done = position.epoch * 2 + position.sample // 16
    assert (
        take(2, shards, num_workers=num_workers, batch_size=16, position=position)
        == expected[done : done + 2]
    )
    with open_stream(shards, num_workers=num_workers) as stream:
        next(iter(stream))
        write_shard(shards[0], shape_samples(3))
        with pytest.raises(OSError, match=r"000000\.tar was changed while it was in use"):
            exhaust(iter(stream))


@pytest.mark.filterwarnings("ignore:a process that builds batches was killed by SIGBUS")
def test_a_shard_cut_short_under_a_run_is_named(shards):
    with open_stream(shards, batch_size=20) as stream:
        batches = iter(stream)
        next(batches)
        os.truncate(shards[0], 4096)
        with pytest.raises((ValueError, OSError), match=r"000000\.tar (is cut|was changed)"):
            exhaust(batches)


def test_closing_leaves_no_process_and_no_descriptor(shards):
    def descriptors():
        gc.collect()
        return Counter(path.readlink().name for path in Path("/proc/self/fd").iterdir() if path.is_symlink())

    take(1, shards, num_workers=0)
    before = descriptors()
    with open_stream(shards, num_workers=2) as stream:
        batch = next(iter(stream))
        assert len(worker_pids()) == 2
    assert not worker_pids()
    del stream, batch
    assert sum((descriptors() - before).values()) == 0


def test_processes_end_when_their_parent_is_killed(shards, run_python, tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from pocketclip.data.stream import Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
config = StreamConfig(batch_size=8, image_px=24, num_workers=1)
stream = Stream([Path({str(shards[0])!r})], config=config, tokenizer=Tokenizer(TokenizerConfig(vocab_size=600)))
next(iter(stream))
print(stream._workers._workers[0]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = run_python("-c", code)
    assert ran.code == -signal.SIGKILL, ran.err
    child = Path(f"/proc/{int(ran.out)}")
    deadline = time.monotonic() + 20
    while child.exists() and b"pocketclip.data.worker" in (child / "cmdline").read_bytes():
        assert time.monotonic() < deadline, "the process outlived its parent"
        time.sleep(0.05)
