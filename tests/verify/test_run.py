"""Whole folders have no defects; every way to spoil one is found, and named by shard and sample."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.published_sets import draw_picture, make_sample, members, write_published, write_tar
from tests.reinforced_folders import write_reinforced, write_reinforced_shard

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.index import ShardIndex, read_index, write_index
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.data.sample import Sample
from pocketclip.data.shard import write_shard
from pocketclip.verify import VerifyConfig, VerifyReport, verify

SPEC = AugmentSpec(flip=0.5, jitter=0.5, erase=0.5)


@pytest.fixture
def samples(make_samples) -> list[Sample]:
    return make_samples(12)


def defects(report: VerifyReport) -> dict[tuple[str, str], str]:
    assert len(report.defects) == report.num_defects == sum(report.kinds.values())
    return {(defect.shard, defect.key): defect.reason for defect in report.defects}


def relisted(folder: Path) -> Path:
    """The folder with an index that tells its shards' sizes and hashes as they are."""
    index = read_index(folder)
    splits = {
        split: tuple(
            replace(
                entry,
                num_bytes=(folder / entry.file).stat().st_size,
                sha256=sha256_file(folder / entry.file),
            )
            for entry in entries
        )
        for split, entries in index.splits.items()
    }
    write_index(folder, replace(index, splits=splits))
    return folder


# Whole


def test_a_packed_folder(shapes):
    report = verify(str(shapes))
    assert (report.layout, report.num_defects) == ("packed", 0)
    assert (report.num_shards, report.num_samples, report.num_checked) == (5, 72, 72)
    assert (report.num_views, report.num_texts) == (0, 216)
    assert verify(str(shapes), config=VerifyConfig(splits=("validation",))).num_samples == 24


@pytest.mark.parametrize("codec", ["fp32", "bf16", "int8", "q4"])
def test_a_reinforced_folder_of_every_codec(tmp_path, samples, codec):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC, codec=codec)
    report = verify(str(data))
    assert report.kinds == {}
    assert (report.layout, report.num_views, report.num_texts) == ("reinforced", 36, 36)
    alone = verify(str(data / "train" / "000001.tar"))
    assert (alone.kinds, alone.num_samples) == ({}, 5)


def test_a_folder_that_teachers_made(reinforced):
    assert verify(str(reinforced)).kinds == {}


@pytest.mark.parametrize("layout", ["v1 npz", "v2 npz", "v1 pth.gz", "v2 pth.gz"])
@pytest.mark.parametrize("with_image", [False, True])
def test_a_published_set(tmp_path, layout, with_image):
    pytest.importorskip("torch")
    generation, storage = layout.split()
    for number in range(2):
        some = [make_sample(3 * number + i) for i in range(3)]
        write_published(
            tmp_path / f"{number:08d}.tar",
            some,
            generation=generation,
            storage=storage,
            with_image=with_image,
        )
    report = verify(str(tmp_path))
    assert report.kinds == {}
    assert (report.layout, report.num_samples, report.num_texts) == ("published", 6, 36)
    assert report.num_views == (18 if with_image else 0)
    assert verify(f"{tmp_path}/{{00000000..00000001}}.tar") == report


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC, per_shard=3)
    (data / "train" / "000002.tar").write_bytes(b"")
    assert verify(str(data), config=VerifyConfig(workers=2)) == verify(str(data))


# Spoiled


def test_files_that_are_not_what_the_index_says(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC, per_shard=2)
    paths = [data / "train" / f"{number:06d}.tar" for number in range(6)]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-5000])
    content = bytearray(paths[2].read_bytes())
    content[600] ^= 1  # a picture
    paths[2].write_bytes(content)
    paths[3].write_bytes(b"")
    write_shard(data / "train" / "stray.tar", samples[:1])
    paths[4].write_bytes(paths[4].read_bytes() + bytes(10_240))
    report = verify(str(data))
    found = defects(report)
    assert found["train/000000.tar", ""] == "missing: the index lists it, and it is not there"
    assert "train/000001.tar" in {shard for shard, _ in found}
    assert report.kinds["file size"] == 3
    assert report.kinds["file hash"] == 1
    assert found["train/stray.tar", ""].startswith("not listed")
    assert ("train/000005.tar", "") not in found
    assert report.num_shards == 6
    assert report.num_checked >= 6


def test_a_shard_of_another_length_than_listed(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC)
    index = read_index(data)
    entries = tuple(replace(entry, num_samples=entry.num_samples + 1) for entry in index.splits["train"])
    write_index(data, replace(index, splits={"train": entries}))
    assert verify(str(data)).kinds == {"count": 3}


def spoiled(
    tmp_path: Path, samples: list[Sample], *, codec: str = "fp32", **options
) -> dict[tuple[str, str], str]:
    entry = write_reinforced_shard(
        tmp_path / "data" / "train" / "0.tar", samples, spec=SPEC, codec=codec, **options
    )
    write_index(tmp_path / "data", ShardIndex(source="x", splits={"train": (entry,)}))
    return defects(verify(str(tmp_path / "data")))


def test_rows_that_are_not_finite_or_not_of_length_one(tmp_path, samples):
    def change(params, counts, rows):
        rows[0].image_NAD[2, 1] *= 1.01
        rows[1].image_NAD[2] = 0
        rows[1].text_TD[4] *= 0.9  # the second caption of sample 1

    found = spoiled(tmp_path, samples, change=change)
    assert set(found) == {("train/0.tar", samples[1].key), ("train/0.tar", samples[2].key)}
    assert (
        found["train/0.tar", samples[1].key]
        == "embedding length: text of b: it has length 0.9000, not 1 within 0.0010"
    )
    report = verify(str(tmp_path / "data"))
    assert report.kinds == {"embedding length": 3}
    assert [defect.reason for defect in report.defects if defect.key == samples[2].key] == [
        "embedding length: image of a: it has length 1.0100, not 1 within 0.0010",
        "embedding length: image of b: it has length 0.0000, not 1 within 0.0010, and 2 more of its rows",
    ]


def test_a_row_that_is_not_finite(tmp_path, samples):
    """A codec refuses those, so the stored bytes are changed."""
    data = write_reinforced(tmp_path / "data", samples[:5], spec=SPEC)
    path = data / "train" / "000000.tar"
    with tarfile.open(path) as tar:
        member = tar.getmember("__reinforcement__")
        header = int.from_bytes(tar.extractfile(member).read(8), "little")
        tar.extractfile(member).seek(0)
        layout = json.loads(tar.extractfile(member).read()[8 : 8 + header])
    start = member.offset_data + 8 + header + layout["image/a/values"]["data_offsets"][0]
    content = bytearray(path.read_bytes())
    content[start : start + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    found = defects(verify(str(relisted(data))))
    assert found == {
        (
            "train/000000.tar",
            samples[0].key,
        ): "embedding not finite: image of a: it has values that are not numbers"
    }


@pytest.mark.parametrize("codec", ["bf16", "int8", "q4"])
def test_the_codecs_own_error_is_no_defect_and_more_is(tmp_path, samples, codec):
    def change(params, counts, rows):
        rows[0].text_TD[0] *= 2.0

    found = spoiled(tmp_path, samples, codec=codec, change=change)
    assert list(found) == [("train/0.tar", samples[0].key)]
    assert "embedding length: text of a" in found["train/0.tar", samples[0].key]


def test_parameters_out_of_range(tmp_path, samples):
    def change(params, counts, rows):
        params[0, 0, 4] = 1000  # the crop's height
        params[1, 2, 7] = 14  # an operation
        params[2, 1, 8] = 31  # a bin
        params[3, 0, 6] = 9  # flags

    found = spoiled(tmp_path, samples, change=change)
    assert len(found) == 4
    assert all(reason.startswith("view parameters: view ") for reason in found.values())
    assert "crop (" in found["train/0.tar", samples[0].key]
    assert found["train/0.tar", samples[1].key].startswith("view parameters: view 2: ")
    assert "bin 31" in found["train/0.tar", samples[2].key]


def test_pictures_that_are_others_or_damaged(tmp_path, samples):
    others = [
        replace(samples[0], image=samples[0].image[:60]),
        replace(samples[1], image=draw_picture(0, kind="PNG")),
        *samples[2:],
    ]
    found = spoiled(tmp_path, samples, pictures=others)
    assert set(found) == {("train/0.tar", samples[0].key), ("train/0.tar", samples[1].key)}
    assert found["train/0.tar", samples[0].key].startswith("damaged picture: ")
    report = verify(str(tmp_path / "data"))
    assert report.kinds == {"view size": 3, "damaged picture": 1}
    assert "drawn for a picture of 72x72, which is 96x72" in found["train/0.tar", samples[1].key]


def test_captions_and_embeddings_that_do_not_add_up(tmp_path, samples):
    fewer = [replace(samples[0], captions=samples[0].captions[:1]), *samples[1:]]
    found = spoiled(tmp_path, samples, pictures=fewer)
    assert found == {("train/0.tar", samples[0].key): "text count: it has 2 captions and embeddings of 3"}


def test_a_block_of_another_number_of_samples_or_damaged(tmp_path, samples):
    found = spoiled(tmp_path, samples, pictures=samples[:7])
    assert found == {("train/0.tar", ""): "count: it has 7 samples and embeddings of 12"}
    path = tmp_path / "data" / "train" / "0.tar"
    with tarfile.open(path) as tar:
        start = tar.getmember("__reinforcement__").offset_data
    content = bytearray(path.read_bytes())
    content[start + 8 : start + 40] = b"x" * 32
    path.write_bytes(content)
    found = defects(verify(str(relisted(tmp_path / "data"))))
    assert found["train/0.tar", ""].startswith("damaged reinforcement: the reinforcement block is damaged")


def test_samples_whose_json_is_damaged(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples[:5], spec=SPEC)
    path = data / "train" / "000000.tar"
    with tarfile.open(path) as tar:
        start = tar.getmember(f"{samples[3].key}.json").offset_data
    content = bytearray(path.read_bytes())
    content[start] = ord("[")
    path.write_bytes(content)
    found = defects(verify(str(relisted(data))))
    assert list(found) == [("train/000000.tar", samples[3].key)]
    assert found["train/000000.tar", samples[3].key].startswith("damaged sample: ")


def test_keys_that_several_shards_have(tmp_path, samples):
    data = tmp_path / "data"
    entries = tuple(
        write_reinforced_shard(data / "train" / f"{number}.tar", some, spec=SPEC)
        for number, some in enumerate([samples[:4], samples[3:6], [*samples[6:9], samples[0]]])
    )
    write_index(data, ShardIndex(source="x", splits={"train": entries}))
    assert defects(verify(str(data))) == {
        ("train/1.tar", samples[3].key): "duplicate key: train/0.tar has it, too",
        ("train/2.tar", samples[0].key): "duplicate key: train/0.tar has it, too",
    }


def test_shards_that_do_not_belong_together(tmp_path, samples):
    data = tmp_path / "data"
    entries = (
        write_reinforced_shard(data / "train" / "0.tar", samples[:4], spec=SPEC),
        write_reinforced_shard(data / "train" / "1.tar", samples[4:8], spec=SPEC, config_digest="other"),
        write_shard(data / "train" / "2.tar", samples[8:]),
    )
    write_index(data, ShardIndex(source="x", splits={"train": entries}))
    found = defects(verify(str(data)))
    assert found["train/1.tar", ""] == "mixed: its configuration is another than that of train/0.tar"
    assert any(reason == "mixed: it is packed, others are reinforced" for reason in found.values())


def test_a_published_set_with_every_fault(tmp_path):
    pytest.importorskip("torch")
    good, nan, short, crop, op, hashed, cut, mixed, twice, wide, last = (
        make_sample(number) for number in range(11)
    )
    nan.image_emb[1, 3] = np.nan
    short.text_emb[0, :768] *= 0.5
    crop.param_aug[1][0] = [0, 0, 73, 96]
    op.param_aug[2][1][0] = [14, 0.0]
    hashed.sha256 = "0" * 64
    cut.image = cut.image[:300]
    mixed.param_aug[0] = [None, *mixed.param_aug[0]]
    wide.image_emb, wide.text_emb = wide.image_emb[:, :1000], wide.text_emb[:, :1000]
    wide.synthetic_emb = {key: rows[:, :1000] for key, rows in wide.synthetic_emb.items()}
    written = [
        (sample.uid, members(sample, with_image=True))
        for sample in (good, nan, short, crop, op, hashed, cut, mixed, twice, wide)
    ]
    written[8][1].pop("syn.json")
    path = write_tar(tmp_path / "a.tar", [*written, written[0], (last.uid, members(last))])
    path.write_bytes(path.read_bytes()[:-40_000])
    write_published(tmp_path / "b.tar", [make_sample(20), good], with_image=True)
    report = verify(str(tmp_path))
    found = defects(report)
    assert "image_emb has values that are not finite" in found["a.tar", nan.uid]
    assert found["a.tar", short.uid].startswith(
        "embedding length: text 0 of OpenAI-ViT-L-14: it has length 0.5000"
    )
    assert "crop (0, 0, 73, 96)" in found["a.tar", crop.uid]
    assert found["a.tar", op.uid] == "view parameters: view 2: operation 14 is unknown: they are 0 to 13"
    assert found["a.tar", hashed.uid].startswith("picture hash: ")
    assert found["a.tar", mixed.uid].startswith("view parameters: view 0: a view is [null, [")
    assert found["a.tar", wide.uid].startswith("embedding shape: text: rows have 1000 columns")
    assert found["a.tar", last.uid] == "damaged shard: the tar is cut in this sample"
    assert found["a.tar", good.uid] == "duplicate key: more than one sample of the shard has it"
    assert found["b.tar", good.uid] == "duplicate key: a.tar has it, too"
    assert ("a.tar", cut.uid) in found
    assert ("a.tar", twice.uid) not in found  # it has no synthetic captions, and rows that nobody asks for
    assert report.kinds["damaged picture"] == 1
    config = VerifyConfig(check_sha256=False)
    assert "picture hash" not in verify(str(tmp_path), config=config).kinds


def test_published_teachers_of_other_widths_are_named(tmp_path):
    pytest.importorskip("torch")
    write_published(tmp_path / "a.tar", [make_sample(0)])
    teachers = tuple(
        TeacherRecord(name=name, embed_dim=width, logit_scale=1.0, digest="")
        for name, width in (("a", 500), ("b", 500))
    )
    report = verify(str(tmp_path), config=VerifyConfig(teachers=teachers))
    assert report.kinds == {"embedding shape": 2}


# How much


def test_some_samples_of_every_shard(tmp_path, samples):
    def change(params, counts, rows):
        rows[0].image_NAD[5] *= 2.0

    entry = write_reinforced_shard(tmp_path / "data" / "train" / "0.tar", samples, spec=SPEC, change=change)
    write_index(tmp_path / "data", ShardIndex(source="x", splits={"train": (entry,)}))
    counted = verify(str(tmp_path / "data"), config=VerifyConfig(sample=3))  # the first, the sixth, the last
    assert (counted.num_samples, counted.num_checked, counted.num_views) == (12, 3, 9)
    assert verify(str(tmp_path / "data"), config=VerifyConfig(sample=2)).num_defects == 0
    assert verify(str(tmp_path / "data"), config=VerifyConfig(sample=99)).num_defects == 1
    pytest.importorskip("torch")
    write_published(tmp_path / "p" / "a.tar", [make_sample(number) for number in range(5)])
    assert verify(str(tmp_path / "p"), config=VerifyConfig(sample=2)).num_checked == 2


def test_all_defects_go_into_the_list_and_the_first_into_the_report(tmp_path, samples, monkeypatch):
    from pocketclip.verify import run

    monkeypatch.setattr(run, "KEPT", 4)

    def change(params, counts, rows):
        rows[0].image_NAD[...] *= 2.0

    data = write_reinforced(tmp_path / "data", samples, spec=SPEC, change=change)
    report = verify(str(data), config=VerifyConfig(list_in=tmp_path / "defects.jsonl"))
    assert (len(report.defects), report.num_defects) == (4, 12)
    lines = [json.loads(line) for line in (tmp_path / "defects.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [sample.key for sample in samples]
    assert {tuple(line) for line in lines} == {("shard", "key", "reason")}


def test_refusals(tmp_path, shapes):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        verify(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"holds no \.tar"):
        verify(str(tmp_path))
    with pytest.raises(ValueError, match="has no split 'test'"):
        verify(str(shapes), config=VerifyConfig(splits=("test",)))
    write_tar(tmp_path / "a.tar", [("x", {"jpg": b"x", "txt": b"x"})])
    with pytest.raises(ValueError, match="has no splits"):
        verify(str(tmp_path), config=VerifyConfig(splits=("train",)))
    found = defects(verify(str(tmp_path)))
    assert "not laid out as a pocketclip shard" in found["a.tar", ""]
    for wrong in ({"workers": 0}, {"sample": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            VerifyConfig(**wrong)
