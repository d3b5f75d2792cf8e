"""The doctor finds what was planted, names it on a page that stands alone, and leaves the rest in peace."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.index import ShardIndex, read_index, write_index
from pocketclip.data.sample import Sample
from pocketclip.data.shard import write_shard
from pocketclip.search.doctor import Diagnosis, DoctorConfig, examine, write_clean
from pocketclip.search.doctor.findings import (
    alike,
    find_captions,
    find_duplicates,
    find_misfits,
    signature,
)
from pocketclip.search.doctor.map import atlas, cover, num_columns, project
from pocketclip.search.doctor.samples import (
    Lost,
    Pictures,
    ShardSample,
    list_shards,
    read_shard,
    split_of,
)

TINTS = {"red": (200, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 200)}


def mosaic(colour: tuple[int, int, int], seed: int, *, size: int = 64) -> Image.Image:
    """A pattern of its own in shades of a colour."""
    generator = np.random.default_rng(seed)
    shade_HW = generator.uniform(0.3, 1.2, (6, 6))
    pixels = np.clip(shade_HW[..., None] * np.array(colour) + generator.normal(0, 8, (6, 6, 3)), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def jpg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def sample(key: str, image: bytes, caption: str, extension: str = "png") -> Sample:
    return Sample(key=key, image=image, extension=extension, captions=(caption,))


def plain_samples(num: int, *, prefix: str, seed: int) -> list[Sample]:
    names = list(TINTS)
    return [
        sample(f"{prefix}{i:03d}", png(mosaic(TINTS[names[i % 3]], seed + i)), names[i % 3])
        for i in range(num)
    ]


def pack(folder: Path, splits: dict[str, list[Sample]]) -> Path:
    entries = {
        name: (write_shard(folder / name / "000000.tar", samples),) for name, samples in splits.items()
    }
    write_index(folder, ShardIndex(source="drawn", splits=entries))
    return folder


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty good samples, and one of every defect."""
    train = plain_samples(60, prefix="train", seed=0)
    validation = plain_samples(12, prefix="validation", seed=1000)
    train[7], train[8] = (  # green and blue
        replace(train[7], captions=train[8].captions),
        replace(train[8], captions=train[7].captions),
    )
    train += [
        replace(train[3], key="copy"),
        sample("white", png(mosaic((235, 235, 235), 77)), "white <script>alert"),
        sample("cut", png(mosaic(TINTS["red"], 555))[:300], "red"),
        sample("dots", png(mosaic(TINTS["red"], 556)), "red and so on..."),
        sample("camera", png(mosaic(TINTS["red"], 557)), "IMG_20240501.jpg"),
        sample("wordy", png(mosaic(TINTS["blue"], 558)), "blue " * 40),
    ]
    with Image.open(io.BytesIO(train[5].image)) as image:  # smaller, compressed, a little lighter
        leaked = jpg(image.convert("RGB").resize((48, 48)).point(lambda value: min(255, round(value * 1.06))))
    validation.append(sample("leaked", leaked, "blue", "jpg"))
    return pack(tmp_path_factory.mktemp("sick") / "set", {"train": train, "validation": validation})


@pytest.fixture(scope="module")
def report(
    sick: Path, colour_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Diagnosis, Path]:
    out = tmp_path_factory.mktemp("report") / "out"
    return examine(str(sick), out, model=colour_model), out


def keys(out: Path, name: str) -> list[str]:
    return (out / name).read_text().splitlines()


def test_every_planted_defect_is_found_and_nothing_else(report: tuple[Diagnosis, Path]):
    diagnosis, _ = report
    name = {number: sample.key for number, sample in enumerate(diagnosis.samples)}
    groups = {tuple(name[member] for member in group.members): group for group in diagnosis.duplicates}
    assert set(groups) == {("train003", "copy"), ("train005", "leaked")}
    assert groups["train003", "copy"].kind == "exact"
    assert name[groups["train003", "copy"].keep] == "train003"
    assert groups["train005", "leaked"].kind == "near"
    assert name[groups["train005", "leaked"].keep] == "leaked"  # what to test with stays
    assert groups["train005", "leaked"].splits == ("train", "validation")
    assert {name[one.sample] for one in diagnosis.misfits} >= {"train007", "train008"}
    assert {name[one.sample] for one in diagnosis.misfits} <= {
        "train007",
        "train008",
        "white",
        "wordy",
        "camera",
    }
    assert name[diagnosis.outliers[0].sample] == "white"
    assert diagnosis.outliers[0].z > 3 * diagnosis.outliers[1].z
    assert {name[one.sample]: one.fault for one in diagnosis.captions} == {
        **dict.fromkeys([n for n in name.values() if n.startswith(("train", "val"))], "repeated"),
        "dots": "cut off",
        "camera": "file name",
        "wordy": "too long",
        "copy": "repeated",
        "leaked": "repeated",
    }
    assert [(lost.key, lost.split) for lost in diagnosis.lost] == [("cut", "train")]
    assert "damaged or cut off" in diagnosis.lost[0].reason


def test_a_mislabelled_caption_comes_with_a_better_one(report: tuple[Diagnosis, Path]):
    diagnosis, _ = report
    found = {diagnosis.samples[one.sample].key: one for one in diagnosis.misfits}
    swapped = found["train007"]
    assert diagnosis.samples[swapped.sample].caption == "blue"
    assert diagnosis.samples[swapped.better].caption == "green"
    assert swapped.better_cosine > swapped.own + 0.2
    assert swapped.captions_better > 0.2


def test_lists_name_what_to_drop(report: tuple[Diagnosis, Path]):
    _, out = report
    assert keys(out, "leaked.txt") == ["train005"]
    assert keys(out, "duplicates.txt") == ["train005", "copy"]
    assert "white" in keys(out, "outliers.txt")
    assert keys(out, "drop.txt") == ["train005", "copy", "camera"]
    values = json.loads((out / "doctor.json").read_text())
    assert values["splits"] == {"train": 65, "validation": 13}
    assert values["duplicates"][0]["keep"]["key"] == "train003"
    assert values["lost"][0]["key"] == "cut"
    assert sum(cluster["num_samples"] for cluster in values["clusters"]) == 78


def test_the_page_stands_alone_and_nothing_of_the_set_is_markup(report: tuple[Diagnosis, Path]):
    _, out = report
    page = (out / "doctor.html").read_text()
    assert "default-src 'none'" in page
    for outside in ('src="http', "src='http", "url(http", "@import", '<link rel="stylesheet"'):
        assert outside not in page
    assert "<script>alert" not in page
    assert "white &lt;script&gt;alert" in page
    for key in ("train007", "leaked", "copy", "white"):
        assert key in page


def test_the_same_set_gives_the_same_report(
    sick: Path, report: tuple[Diagnosis, Path], colour_model: Path, tmp_path: Path
):
    examine(str(sick), tmp_path, model=colour_model)
    for name in ("doctor.html", "drop.txt", "mislabelled.txt"):
        assert (tmp_path / name).read_bytes() == (report[1] / name).read_bytes()


def test_without_scikit_learn_the_map_is_drawn_by_pca(
    sick: Path, colour_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    diagnosis = examine(str(sick), tmp_path, model=colour_model, config=DoctorConfig(max_map=20))
    assert diagnosis.coverage.projection == "PCA"
    assert len(diagnosis.coverage.sample_C) == 20
    assert "by PCA" in (tmp_path / "doctor.html").read_text()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_plain_tars_are_read_with_their_defects(tmp_path: Path, colour_model: Path):
    for split, seed in (("train", 0), ("test", 500)):
        (tmp_path / "set" / split).mkdir(parents=True)
        with tarfile.open(tmp_path / "set" / split / "0000.tar", "w") as tar:
            for one in plain_samples(12, prefix=split, seed=seed):
                add(tar, f"{one.key}.png", one.image)
                add(tar, f"{one.key}.txt", one.captions[0].encode())
            add(tar, "silent.png", png(mosaic(TINTS["red"], 1)))
            add(tar, "blind.txt", b"a caption")
    diagnosis = examine(str(tmp_path / "set"), tmp_path / "out", model=colour_model)
    assert diagnosis.splits == {"test": 13, "train": 13}
    assert {(lost.split, lost.key) for lost in diagnosis.lost} == {("train", "blind"), ("test", "blind")}
    assert "no picture (it has txt)" in diagnosis.lost[0].reason
    assert [one.fault for one in diagnosis.captions if diagnosis.samples[one.sample].key == "silent"] == [
        "empty"
    ] * 2
    assert {diagnosis.samples[member].key for group in diagnosis.leaks for member in group.members} == {
        "silent"
    }


def test_a_cut_shard_costs_its_own_samples_alone(sick: Path, tmp_path: Path, colour_model: Path):
    shutil.copytree(sick, tmp_path / "set")
    shard = tmp_path / "set/validation/000000.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    diagnosis = examine(str(tmp_path / "set"), tmp_path / "out", model=colour_model)
    assert diagnosis.splits == {"train": 65}
    assert any(lost.shard == "validation/000000.tar" and "is cut" in lost.reason for lost in diagnosis.lost)


def test_places_give_the_same_pictures_again(sick: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "0000.tar", "w") as tar:
        for one in plain_samples(3, prefix="x", seed=0):
            add(tar, f"{one.key}.png", one.image)
            add(tar, f"{one.key}.txt", b"text")
    pictures = Pictures()
    for source in (sick, tmp_path / "0000.tar"):
        for shard in list_shards(str(source)):
            for one in read_shard(shard):
                assert not isinstance(one, Lost)
                assert isinstance(one, ShardSample)
                assert pictures.read(one.place) == one.image


@pytest.mark.parametrize(
    ("name", "split"),
    [("train/0.tar", "train"), ("cc12m-train-0000.tar", "train"), ("val_03.tar", "val"), ("00000.tar", "all"),
     ("training.tar", "all"), ("x/test-1.tar", "x")],
)  # fmt: skip
def test_names_tell_the_split(name: str, split: str):
    assert split_of(name) == split


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"")]
)
def test_a_useless_source_is_refused(tmp_path: Path, make, colour_model: Path):
    make(tmp_path / "set")
    with pytest.raises((ValueError, FileNotFoundError), match="set"):
        examine(str(tmp_path / "set"), tmp_path / "out", model=colour_model)
    assert not (tmp_path / "out").exists()


def test_copies_are_told_from_pictures_of_the_same_thing():
    image = mosaic(TINTS["red"], 0, size=300)
    width, height = image.size
    copies = [
        Image.open(io.BytesIO(jpg(image))),
        image.resize((100, 100)),
        image.point(lambda value: min(255, round(value * 1.1))),
        image.crop((4, 4, width - 4, height - 4)),
    ]
    others = [mosaic(TINTS["red"], seed, size=300) for seed in range(1, 30)]

    def count(images: list[Image.Image]) -> int:
        rows = np.stack([signature(one.convert("RGB")) for one in images])
        return int(alike(np.repeat(signature(image)[None], len(rows), axis=0), rows, correlation=0.95).sum())

    assert count(copies) == len(copies)
    assert count(others) == 0
    flat = np.stack([signature(Image.new("RGB", (9, 9), colour)) for colour in ("white", "white", "beige")])
    assert alike(flat[[0, 0]], flat[[1, 2]], correlation=0.95).tolist() == [True, False]


def unit(rows_ND: np.ndarray) -> np.ndarray:
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("noise", "least"), [(0.5, 20), (0.8, 17)])
def test_swapped_captions_come_first(noise: float, least: int):
    generator = np.random.default_rng(0)
    meaning = generator.standard_normal((600, 32))
    image_ND = unit(
        meaning + noise * generator.standard_normal(meaning.shape) + 3
    )  # embeddings lie in a cone
    text_ND = unit(
        meaning + noise * generator.standard_normal(meaning.shape) - 3
    )  # and those of texts in another
    swapped = generator.choice(600, 20, replace=False)
    text_ND[swapped] = text_ND[np.roll(swapped, 1)]
    number_N = np.arange(600)
    found = find_misfits(image_ND, text_ND, caption_N=number_N, group_N=number_N, threshold=1.5)
    assert len(set(swapped) & {one.sample for one in found[:20]}) >= least
    right = dict(zip(np.roll(swapped, 1).tolist(), swapped.tolist(), strict=True))
    guessed = [one.better == right[one.sample] for one in found if one.sample in right]
    assert np.mean(guessed) > 0.7


def test_a_good_set_has_no_misfits_and_the_same_caption_is_no_better_one():
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 8, 400)
    meaning = generator.standard_normal((8, 32))
    text_ND = unit(meaning)[kinds]
    image_ND = unit(meaning[kinds] + 0.7 * generator.standard_normal((400, 32)))
    found = find_misfits(image_ND, text_ND, caption_N=kinds, group_N=np.arange(400), threshold=4.0)
    assert len(found) <= 2
    assert all(kinds[one.better] != kinds[one.sample] for one in found)
    assert (
        find_misfits(image_ND[:4], text_ND[:4], caption_N=kinds[:4], group_N=np.arange(4), threshold=4.0)
        == []
    )


def test_the_copy_to_test_with_is_kept_else_the_largest():
    rows_ND = unit(np.ones((4, 8)))
    signature_NS = np.repeat(signature(mosaic(TINTS["red"], 0))[None], 4, axis=0)
    digests = [b"a", b"b", b"c", b"d"]
    pixels = [10, 30, 20, 30]
    settings = {"num_pixels": pixels, "cosine": 0.9, "correlation": 0.9}
    (group,) = find_duplicates(
        rows_ND, signature_NS, digests, splits=["train", "train", "train", "train"], **settings
    )
    assert (group.keep, group.kind, group.members) == (1, "near", (0, 1, 2, 3))
    (group,) = find_duplicates(
        rows_ND, signature_NS, digests, splits=["train", "train", "test", "train"], **settings
    )
    assert group.keep == 2


def test_captions_that_say_nothing():
    captions = [
        "a dog",
        "",
        " ?! ",
        "IMG_0042",
        "dsc 001",
        "cat.jpeg",
        "20240501_1234",
        "so it went…",
        "photo",
        "no. 7",
    ]
    digests = [bytes([number]) for number in range(len(captions))]
    found = find_captions(captions, [3] * len(captions), most_tokens=77, sha256=digests)
    assert {captions[one.sample]: one.fault for one in found} == {
        "": "empty", " ?! ": "empty", "IMG_0042": "file name", "dsc 001": "file name", "cat.jpeg": "file name",
        "20240501_1234": "file name", "so it went…": "cut off",
    }  # fmt: skip


def test_a_caption_is_repeated_by_different_pictures_only():
    same = find_captions(["a dog"] * 9, [3] * 9, most_tokens=77, sha256=[b"one"] * 9)
    other = find_captions(["a dog"] * 9, [3] * 9, most_tokens=77, sha256=[bytes([i]) for i in range(9)])
    assert same == []
    assert [one.fault for one in other] == ["repeated"] * 9


def test_a_map_keeps_neighbours_together():
    pytest.importorskip("sklearn")
    generator = np.random.default_rng(0)
    kinds = np.repeat(np.arange(3), 40)
    rows_ND = unit(np.eye(16)[kinds] + 0.1 * generator.standard_normal((120, 16)))
    place_C2, projection = project(rows_ND, seed=0)
    assert projection == "t-SNE"
    assert place_C2.min() == 0
    assert place_C2.max() == 1
    distance = np.linalg.norm(place_C2[:, None] - place_C2[None], axis=-1) + 9 * np.eye(120)
    assert (kinds[distance.argmin(axis=1)] == kinds).mean() > 0.97


@pytest.mark.parametrize("num", [1, 2, 5])
def test_a_map_of_very_few(num: int):
    rows_ND = unit(np.random.default_rng(0).standard_normal((num, 8)))
    coverage = cover(rows_ND, rows_ND, captions=["x"] * num, splits=["all"] * num, most=10)
    assert np.isfinite(coverage.place_C2).all()
    assert sum(cluster.num_samples for cluster in coverage.clusters) == num


def test_every_picture_has_its_place_on_the_sheet():
    colours = [(index * 20, 0, 0) for index in range(7)]
    with Image.open(
        io.BytesIO(atlas((Image.new("RGB", (30, 20), c) for c in colours), 7, tile_px=16))
    ) as sheet:
        columns = num_columns(7)
        for index, (red, _, _) in enumerate(colours):
            at = (index % columns * 16 + 8, index // columns * 16 + 8)
            assert abs(sheet.convert("RGB").getpixel(at)[0] - red) < 8


def test_the_verb_says_what_it_found(cli, sick: Path, colour_model: Path, tmp_path: Path):
    ran = cli("doctor", str(sick), tmp_path / "out", "--model", colour_model)
    assert ran.code == 0
    assert "1 groups of copies across splits" in ran.out
    assert "drop.txt lists what nobody misses" in ran.out
    values = json.loads(cli("doctor", str(sick), tmp_path / "out", "--model", colour_model, "--json").out)
    assert (values["leaks"], values["duplicates"], values["lost"]) == (1, 2, 1)
    assert values["lists"]["drop.txt"] == 3
    assert (
        "near is 2.0" in cli("doctor", str(sick), tmp_path, "--model", colour_model, "--near", "2").sentence()
    )


def kept(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for shard in list_shards(str(folder)):
        for one in read_shard(shard):
            assert isinstance(one, ShardSample)
            found.setdefault(one.split, []).append(one.key)
    return found


def test_a_clean_folder_holds_the_rest_and_is_a_packed_folder(
    report: tuple[Diagnosis, Path], sick: Path, colour_model: Path, tmp_path: Path
):
    left = write_clean(report[0], tmp_path / "clean", without=("drop", "mislabelled"))
    found = kept(tmp_path / "clean")
    assert left == {split: len(keys) for split, keys in found.items()}
    lists = report[0].lists()
    gone = {
        report[0].samples[number].key for name in ("drop.txt", "mislabelled.txt") for number in lists[name]
    }
    everything = [one.key for shard in list_shards(str(sick)) for one in read_shard(shard)]
    assert found["train"] + found["validation"] == [key for key in everything if key not in gone | {"cut"}]
    assert {"train007", "train008", "copy"} <= gone
    dropped = {one.source: one.reason for one in read_index(tmp_path / "clean").dropped}
    assert dropped["train/000000.tar: copy"] == "doctor: drop"
    assert "damaged" in dropped["train/000000.tar: cut"]
    again = examine(str(tmp_path / "clean"), tmp_path / "out", model=colour_model)
    assert again.duplicates == again.lost == ()
    write_clean(again, tmp_path / "cleaner", without=("outliers",))  # a part of a part
    assert len(kept(tmp_path / "cleaner")["train"]) == left["train"] - sum(
        again.samples[one.sample].split == "train" for one in again.outliers
    )


def test_what_cannot_be_cleaned_is_refused_before_the_work(
    cli, sick: Path, colour_model: Path, tmp_path: Path
):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add(tar, "a.png", png(mosaic(TINTS["red"], 1)))
    for source, clean, named in (
        (tmp_path / "0.tar", tmp_path / "clean", "no packed folder"),
        (sick, sick, "itself"),
    ):
        ran = cli("doctor", source, tmp_path / "out", "--model", colour_model, "--clean", clean)
        assert named in ran.sentence()
        assert not (tmp_path / "out").exists()


def test_a_split_is_not_emptied(report: tuple[Diagnosis, Path], tmp_path: Path):
    with pytest.raises(ValueError, match="nothing would be left of validation"):
        write_clean(report[0], tmp_path / "clean", without=("captions",))
    assert not (tmp_path / "clean/index.json").exists()


@pytest.mark.slow
def test_the_map_shows_a_sample_in_a_browser(report: tuple[Diagnosis, Path]):
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((report[1] / "doctor.html").as_uri())
        canvas = page.locator("#map")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        place = report[0].coverage.place_C2[0]
        at = [(float(value) - 0.5) * 0.92 + 0.5 for value in place]
        page.mouse.move(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
        assert page.locator("#hover").is_visible()
        shown = page.locator("#hover .caption").inner_text()
        assert shown in {sample.caption for sample in report[0].samples}
        for choice in ("problem", "fit", "cluster"):
            page.select_option("#colour-by", choice)
        canvas.focus()
        page.keyboard.press("+")
        assert not page.locator("#hover").is_visible()
        browser.close()
    assert wrong == []
