"""`pocketclip reinforce` on the command line: every input, what is said of failures, what is refused."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

pytest.importorskip("torch")

from tests.conftest import shape_samples
from tests.teachers.plain_teachers import SOURCE

from pocketclip.cli.shards import parse_teacher
from pocketclip.data.index import read_index

HERE = __file__.rpartition("/cli/")[0] + "/teachers"


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def tars(tmp_path):
    """Two tars of four samples, one of them without a caption."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for i, sample in enumerate(shape_samples(4, prefix=f"t{number}")):
                members = [(f"{sample.key}.png", sample.image)]
                if (number, i) != (1, 2):
                    members.append((f"{sample.key}.txt", sample.captions[0].encode()))
                for name, data in members:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def arguments(data, out, *more):
    return ("reinforce", data, out, "--teacher", f"even={SOURCE}", "--views", "2", "--threads", "1", *more)


def test_raw_tars_become_a_reinforced_folder(cli, tars, tmp_path):
    ran = cli(*arguments(tars, tmp_path / "out", "--json"))
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said["splits"] == {"train": 7}
    assert said["num_dropped"] == 1
    assert said["dropped"][0]["source"] == "1.tar: t10002"
    assert read_index(tmp_path / "out").num_samples() == 7
    again = cli(*arguments(f"{tars}/{{0..1}}.tar", tmp_path / "out"))
    assert again.code == 0  # the same input by another name: done before
    assert "7 samples" in again.out
    assert "t10002: no caption" in again.out


def test_a_failed_shard_is_the_error(cli, pack_shapes, tmp_path):
    data = pack_shapes(tmp_path / "data", per_shard=4, train=12)
    path = data / "train" / "000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + b"?" + whole[2001:])
    ran = cli(*arguments(data, tmp_path / "out"))
    assert ran.code == 1
    assert ran.sentence().startswith("1 of 3 shards failed: train/000001.tar (")
    assert "train/000001.tar failed and is left out" in ran.err
    path.write_bytes(whole)
    assert cli(*arguments(data, tmp_path / "out")).code == 0
    assert read_index(tmp_path / "out").num_samples() == 12


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--store-option", "endpoint"), "--store-option endpoint is not of the form KEY=VALUE"),
        (("--captioner", "coca"), "--captioner coca is not of the form NAME=SOURCE"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(cli, tars, tmp_path, more, sentence):
    ran = cli(*arguments(tars, tmp_path / "out", *more))
    assert ran.code == 2
    assert ran.sentence().startswith(sentence)


def test_an_engine_that_makes_no_sense_is_told(cli, tars, tmp_path):
    ran = cli(*arguments(tars, tmp_path / "out", "--min-workers", "3", "--max-workers", "2"))
    assert (ran.code, ran.sentence()) == (1, "max_workers must be at least min_workers (3), got 2")
    ran = cli(*arguments("ftp://host/x", tmp_path / "out"))
    assert ran.code == 1
    assert "ftp:// is none of them" in ran.sentence()


@pytest.mark.parametrize(
    ("text", "name", "source", "scale"),
    [
        ("runs/kd/checkpoint.safetensors", "kd", "runs/kd/checkpoint.safetensors", None),
        ("a=x.safetensors@70", "a", "x.safetensors", 70.0),
        ("l=open_clip:ViT-L-14/openai", "l", "open_clip:ViT-L-14/openai", None),
        ("l=open_clip:ViT-L-14/openai@100", "l", "open_clip:ViT-L-14/openai", 100.0),
        ("h=hf-hub:apple/DFN2B@main", "h", "hf-hub:apple/DFN2B@main", None),
        ("h=hf-hub:apple/DFN2B@main@60", "h", "hf-hub:apple/DFN2B@main", 60.0),
        ("s=transformers:google/siglip@v1.0", "s", "transformers:google/siglip@v1.0", None),
    ],
)
def test_a_teacher_is_a_name_a_source_and_perhaps_a_scale(text, name, source, scale):
    spec = parse_teacher(text)
    assert (spec.name, spec.source, spec.logit_scale) == (name, source, scale)
