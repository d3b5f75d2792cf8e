"""`pocketclip caption` prints, keeps, draws and scores; `reinforce` takes ensembles of captioners."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pocketclip.cli.caption import parse_captioner, read_references
from pocketclip.data.index import split_shards
from pocketclip.data.shard import ShardReader

PLAIN = "python:plain_captioners:make"


@pytest.fixture(autouse=True)
def plain_captioners(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "teachers"))


def test_captions_are_printed_kept_drawn_and_scored(cli, shapes, tmp_path):
    pytest.importorskip("pycocoevalcap")
    arguments = [shapes, "--split", "validation", "--limit", "5", "--model", f"one={PLAIN}", f"two={PLAIN}"]
    out, sheet = tmp_path / "captions.jsonl", tmp_path / "sheet.png"
    ran = cli("caption", *arguments, "--out", out, "--sheet", sheet, "--score", "own")
    assert ran.code == 0, ran.err
    assert "validation0000  [one] 72 by 72, number 0" in ran.out
    assert "cider" in ran.out
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(kept) == 5
    assert kept[0]["by"] == {"one": ["72 by 72, number 0"], "two": ["72 by 72, number 0"]}
    assert sheet.stat().st_size > 1000
    ran = cli("caption", *arguments, "--score", out, "--json")  # against themselves
    scores = json.loads(ran.out)["scores"]
    assert scores["bleu_1"] == pytest.approx(1.0)
    assert scores["captions"] == 10


def test_clip_score_needs_no_references(cli, shapes, tiny_checkpoint):
    model = f"one={PLAIN}"
    ran = cli("caption", shapes, "--limit", "3", "--model", model, "--clip", tiny_checkpoint, "--json")
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)["scores"]
    assert 0 <= scores["clip_score"] <= 2.5
    assert "cider" not in scores


def test_damaged_pictures_are_listed(cli, tmp_path, encode):
    (tmp_path / "a.png").write_bytes(encode())
    (tmp_path / "b.png").write_bytes(b"nothing")
    ran = cli("caption", tmp_path, "--model", f"one={PLAIN}")
    assert ran.code == 0
    assert "1 skipped" in ran.out
    assert "b.png: not a picture" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--model", PLAIN], 2, "needs pictures"),
        (["x.png", "--model", f"a={PLAIN}"], 1, "x.png: no such file"),
        (["x.png", "--model", f"a={PLAIN}", f"a={PLAIN}"], 2, "two captioners are called a"),
        (["x.png", "--model", f"a={PLAIN}", "--temperature", "0", "--num-captions", "2"], 1, "."),
    ],
)
def test_mistakes_are_told(cli, arguments, code, reason):
    ran = cli("caption", *arguments)
    assert ran.code == code
    assert reason in ran.err


def test_a_captioner_is_named_after_its_folder():
    assert parse_captioner("runs/tuned/checkpoint.safetensors") == (
        "tuned",
        "runs/tuned/checkpoint.safetensors",
    )
    assert parse_captioner("tuned/") == ("tuned", "tuned/")
    assert parse_captioner("b=hf-hub:org/name") == ("b", "hf-hub:org/name")
    name, source = parse_captioner("open_clip:coca_ViT-B-32/random")
    assert (name, source) == ("random", "open_clip:coca_ViT-B-32/random")


def test_references_are_read_or_told(shapes, tmp_path):
    assert read_references(shapes)["train0000"][0].startswith("a ")
    path = tmp_path / "r.jsonl"
    path.write_text('{"key": "a", "captions": ["x", "y"]}\n')
    assert read_references(path) == {"a": ("x", "y")}
    for text, reason in (("{}", "line 1: it needs a key"), ("x", "line 1: it is not JSON"), ("", "nothing")):
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_references(path)
    with pytest.raises(FileNotFoundError):
        read_references(tmp_path / "none")


@pytest.mark.parametrize(("captioners", "each"), [(10, 1), (5, 2)])
def test_reinforce_takes_ensembles_of_captioners(cli, pack_shapes, teachers, tmp_path, captioners, each):
    data = pack_shapes(tmp_path / "data", train=4)
    name, path = next(iter(teachers.items()))
    names = [f"c{number}={PLAIN}" for number in range(captioners)]
    arguments = [
        "--teacher",
        f"{name}={path}",
        "--captioner",
        *names,
        "--captions",
        str(each),
        "--views",
        "1",
    ]
    ran = cli("reinforce", data, tmp_path / "out", *arguments)
    assert ran.code == 0, ran.err
    (shard,) = split_shards(tmp_path / "out", "train")
    with ShardReader(shard) as reader:
        written = reader[0].synthetic
    assert {name: len(texts) for name, texts in written.items() if name != "rule"} == {
        f"c{number}": each for number in range(captioners)
    }
