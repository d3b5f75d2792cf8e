"""Shards from a bucket to a bucket, over a network that fails: the objects are the local files, none twice."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")

from tests.conftest import shape_samples
from tests.faulty_s3 import at_random, serve

from pocketclip.data import remote
from pocketclip.data.index import read_index
from pocketclip.data.objects import Place, open_store
from pocketclip.data.shard import ShardReader
from pocketclip.reinforce import EngineConfig, FailedShardsError, reinforce, worker


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "_DELAYS_S", (0.01,) * 12)
    with serve("bucket") as server:
        yield server


@pytest.fixture
def data(tmp_path, pack_shapes):
    """Six shards, two pictures damaged."""
    from pocketclip.data.index import ShardIndex, write_index
    from pocketclip.data.shard import write_shard

    samples = [
        replace(sample, image=sample.image[:50]) if i in (3, 17) else sample
        for i, sample in enumerate(shape_samples(24))
    ]
    folder = tmp_path / "data"
    entries = tuple(
        write_shard(folder / "train" / f"{number:06d}.tar", samples[4 * number : 4 * number + 4])
        for number in range(6)
    )
    write_index(folder, ShardIndex(source="shapes", splits={"train": entries}))
    return folder


def upload(folder, url, *, server):
    store = open_store(Place(url=url, options=server.options(straight=True)))
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())


def objects(url, *, server):
    """All objects of a bucket's folder, without the manifest's times."""
    store = open_store(Place(url=url, options=server.options(straight=True)))
    return {found.name: timeless(found.name, store.read(found.name)) for found in store.list()}


def files(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): timeless(path.name, path.read_bytes()) for path in paths}


def timeless(name, data):
    if not name.endswith(".jsonl"):
        return data
    rows = [json.loads(line) for line in data.splitlines()]
    changing = ("seconds", "cost", "earlier_failures")
    return [{field: row[field] for field in row if field not in changing} for row in rows]


@pytest.mark.parametrize("parts", [False, True])
def test_whatever_fails_the_objects_are_the_local_files(
    data, server, plain_config, tmp_path, parts, monkeypatch
):
    if parts:  # shards of this size go up in parts and are copied into place
        monkeypatch.setattr(remote, "_ONE_PUT", 10_000)
    reinforce(data, tmp_path / "local", config=plain_config)
    upload(data, "s3://bucket/in", server=server)
    kinds = ("refuse", "answer lost", "cut upload", "cut answer")
    server.faults = at_random(0.2, seed=3, kinds=kinds)
    hung = []

    def faults(method, path):
        if len(hung) < 3 and "train/" in path and method in ("PUT", "GET"):
            hung.append(path)
            return "hang"
        return random_faults(method, path)

    random_faults, server.faults = server.faults, faults
    engine = EngineConfig(store_options=server.options(), attempts=5)
    index = reinforce("s3://bucket/in", "s3://bucket/out", config=plain_config, engine=engine)
    assert set(server.injected) == {"hang", *kinds}, server.injected
    assert objects("s3://bucket/out", server=server) == files(tmp_path / "local")
    assert index.num_samples() == 22
    again = dict(server.requests)
    assert reinforce("s3://bucket/in", "s3://bucket/out", config=plain_config, engine=engine) == index
    assert server.requests["PUT"] == again["PUT"]


def test_an_interrupted_run_goes_on_wherever_it_is(data, server, plain_config, tmp_path, monkeypatch):
    reinforce(data, tmp_path / "local", config=plain_config)
    engine = EngineConfig(store_options=server.options())
    real = worker.reinforce_shard
    made = []

    def stop(*arguments, **options):
        made.append(options["name"])
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(worker, "reinforce_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        reinforce(data, "s3://bucket/out", config=plain_config, engine=engine)
    assert ".done/train/000001.tar.json" in objects("s3://bucket/out", server=server)
    with pytest.raises(ValueError, match=r"s3://bucket/out was reinforced with another configuration"):
        reinforce(data, "s3://bucket/out", config=replace(plain_config, seed=5), engine=engine)
    with pytest.raises(ValueError, match=r"s3://bucket/out is not whole: .* reinforce` was interrupted"):
        reinforce("s3://bucket/out", tmp_path / "x", config=plain_config, engine=engine)
    made.clear()
    made.extend(["other"] * 5)
    reinforce(data, "s3://bucket/out", config=plain_config, engine=engine)
    assert made[5:] == [f"train/{number:06d}.tar" for number in (2, 3, 4, 5)]
    assert objects("s3://bucket/out", server=server) == files(tmp_path / "local")


def test_a_network_that_is_down_is_named_and_what_is_done_stays(data, server, plain_config, monkeypatch):
    monkeypatch.setattr(remote, "_DELAYS_S", (0.01,))
    down = []

    def faults(method, path):
        if "train/000002.tar" in path and method == "PUT" and ".done" not in path:
            down.append(path)
        return "refuse" if down and "000002.tar" in path else None

    server.faults = faults
    engine = EngineConfig(store_options=server.options(), attempts=2)
    with pytest.raises(
        FailedShardsError,
        match=r"1 of 6 shards failed: train/000002\.tar \(s3://bucket/out/train/000002\.tar cannot be",
    ):
        reinforce(data, "s3://bucket/out", config=plain_config, engine=engine)
    assert "failures.jsonl" in objects("s3://bucket/out", server=server)
    server.faults = lambda method, path: None
    reinforce(data, "s3://bucket/out", config=plain_config, engine=engine)
    assert objects("s3://bucket/out", server=server).keys() == {
        "index.json",
        "manifest.jsonl",
        *(f"train/{number:06d}.tar" for number in range(6)),
    }


def test_raw_tars_of_a_bucket_and_what_comes_back(data, server, plain_config, tmp_path):
    upload(data, "s3://bucket/in", server=server)
    engine = EngineConfig(store_options=server.options())
    pattern = "s3://bucket/in/train/{000000..000003}.tar"
    reinforce(pattern, "s3://bucket/out", config=plain_config, engine=engine)
    local = str(data / "train" / "{000000..000003}.tar")
    reinforce(local, tmp_path / "local", config=plain_config)
    ours, theirs = objects("s3://bucket/out", server=server), files(tmp_path / "local")
    assert {name: data for name, data in ours.items() if name.endswith(".tar")} == {
        name: data for name, data in theirs.items() if name.endswith(".tar")
    }
    # A downloaded folder is a reinforced folder.
    store = open_store(Place(url="s3://bucket/out", options=server.options()))
    for found in store.list():
        path = tmp_path / "down" / found.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.fetch(found.name) as fetched:
            os.link(fetched, path)
    index = read_index(tmp_path / "down")
    assert index.num_samples() == 15
    with ShardReader(tmp_path / "down" / index.splits["train"][0].file) as reader:
        assert len(reader) == 3


def test_pictures_of_a_bucket_are_no_input(server, plain_config, encode):
    store = open_store(Place(url="s3://bucket/pictures", options=server.options()))
    store.put("a.png", encode())
    engine = EngineConfig(store_options=server.options())
    with pytest.raises(ValueError, match=r"s3://bucket/pictures holds no shards\. What"):
        reinforce("s3://bucket/pictures", "s3://bucket/out", config=plain_config, engine=engine)
