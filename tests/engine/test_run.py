"""A verb of a few lines on the engine: its outputs, facts and books are its own, everything else comes with it."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import shape_samples
from tests.engine import counting
from tests.engine.counting import CountConfig, count

from pocketclip.data.index import ShardIndex, read_index, write_index
from pocketclip.data.shard import write_shard
from pocketclip.engine import EngineConfig, FailedShardsError

torch.set_num_threads(1)

WORDS = [3, 2, 7, 4, 5, 2, 3, 3, 6, 7, 7, 2]
CONFIG = CountConfig(least=2, num_threads=1)


@pytest.fixture
def data(tmp_path):
    """Three shards of four samples."""
    samples = [
        replace(sample, captions=(" ".join(["word"] * num),))
        for num, sample in zip(WORDS, shape_samples(12), strict=True)
    ]
    entries = tuple(
        write_shard(tmp_path / "data" / "train" / f"{number:06d}.tar", samples[4 * number : 4 * number + 4])
        for number in range(3)
    )
    write_index(tmp_path / "data", ShardIndex(source="shapes", splits={"train": entries}))
    return tmp_path / "data"


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


def test_outputs_manifest_and_index_are_the_verbs(data, tmp_path):
    index = count(data, tmp_path / "out", config=CONFIG)
    assert read_index(tmp_path / "out") == index
    assert index.config["num_words"] == sum(WORDS)
    assert (index.config["counter"], index.config["least"], index.num_samples()) == ("words", 2, 12)
    found = contents(tmp_path / "out")
    assert found.keys() == {"index.json", "manifest.jsonl", *(f"train/{i:06d}.tar" for i in range(3))}
    assert [row["num_words"] for row in found["manifest.jsonl"]] == [sum(WORDS[i : i + 4]) for i in (0, 4, 8)]
    assert found["train/000000.tar"].splitlines()[0] == b"sample0000 3"


def test_what_is_dropped_is_counted_and_a_unit_of_nothing_has_no_output(data, tmp_path):
    index = count(data, tmp_path / "out", config=CountConfig(least=7, num_threads=1))
    assert index.num_samples() == WORDS.count(7)
    assert contents(tmp_path / "out").keys() == {
        "index.json",
        "manifest.jsonl",
        "train/000000.tar",
        "train/000002.tar",
    }
    assert index.config["num_dropped"] == 12 - index.num_samples()
    with pytest.raises(ValueError, match=r"no sample of split 'train' can be counted; train/000002\.tar: "):
        count(data, tmp_path / "none", config=CountConfig(least=99, num_threads=1))


def test_interrupted_it_goes_on_and_another_configuration_is_refused(data, tmp_path, monkeypatch):
    count(data, tmp_path / "whole", config=CONFIG)
    real, made = counting.CountMaker.make, []

    def stop(self, *arguments, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(options["job"].unit.name)
        return real(self, *arguments, **options)

    monkeypatch.setattr(counting.CountMaker, "make", stop)
    with pytest.raises(KeyboardInterrupt):
        count(data, tmp_path / "out", config=CONFIG)
    with pytest.raises(ValueError, match="out was counted with another way of counting"):
        count(data, tmp_path / "out", config=CountConfig(least=3, num_threads=1))
    made[:] = ["other"] * 3
    count(data, tmp_path / "out", config=CONFIG)
    assert made[3:] == ["train/000002.tar"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_facts_that_the_verb_does_not_know_are_made_again(data, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pocketclip.engine.ledger.Ledger.finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            count(data, tmp_path / "out", config=CONFIG)
    marker = tmp_path / "out" / ".done" / "train" / "000001.tar.json"
    content = json.loads(marker.read_text())
    del content["num_words"]
    marker.write_text(json.dumps(content))
    index = count(data, tmp_path / "out", config=CONFIG)
    count(data, tmp_path / "whole", config=CONFIG)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert index.num_samples() == 12


def test_a_unit_that_fails_is_left_out_and_listed(data, tmp_path, monkeypatch):
    def fail(self, *arguments, **options):
        raise ValueError("it cannot be counted")

    monkeypatch.setattr(counting.CountMaker, "make", fail)
    with pytest.raises(FailedShardsError, match=r"3 of 3 shards failed: train/000000\.tar \(it cannot be"):
        count(data, tmp_path / "out", config=CONFIG)
    assert len((tmp_path / "out" / "failures.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_on_ray_the_bytes_are_the_same(data, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    here = Path(__file__).parent
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.setenv("PYTHONPATH", f"{here}:{':'.join(path for path in sys.path if path)}")
    elsewhere = importlib.import_module("counting")  # under a name that other processes find, too
    count(data, tmp_path / "whole", config=CONFIG)
    engine = EngineConfig(kind="ray", min_workers=2, max_workers=2, dashboard=False)
    config = elsewhere.CountConfig(least=2, num_threads=1)
    elsewhere.count(data, tmp_path / "out", config=config, engine=engine)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    manifest = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["engine"] for line in manifest} == {"ray"}
