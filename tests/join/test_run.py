"""Published reinforcements and pictures become a reinforced folder; what is missing is listed with its reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.published_sets import (
    Sample,
    columns,
    draw_picture,
    make_sample,
    members,
    rounded,
    unit_rows,
    write_images,
    write_published,
    write_tar,
)

from pocketclip.data.augment import unpack
from pocketclip.data.index import ShardIndex, read_index, write_index
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement, TeacherRecord
from pocketclip.data.sample import Sample as OurSample
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.join import JoinConfig, JoinReport, PictureSources, join

pytest.importorskip("torch")  # writes the pth.gz

V1 = ("OpenAI-ViT-L-14", "DataComp-XL-ViT-L-14")
V2 = ("DFN2B-CLIP-ViT-L-14", "DFN2B-CLIP-ViT-L-14-39B")


@pytest.fixture
def samples() -> list[Sample]:
    return [make_sample(number) for number in range(6)]


def joined(
    folder: Path, *, images: Sequence[Path | str] = (), config: JoinConfig | None = None, **sources
) -> JoinReport:
    config = config or JoinConfig()
    pictures = PictureSources(images=tuple(map(str, images)), num_threads=2, **sources)
    return join(str(folder / "dr"), folder / "out", config=config, pictures=pictures)


def shard(folder: Path, name: str = "train/00000000.tar") -> tuple[list[OurSample], Reinforcement]:
    reader = ShardReader(folder / "out" / name)
    block = reader.block(BLOCK_NAME)
    assert block is not None
    return list(reader), Reinforcement(block, name=name)


def missing(folder: Path) -> dict[str, str]:
    lines = (folder / "out" / "missing.jsonl").read_text().splitlines()
    return {line["uid"]: line["reason"] for line in map(json.loads, lines)}


def rows_of(block: Reinforcement, number: int, teacher: str) -> tuple[np.ndarray, np.ndarray]:
    views = np.arange(block.num_views)
    texts = np.arange(block.text_offsets[number + 1] - block.text_offsets[number])
    return (
        block.image_rows(teacher, np.full(len(views), number), views),
        block.text_rows(teacher, np.full(len(texts), number), texts),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What comes out


@pytest.mark.parametrize("storage", ["npz", "pth.gz"])
@pytest.mark.parametrize(
    ("generation", "keys", "teachers"),
    [("v1", ("syn_text",), V1), ("v2", ("syn_text_b", "syn_text_a"), V2)],
)
def test_every_row_belongs_to_its_own_sample(tmp_path, generation, keys, teachers, storage):
    samples = [make_sample(number, keys=keys, num_views=4) for number in range(7)]
    layout = {"generation": generation, "storage": storage, "views_as_text": storage == "npz"}
    write_published(tmp_path / "dr" / "00000000.tar", samples, with_caption=False, **layout)
    write_images(tmp_path / "images" / "b.tar", samples[::-1])
    report = joined(tmp_path, images=[tmp_path / "images"])
    assert (report.num_missing, report.kinds) == (0, {})
    ours, block = shard(tmp_path)
    assert [record.name for record in block.header.teachers] == list(teachers)
    assert block.header.codec == "bf16"
    assert [one.key for one in ours] == [sample.uid for sample in samples]
    for number, (one, sample) in enumerate(zip(ours, samples, strict=True)):
        assert one.image == sample.image
        assert one.captions == (sample.caption,)
        assert one.synthetic == {key: tuple(texts) for key, texts in sample.synthetic.items()}
        assert one.meta == {"uid": sample.uid, "url": sample.url, "sha256": sample.sha256}
        texts = np.concatenate([sample.text_emb, *(sample.synthetic_emb[key] for key in sorted(keys))])
        for teacher, image, text in zip(teachers, columns(sample.image_emb), columns(texts), strict=True):
            got_image, got_text = rows_of(block, number, teacher)
            np.testing.assert_array_equal(got_image, rounded(image))
            np.testing.assert_array_equal(got_text, rounded(text))
        views = [unpack(params) for params in block.augment_params_NAP[number]]
        assert [(view.width, view.height, list(view.crop)) for view in views] == [
            (96, 72, crop) for crop, _ in sample.param_aug
        ]


def test_pictures_in_the_shards_themselves_are_used(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    report = joined(tmp_path)
    assert (report.index.num_samples(), report.num_missing) == (6, 0)


@pytest.mark.parametrize("source", ["tars", "pattern", "one tar", "files", "packed", "by address"])
def test_pictures_come_from_wherever_they_are(tmp_path, samples, source):
    write_published(tmp_path / "dr" / "a.tar", samples, with_caption=False)
    images = tmp_path / "images"
    asked: list[Path | str] = [images]
    match source:
        case "tars" | "pattern":
            write_images(images / "000.tar", samples[:3])
            write_images(images / "001.tar", samples[3:])
            asked = [f"{images}/{{000..001}}.tar"] if source == "pattern" else asked
        case "one tar":
            asked = [write_images(images / "000.tar", samples)]
        case "by address":
            write_images(images / "000.tar", samples, with_uid=False)
        case "files":
            for number, sample in enumerate(samples):
                folder = images / str(number % 2)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{sample.uid}.jpg").write_bytes(sample.image)
                (folder / f"{sample.uid}.txt").write_text(f"{sample.caption}\nanother caption")
        case "packed":
            packed = [
                OurSample(
                    key=f"k{number}",
                    image=sample.image,
                    extension="jpg",
                    captions=(sample.caption or "",),
                    meta={"uid": sample.uid},
                )
                for number, sample in enumerate(samples)
            ]
            entry = write_shard(images / "train" / "000000.tar", packed)
            write_index(images, ShardIndex(source="x", splits={"train": (entry,)}))
    report = joined(tmp_path, images=asked)
    assert (report.index.num_samples(), report.kinds) == (6, {})
    ours, _ = shard(tmp_path, "train/a.tar")
    assert [one.image for one in ours] == [sample.image for sample in samples]
    assert [one.captions for one in ours] == [(sample.caption,) for sample in samples]


def test_shards_keep_their_folders_and_names(tmp_path, samples):
    for number, name in enumerate(["00/00000000.tar", "00/00000001.tar", "65/00000535.tar"]):
        write_published(tmp_path / "dr" / name, samples[2 * number : 2 * number + 2], with_image=True)
    report = joined(tmp_path)
    assert [entry.file for entry in report.index.splits["train"]] == [
        "train/00/00000000.tar",
        "train/00/00000001.tar",
        "train/65/00000535.tar",
    ]
    for entry in report.index.splits["train"]:
        assert (entry.num_samples, entry.sha256) == (2, sha256_file(tmp_path / "out" / entry.file))
    pattern = str(tmp_path / "dr" / "{00..00}" / "{00000000..00000001}.tar")
    report = join(pattern, tmp_path / "two", pictures=PictureSources())
    assert [entry.file for entry in report.index.splits["train"]] == [
        "train/00000000.tar",
        "train/00000001.tar",
    ]


def test_the_manifest_and_the_index_say_what_was_done(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples[:4])
    write_published(tmp_path / "dr" / "b.tar", samples[4:])
    write_images(tmp_path / "images.tar", samples[1:4])
    report = joined(tmp_path, images=[tmp_path / "images.tar"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [(line["shard"], line["input"], line["num_samples"]) for line in lines] == [
        ("train/a.tar", "a.tar", 3),
        ("train/b.tar", "b.tar", 0),
    ]
    assert lines[0]["input_sha256"] == sha256_file(tmp_path / "dr" / "a.tar")
    assert lines[0]["num_texts"] == 18
    assert [entry.file for entry in report.index.splits["train"]] == ["train/a.tar"]
    assert report.kinds == {"no picture": 3}
    assert set(missing(tmp_path)) == {samples[0].uid, samples[4].uid, samples[5].uid}
    assert next(drop.source for drop in report.index.dropped) == f"train/a.tar: {samples[0].uid}"
    config = report.index.config
    assert (config["num_dropped"], config["codec"], config["num_views"]) == (3, "bf16", 3)
    assert set(config["errors"]) == {f"{side}/{name}" for side in ("image", "text") for name in V1}
    assert contents(tmp_path / "out").keys() == {
        "train/a.tar",
        "index.json",
        "manifest.jsonl",
        "missing.jsonl",
    }
    _, block = shard(tmp_path, "train/a.tar")
    assert block.header.dropped == {samples[0].uid: "no picture: none of the images has its uid or address"}


# Whose embeddings


def test_teachers_can_be_named(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    report = joined(tmp_path, config=JoinConfig(generation="v2"))
    assert [teacher["name"] for teacher in report.index.config["teachers"]] == list(V2)
    own = tuple(
        TeacherRecord(name=name, embed_dim=width, logit_scale=scale, digest="mine")
        for name, width, scale in (("a", 768, 10.0), ("b", 512, 20.0), ("c", 256, 30.0))
    )
    for sample in samples:  # three blocks of length 1
        for rows in (sample.image_emb, sample.text_emb, *sample.synthetic_emb.values()):
            for start, stop in ((0, 768), (768, 1280), (1280, 1536)):
                rows[:, start:stop] /= np.linalg.norm(rows[:, start:stop], axis=1, keepdims=True)
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    shutil.rmtree(tmp_path / "out")
    joined(tmp_path, config=JoinConfig(teachers=own))
    _, block = shard(tmp_path, "train/a.tar")
    assert block.header.teachers == own
    np.testing.assert_array_equal(rows_of(block, 2, "b")[0], rounded(samples[2].image_emb[:, 768:1280]))


def test_whose_they_are_must_be_said_where_nothing_tells(tmp_path):
    sample = make_sample(0, keys=("other",))
    write_published(tmp_path / "dr" / "a.tar", [sample], with_image=True, generation="v2")
    with pytest.raises(ValueError, match="name them, or say v1 or v2"):
        joined(tmp_path)
    assert joined(tmp_path, config=JoinConfig(generation="v2")).index.num_samples() == 1


def test_columns_of_other_teachers_are_missing_with_their_reason(tmp_path, samples):
    other = (TeacherRecord(name="a", embed_dim=1000, logit_scale=1.0, digest=""),)
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    with pytest.raises(ValueError, match="1536 columns where the teachers have 1000"):
        joined(tmp_path, config=JoinConfig(teachers=other))


# What is missing


def test_reasons(tmp_path):
    samples = [make_sample(number) for number in range(13)]
    good, gone, other, cut, small, silent, twice, views, long, nan, jpg, half, text = samples
    other_image = replace(other, image=draw_picture(99), sha256="")
    cut_image = replace(cut, image=cut.image[: len(cut.image) // 2], sha256="")
    small_image = replace(small, image=draw_picture(5, width=40, height=30), sha256="")
    other.param_aug[0][0] = [0, 0, 72, 96]
    small.sha256 = cut.sha256 = ""
    small.param_aug[0][0] = [10, 10, 62, 86]
    silent.caption = None
    views.param_aug, views.image_emb = views.param_aug[:2], views.image_emb[:2]
    long.image_emb[1] *= 1.5
    nan.text_emb[0, 7] = np.nan
    text.param_aug[1][1][0] = [1, 0.123]
    written = [
        (sample.uid, members(sample, with_caption=False))
        for sample in (good, gone, other, cut, small, silent, views, long, nan, jpg, text)
    ]
    written[9][1].pop("paug.json")
    written.insert(3, (good.uid + "/x", members(good, with_caption=False)))  # the same uid in its json
    written.append((half.uid, members(half)))
    path = write_tar(tmp_path / "dr" / "a.tar", written)
    path.write_bytes(path.read_bytes()[:-30_000])
    write_images(
        tmp_path / "images.tar",
        [good, other_image, cut_image, small_image, silent, twice, views, long, nan, jpg, text],
    )
    report = joined(tmp_path, images=[tmp_path / "images.tar"])
    reasons = missing(tmp_path)
    assert report.index.num_samples() == 1
    assert reasons[gone.uid] == "no picture: none of the images has its uid or address"
    assert reasons[other.uid].startswith(
        f"another picture: its sha256 is {hashlib.sha256(other_image.image).hexdigest()}"
    )
    assert reasons[cut.uid].startswith("damaged picture: the picture is damaged or cut off")
    assert reasons[small.uid].startswith(
        "other size: its views were drawn for a picture of at least 96x72, this is 40x30"
    )
    assert reasons[silent.uid] == "no caption: neither published nor with the picture nor in a table"
    assert reasons[good.uid] == "duplicate uid: another sample of the shard has it already"
    assert reasons[views.uid] == "other views: it has 2, the first sample of the shard has 3"
    assert "view 1 of OpenAI-ViT-L-14 has length 1.500, not 1" in reasons[long.uid]
    assert "text_emb has values that are not finite" in reasons[nan.uid]
    assert "no augmentation parameters" in reasons[jpg.uid]
    assert "shear_x has magnitude 0.123, which is none of 31 bins" in reasons[text.uid]
    assert any("the tar is cut" in reason for reason in reasons.values())
    assert (
        sum(report.kinds.values()) == report.num_missing == len(written)
    )  # and the cut tar itself, less the good one
    assert report.kinds["unreadable reinforcement"] == 4


def test_a_hash_that_differs_can_be_ignored(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples)
    for sample in samples:
        sample.sha256 = ""
        sample.image = draw_picture(50)
    write_images(tmp_path / "images.tar", samples)
    with pytest.raises(ValueError, match="another picture"):
        joined(tmp_path, images=[tmp_path / "images.tar"])
    shutil.rmtree(tmp_path / "out")
    report = joined(tmp_path, images=[tmp_path / "images.tar"], config=JoinConfig(sha256="ignore"))
    assert report.num_missing == 0


def test_a_picture_stored_anew_passes_by_the_hash_of_its_download(tmp_path, samples):
    """img2dataset notes the hash of what it downloaded, then shrinks and encodes it again."""
    write_published(tmp_path / "dr" / "a.tar", samples)
    write_images(
        tmp_path / "images.tar",
        [replace(one, image=draw_picture(i, quality=50)) for i, one in enumerate(samples)],
    )
    assert joined(tmp_path, images=[tmp_path / "images.tar"]).num_missing == 0


def test_pictures_larger_than_they_were_can_be_shrunk_and_are_told(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples)
    large = [replace(one, image=draw_picture(i, width=384, height=288)) for i, one in enumerate(samples)]
    write_images(tmp_path / "images.tar", large)
    report = joined(tmp_path, images=[tmp_path / "images.tar"])
    assert report.num_loose == 6
    shutil.rmtree(tmp_path / "out")
    report = joined(tmp_path, images=[tmp_path / "images.tar"], config=JoinConfig(longest_px=96))
    assert (report.num_loose, report.num_missing) == (0, 0)
    _, block = shard(tmp_path, "train/a.tar")
    assert (block.augment_params_NAP[:, :, :2] == (96, 72)).all()


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_captions_from_a_table(tmp_path, samples, kind):
    write_published(tmp_path / "dr" / "a.tar", samples, with_caption=False)
    for sample in samples:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{sample.uid}.jpg").write_bytes(sample.image)
    table = tmp_path / f"captions{kind}"
    rows = [{"uid": sample.uid, "text": f'of the table, "{i}"'} for i, sample in enumerate(samples[:5])]
    if kind == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), table)
    else:
        separator = "," if kind == ".csv" else "\t"
        lines = [separator.join(['"' + row[name].replace('"', '""') + '"' for name in row]) for row in rows]
        table.write_text("\n".join([f"uid{separator}text", *lines]))
    report = joined(tmp_path, images=[tmp_path / "images"], captions=table)
    assert report.kinds == {"no caption": 1}
    ours, _ = shard(tmp_path, "train/a.tar")
    assert [one.captions[0] for one in ours] == [row["text"] for row in rows]


def test_several_ground_truth_captions_keep_their_rows(tmp_path):
    sample = make_sample(0)
    sample.text_emb = unit_rows(np.random.default_rng(5), 3)
    sample.rest = {"texts": ["one", "two", "two"]}
    write_published(
        tmp_path / "dr" / "00000000.tar", [sample], generation="v2", with_image=True, with_caption=False
    )
    joined(tmp_path)
    ours, block = shard(tmp_path)
    assert ours[0].captions == ("one", "two", "two")
    np.testing.assert_array_equal(rows_of(block, 0, V2[1])[1][:3], rounded(columns(sample.text_emb)[1]))


# Once


def test_a_finished_folder_is_left_alone(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples)
    write_images(tmp_path / "images.tar", samples[:4])
    first = joined(tmp_path, images=[tmp_path / "images.tar"])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert joined(tmp_path, images=[tmp_path / "images.tar"]) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_retry_finds_what_has_come_since_and_only_that(tmp_path, samples):
    for number in range(3):
        write_published(
            tmp_path / "dr" / f"{number}.tar", samples[2 * number : 2 * number + 2], with_caption=False
        )
    write_images(tmp_path / "images" / "0.tar", samples[:3])
    assert joined(tmp_path, images=[tmp_path / "images"]).kinds == {"no picture": 3}
    kept = (tmp_path / "out" / "train" / "0.tar").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "images")
    write_images(tmp_path / "more.tar", samples[3:5])  # the first pictures are in the joined folder alone
    report = joined(tmp_path, images=[tmp_path / "more.tar"], retry=True)
    assert report.kinds == {"no picture": 1}
    assert (tmp_path / "out" / "train" / "0.tar").stat().st_mtime_ns == kept
    write_images(tmp_path / "all.tar", samples)
    join(
        str(tmp_path / "dr"),
        tmp_path / "at_once",
        pictures=PictureSources(images=(str(tmp_path / "more.tar"), str(tmp_path / "all.tar"))),
    )
    report = joined(tmp_path, images=[tmp_path / "all.tar"], retry=True)
    assert report.num_missing == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "at_once")


def test_retry_that_finds_nothing_changes_nothing(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples)
    write_images(tmp_path / "images.tar", samples[:4])
    joined(tmp_path, images=[tmp_path / "images.tar"])
    before = contents(tmp_path / "out")
    joined(tmp_path, images=[tmp_path / "images.tar"], retry=True)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_or_other_data_is_refused(tmp_path, samples, finished):
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    if finished:
        joined(tmp_path)
    else:
        (tmp_path / "out" / ".join").mkdir(parents=True)
        (tmp_path / "out" / ".join" / "done.jsonl").write_text('{"digest":"x","version":1}\n')
    before = contents(tmp_path / "out")
    for config in (JoinConfig(codec="int8"), JoinConfig(generation="v2"), JoinConfig(longest_px=5)):
        with pytest.raises(ValueError, match="another configuration or from other data"):
            joined(tmp_path, config=config)
    write_published(tmp_path / "dr" / "b.tar", samples[:1], with_image=True)
    with pytest.raises(ValueError, match="another configuration or from other data"):
        joined(tmp_path)
    assert contents(tmp_path / "out") == before


def test_an_output_that_is_somebodys_is_refused(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds other files \(holiday.jpg\)"):
        joined(tmp_path)
    with pytest.raises(ValueError, match="holds the published shards themselves"):
        join(str(tmp_path / "dr"), tmp_path / "dr", pictures=PictureSources())
    assert contents(tmp_path / "out") == {"holiday.jpg": b"x"}


def test_a_damaged_index_of_images_is_made_again(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples)
    write_images(tmp_path / "images.tar", samples)
    (tmp_path / "out" / ".join").mkdir(parents=True)
    (tmp_path / "out" / ".join" / "images.sqlite").write_bytes(b"cut off by a kill")
    assert joined(tmp_path, images=[tmp_path / "images.tar"]).num_missing == 0


# Refusals


def test_sources_that_are_not_there(tmp_path, samples):
    for where in ("nowhere", "dr/{0..3}.tar"):
        with pytest.raises(FileNotFoundError, match="no such file|4 of the 4 shards .* are not there"):
            join(str(tmp_path / where), tmp_path / "out", pictures=PictureSources())
    (tmp_path / "dr").mkdir()
    with pytest.raises(ValueError, match="holds no .tar"):
        joined(tmp_path)
    write_published(tmp_path / "dr" / "a.tar", samples)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        joined(tmp_path, images=[tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match="is not there, though"):
        joined(tmp_path, images=[f"{tmp_path}/{{0..3}}.tar"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither tars nor pictures"):
        joined(tmp_path, images=[tmp_path / "empty"])
    with pytest.raises(ValueError, match="there is no picture in them"):
        joined(tmp_path, images=[tmp_path / "dr"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", "{", "cannot be read as a table of captions"),
        ("c.jsonl", '{"a": 1}', "has no captions: it needs the columns uid and text"),
        ("c.csv", "a,b\n1,2\n", "has no captions"),
        ("c.txt", "x", "it is none of .jsonl"),
        ("c.parquet", "x", "cannot be read as a table of captions"),
    ],
)
def test_tables_that_are_none(tmp_path, samples, name, content, message):
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        joined(tmp_path, captions=tmp_path / name)


def test_not_one_picture(tmp_path, samples):
    write_published(tmp_path / "dr" / "a.tar", samples)
    with pytest.raises(ValueError, match=r"not one sample of .*dr can be joined; train/a.tar: .*no picture"):
        joined(tmp_path)
    write_images(tmp_path / "images.tar", samples)
    assert joined(tmp_path, images=[tmp_path / "images.tar"], retry=True).num_missing == 0
    assert read_index(tmp_path / "out").num_samples() == 6


def test_settings_that_make_no_sense():
    teacher = TeacherRecord(name="a", embed_dim=1, logit_scale=1.0, digest="")
    for wrong, message in (
        ({"synthetic": "("}, "no regular expression"),
        ({"teachers": (teacher, teacher)}, "two teachers have one name"),
        ({"longest_px": 0}, "longest_px"),
    ):
        with pytest.raises(ValueError, match=message):
            JoinConfig(**wrong)
    with pytest.raises(ValueError, match="num_threads"):
        PictureSources(num_threads=0)


def test_the_augmentations_configuration_lies_beside_the_shards_or_is_given(tmp_path, samples):
    crop_only = {"random_resized_crop": {"size": 224, "interpolation": "bicubic"}}
    for sample in samples:
        sample.param_aug = [[crop] for crop, _ in sample.param_aug]
    write_published(tmp_path / "dr" / "a.tar", samples, with_image=True)
    with pytest.raises(ValueError, match="the 2 parameters random_resized_crop, rand_augment"):
        joined(tmp_path)
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "crop.json").write_text(json.dumps(crop_only))
    joined(tmp_path, config=JoinConfig(augment=tmp_path / "crop.json"))
    given = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "dr" / "config.json").write_text(json.dumps(crop_only))
    joined(tmp_path)
    assert contents(tmp_path / "out") == given
    _, block = shard(tmp_path, "train/a.tar")
    assert block.header.augment.num_ops == 0
