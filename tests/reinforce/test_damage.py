"""Shards as they come from the web: what can be used is used, each row is its own sample's, every drop is listed."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import pytest
from tests.reinforce.rows import SPEC, check_rows
from tests.teachers.plain_teachers import POISON, make

from pocketclip.data.foreign.candidate import admit
from pocketclip.data.foreign.tars import read_tars
from pocketclip.data.index import Dropped
from pocketclip.reinforce import reinforce

COLOURS = ("red", "green", "blue", "orange", "teal", "brown", "purple", "black")


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def sample(tar, key, image, *, suffix="png", captions=("a square",)):
    add(tar, f"{key}.{suffix}", image)
    if captions:
        add(tar, f"{key}.txt", captions[0].encode())
    if len(captions) > 1:
        add(tar, f"{key}.json", json.dumps({"captions": captions[1:], "licence": "CC0"}).encode())


@pytest.fixture
def web(tmp_path, encode):
    """Four tars, and for each the keys that can be used and the sources that are dropped, with words of the reason."""
    folder = tmp_path / "web"
    folder.mkdir()
    expected = {}
    with tarfile.open(folder / "large.tar", "w") as tar:  # more than any batch
        for i in range(50):
            captions = tuple(f"a {COLOURS[i % 8]} square, number {i}.{n}" for n in range(1 + i % 4))
            sample(tar, f"large{i:03d}", encode(colour=COLOURS[i % 8], size=20 + i), captions=captions)
    expected["large"] = ([f"large{i:03d}" for i in range(50)], {})
    with tarfile.open(folder / "LOUD.TAR", "w") as tar:
        for key, suffix, kind in (
            ("a", "PNG", "PNG"),
            ("b", "jpeg", "JPEG"),
            ("c", "webp", "WEBP"),
            ("d", "JPG", "JPEG"),
        ):
            sample(tar, key, encode(kind, colour="teal"), suffix=suffix)
        sample(tar, "e", encode("GIF"), suffix="Gif")
        sample(tar, "f", encode("BMP"), suffix="bmp")
    expected["LOUD"] = (["a", "b", "c", "d", "e", "f"], {})
    with tarfile.open(folder / "mixed.tar", "w") as tar:
        sample(tar, "good0", encode())
        sample(tar, "cut", encode(size=200)[:150])
        sample(tar, "text", b"<html>not found</html>", suffix="jpg")
        sample(tar, "empty", b"")
        sample(tar, "mute", encode(), captions=())
        sample(tar, "blank", encode(), captions=(" \n",))
        sample(tar, "poison", encode(), captions=("fine", POISON))
        add(tar, "alone.txt", b"no picture")
        sample(tar, "good1", encode(colour="blue"), captions=("one", "two"))
        sample(tar, "good0", encode(colour="green"))  # not the first of its name
        sample(tar, "good0", encode(colour="green"))
        sample(tar, "good2", encode(colour="brown"))
    expected["mixed"] = (
        ["good0", "good1", "good2"],
        {
            "mixed.tar: cut.png": "damaged or cut off",
            "mixed.tar: text.jpg": "not a picture",
            "mixed.tar: empty.png": "zero bytes",
            "mixed.tar: mute": "no caption",
            "mixed.tar: blank": "no caption",
            "mixed.tar: poison.png": "teacher even: no such character",
            "mixed.tar: alone": "no picture",
            "mixed.tar: good0.png": "already has the key good0",
        },
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(6):
            sample(tar, f"cut{i}", encode(colour=COLOURS[i], size=40))
    data = buffer.getvalue()
    at = data.index(b"cut4.png") + 600  # in the middle of the fifth picture
    (folder / "truncated.tar").write_bytes(data[:at])
    expected["truncated"] = (
        ["cut0", "cut1", "cut2", "cut3"],
        {"truncated.tar: cut4": "the tar is cut in this sample", "truncated.tar": "the tar is cut"},
    )
    return folder, expected


@pytest.mark.parametrize("batch_size", [5, 256])
def test_counts_are_exact_rows_are_their_samples_own_and_drops_are_listed(
    web, plain_config, tmp_path, batch_size
):
    folder, expected = web
    config = replace(plain_config, batch_size=batch_size, augment=SPEC, codec="fp32", num_views=3)
    out = tmp_path / "out"
    index = reinforce(folder, out, config=config)
    order = sorted(expected)  # as the files are sorted
    assert [entry.file for entry in index.splits["train"]] == [f"train/{name}.tar" for name in order]
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    teachers = [make(spec) for spec in config.teachers]
    for name, row in zip(order, manifest, strict=True):
        keys, drops = expected[name]
        assert row["num_samples"] == len(keys)
        suffix = "TAR" if name.isupper() else "tar"
        offered = [
            admit(one)
            for one in read_tars([folder / f"{name}.{suffix}"], split_of=lambda _: "train")
            if not isinstance(one, Dropped)
        ]
        first = {one.key: one for one in reversed(offered) if not isinstance(one, Dropped)}
        path = out / "train" / f"{name}.tar"
        assert check_rows(path, list(first.values()), teachers=teachers) == keys
        assert {drop["source"] for drop in row["dropped"]} == drops.keys()
        for drop in row["dropped"]:
            assert drops[drop["source"]] in drop["reason"]
    assert [len(row["dropped"]) for row in manifest] == [0, 0, 9, 2]  # good0 came twice more
    assert index.num_samples() == 63
    assert index.config["num_dropped"] == len(index.dropped) == 11
    assert index.licences == {"CC0": 37 + 1}  # those with a json
