"""JSON lines with pictures in base64: every line is a candidate or a reason."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.jsonl import read_jsonl
from pocketclip.data.index import Dropped


def line(encode, **fields):
    record = {"uid": "abc", "image": base64.b64encode(encode()).decode(), "text": "a red square", **fields}
    return json.dumps({name: value for name, value in record.items() if value is not None})


def read(path):
    return list(read_jsonl([path], root=path.parent, split_of=lambda _: "train"))


def write(path, lines):
    data = "".join(f"{text}\n" for text in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["00.jsonl", "00.jsonl.gz"])
def test_a_line_is_a_sample(tmp_path, encode, name):
    path = write(
        tmp_path / name,
        [
            line(encode, syn_text=["one", "two"], syn_text_coca=["three"], url="http://x", width=24),
            "",
            line(encode, uid=7),
        ],
    )
    first, second = read(path)
    assert first == Candidate(
        source=f"{name}: row 0",
        split="train",
        key="abc",
        image=encode(),
        captions=("a red square",),
        synthetic={"syn_text": ("one", "two"), "syn_text_coca": ("three",)},
        meta={"url": "http://x", "width": 24},
    )
    assert (second.key, second.source) == ("7", f"{name}: row 1")


def test_lines_that_cannot_be_used_say_why(tmp_path, encode):
    lines = [
        line(encode, image=None),
        line(encode, image="???"),
        line(encode, image=5),
        line(encode, text=None),
        line(encode, text=["", " "]),
        "{",
        "[]",
        line(encode),
    ]
    *dropped, good = read(write(tmp_path / "a.jsonl", lines))
    assert isinstance(good, Candidate)
    assert all(isinstance(drop, Dropped) for drop in dropped)
    assert [drop.source for drop in dropped] == [f"a.jsonl: row {row}" for row in range(7)]
    reasons = [drop.reason for drop in dropped]
    assert reasons[0].startswith("no picture")
    assert reasons[1].startswith("the picture is not base64")
    assert reasons[2].startswith("no picture")
    assert reasons[3] == reasons[4] == "no caption"
    assert reasons[5].startswith("it is not JSON")
    assert reasons[6] == "it is not a JSON object"


def test_a_cut_gzip_keeps_its_whole_lines(tmp_path, encode):
    path = write(
        tmp_path / "a.jsonl.gz", [line(encode, uid=str(i), noise=str(hash(str(i)))) for i in range(200)]
    )
    path.write_bytes(path.read_bytes()[:-200])
    *samples, cut = read(path)
    assert 0 < len(samples) < 200
    assert [sample.key for sample in samples[:-1]] == [str(i) for i in range(len(samples) - 1)]
    assert cut.source == "a.jsonl.gz"
    assert cut.reason.startswith(f"it is cut or damaged after row {len(samples)}")


def test_without_a_key_the_row_is_the_key(tmp_path, encode):
    one, two = read(write(tmp_path / "a.jsonl", [line(encode, uid=None)] * 2))
    assert one.key != two.key
