"""Every kind of input comes to the same units, whatever it is called and wherever it is."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import tarfile

import pytest

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.index import Dropped
from pocketclip.data.objects import Place, open_store
from pocketclip.data.publish import sha256_file
from pocketclip.data.sample import Sample
from pocketclip.engine.units import open_unit, plan_units


def plan(url, *, splits=("train",), shard_samples=3):
    return plan_units(Place(url=str(url)), splits=splits, shard_samples=shard_samples)


def read(units):
    """Every item of every unit."""
    store = open_store(units.place)
    items = []
    for unit in units.units:
        with open_unit(unit, store) as opened:
            items += opened.items
    return items


def keys(items):
    return [item.key for item in items if not isinstance(item, Dropped)]


@pytest.fixture
def records(encode):
    """Key, picture and caption of seven samples."""
    return [(f"k{i}", encode(colour=colour), f"a {colour} square") for i, colour in enumerate(COLOURS)]


COLOURS = ("red", "green", "blue", "orange", "teal", "brown", "purple")


def write_tar(path, records, *, suffix="png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, image, caption in records:
            for name, data in ((f"{key}.{suffix}", image), (f"{key}.txt", caption.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def write_jsonl(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"uid": key, "image": base64.b64encode(image).decode(), "text": caption})
        for key, image, caption in records
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_parquet(path, records):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = zip(*records, strict=True)
    pq.write_table(pa.table(dict(zip(("key", "image", "text"), map(list, columns), strict=True))), path)
    return path


WRITERS = {"tar": write_tar, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_a_folder_are_units_named_after_them(tmp_path, records, kind):
    for name, part in (("b/00001", records[4:]), ("00000", records[:4]), ("b/00000", records[2:3])):
        WRITERS[kind](tmp_path / f"{name}.{kind}", part)
    (tmp_path / "readme.md").write_text("not a shard")
    (tmp_path / ".hidden.tar").write_bytes(b"")
    units = plan(tmp_path)
    assert [(unit.name, unit.kind, unit.file) for unit in units.units] == [
        (f"train/{name}.tar", kind, f"{name}.{kind}") for name in ("00000", "b/00000", "b/00001")
    ]
    assert [unit.num_bytes for unit in units.units] == [
        (tmp_path / unit.file).stat().st_size for unit in units.units
    ]
    assert (units.num_samples, units.licences) == (None, None)
    items = read(units)
    assert keys(items) == [key for key, _, _ in [*records[:4], records[2], *records[4:]]]
    assert {item.captions[0] for item in items} == {caption for _, _, caption in records}


def test_any_case_and_any_picture_suffix(tmp_path, encode):
    path = tmp_path / "SHARD.TAR"
    pictures = {
        "a.PNG": encode("PNG"),
        "b.jpeg": encode("JPEG"),
        "c.WebP": encode("WEBP"),
        "d.bmp": encode("BMP"),
    }
    with tarfile.open(path, "w") as tar:
        for name, data in pictures.items():
            for member, content in ((name, data), (f"{name[0]}.TXT", b"a picture")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    units = plan(tmp_path)
    assert [unit.name for unit in units.units] == ["train/SHARD.tar"]
    assert keys(read(units)) == ["a", "b", "c", "d"]


def test_patterns_and_single_files(tmp_path, records, monkeypatch):
    for number in range(3):
        write_tar(tmp_path / "in" / f"{number:03d}.tar", records[number : number + 2])
    for url, names in (
        (tmp_path / "in" / "{000..002}.tar", ["000", "001", "002"]),
        (tmp_path / "in" / "{001..002}.tar", ["001", "002"]),
        (tmp_path / "in" / "001.tar", ["001"]),
    ):
        assert [unit.name for unit in plan(url).units] == [f"train/{name}.tar" for name in names]
    monkeypatch.chdir(tmp_path)
    assert keys(read(plan("in/{000..001}.tar"))) == ["k0", "k1", "k1", "k2"]
    monkeypatch.chdir(tmp_path / "in")
    assert keys(read(plan("{000..001}.tar"))) == ["k0", "k1", "k1", "k2"]
    with pytest.raises(
        FileNotFoundError, match=r"003\.tar is not there, though .*\{000\.\.003\}\.tar names it"
    ):
        plan(tmp_path / "in" / "{000..003}.tar")


def test_ranges_in_folders_keep_their_names_apart(tmp_path, records):
    for folder in ("00", "01"):
        write_tar(tmp_path / folder / "00000000.tar", records[:2])
    units = plan(tmp_path / "{00..01}" / "{00000000..00000000}.tar")
    assert [unit.name for unit in units.units] == ["train/00/00000000.tar", "train/01/00000000.tar"]


@pytest.mark.parametrize("absolute", [True, False])
def test_the_published_tools_list_of_shards(tmp_path, records, absolute):
    folder = tmp_path / "set"
    paths = [write_jsonl(folder / "shards" / f"{i}.jsonl", records[i : i + 3]) for i in range(2)]
    listed = [str(path) if absolute else path.relative_to(folder).as_posix() for path in paths]
    info = {"name": "x", "lengths": dict.fromkeys(listed, "3"), "totalLength": "6", "date": "2026"}
    (folder / "info.json").write_text(json.dumps(info))
    units = plan(folder / "info.json")
    assert [unit.name for unit in units.units] == ["train/0.tar", "train/1.tar"]
    assert keys(read(units)) == ["k0", "k1", "k2", "k1", "k2", "k3"]
    (folder / "info.json").write_text("{}")
    with pytest.raises(ValueError, match=r"info\.json is not a list of shards"):
        plan(folder / "info.json")


def test_a_folder_of_pictures_comes_in_chunks(tmp_path, records):
    for key, image, caption in records:
        (tmp_path / f"{key}.png").write_bytes(image)
        (tmp_path / f"{key}.txt").write_text(caption)
    (tmp_path / "alone.png").write_bytes(records[0][1])
    units = plan(tmp_path, shard_samples=3)
    assert [unit.name for unit in units.units] == [f"train/{number:06d}.tar" for number in range(3)]
    assert [len(unit.pictures) for unit in units.units] == [3, 3, 1]
    assert units.num_samples == 7
    items = read(units)
    assert sorted(keys(items)) == [key for key, _, _ in records]
    (lost,) = (item for item in items if isinstance(item, Dropped))
    assert lost.source == "alone.png"
    again = plan(tmp_path, shard_samples=3)
    assert (again.digest, keys(read(again))) == (units.digest, keys(items))
    (tmp_path / "k3.txt").write_text("another")
    assert plan(tmp_path, shard_samples=3).digest != units.digest


def test_a_table_and_its_pictures(tmp_path, records):
    rows = [{"file_name": f"{key}.png", "text": caption} for key, _, caption in records]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for key, image, _ in records:
        (tmp_path / f"{key}.png").write_bytes(image)
    for url in (tmp_path, tmp_path / "metadata.csv"):
        if url.suffix:
            (tmp_path / "metadata.jsonl").unlink()
            url.write_text(
                "file_name,text\n" + "\n".join(f"{row['file_name']},{row['text']}" for row in rows)
            )
        assert sorted(keys(read(plan(url)))) == [key for key, _, _ in records]


def test_pictures_of_one_name_keep_different_keys_in_different_chunks(tmp_path, encode):
    for kind in ("png", "webp", "jpeg"):
        (tmp_path / f"same.{kind}").write_bytes(encode(kind.upper()))
    (tmp_path / "same.txt").write_text("a square")
    assert len(set(keys(read(plan(tmp_path, shard_samples=1))))) == 3


def test_a_packed_folder_has_units_of_its_splits(shapes):
    units = plan(shapes, splits=("validation", "train"))
    assert [unit.name for unit in units.units] == [
        *(f"validation/{i:06d}.tar" for i in range(2)),
        *(f"train/{i:06d}.tar" for i in range(3)),
    ]
    assert units.num_samples == 72
    assert all(unit.sha256 == sha256_file(shapes / unit.file) for unit in units.units)
    items = read(units)
    assert len(items) == 72
    assert all(isinstance(item, Sample) for item in items)


def test_a_packed_shard_that_was_changed_is_told(shapes, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shapes, folder)
    path = folder / "train" / "000001.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"000001\.tar is not what index\.json says \(its hash differs\)"):
        read(plan(folder))
    path.unlink()
    with pytest.raises(ValueError, match=r"000001\.tar is missing, though the index lists it"):
        plan(folder)


def test_the_hash_of_a_units_input_is_known_in_the_end(tmp_path, records):
    path = write_tar(tmp_path / "tars" / "0.tar", records)
    for key, image, caption in records:
        (tmp_path / f"{key}.png").write_bytes(image)
        (tmp_path / f"{key}.txt").write_text(caption)

    def hashes(units):
        found = []
        for unit in units.units:
            with open_unit(unit, open_store(units.place)) as opened:
                list(opened.items)
                found.append(opened.sha256())
        return found

    assert hashes(plan(path)) == [sha256_file(path)]
    shutil.rmtree(tmp_path / "tars")
    before = hashes(plan(tmp_path, shard_samples=7))
    (tmp_path / "k0.png").write_bytes(records[1][1])
    assert hashes(plan(tmp_path, shard_samples=7)) != before


def test_what_is_no_input_is_told(tmp_path, records, shapes):
    with pytest.raises(FileNotFoundError, match="nothing: no such file or folder"):
        plan(tmp_path / "nothing")
    with pytest.raises(
        ValueError, match=r"is not a packed folder and holds no shards, tables or captioned pictures. What is"
    ):
        plan(tmp_path)
    write_tar(tmp_path / "a.tar", records)
    with pytest.raises(ValueError, match=r"has the split 'train' alone, not validation: pack it first"):
        plan(tmp_path, splits=("validation",))
    write_jsonl(tmp_path / "b.jsonl", records)
    with pytest.raises(ValueError, match=r"holds jsonl and tar files side by side: give one kind at a time"):
        plan(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    write_tar(tmp_path / "A.TAR", records)
    os.rename(tmp_path / "a.tar", tmp_path / "A.tar")  # noqa: PTH104
    with pytest.raises(ValueError, match=r"A\.tar and A\.TAR would both become train/A\.tar: rename one"):
        plan(tmp_path)
    with pytest.raises(ValueError, match=r"has no split 'test'; it has train, validation"):
        plan(shapes, splits=("test",))


def test_a_folder_that_is_not_whole_is_no_input(shapes, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shapes, folder)
    (folder / "index.json").unlink()
    (folder / ".packing").write_text("")
    with pytest.raises(ValueError, match=r"copy is not whole: `pocketclip pack` was interrupted"):
        plan(folder)
    (folder / ".packing").unlink()
    (folder / ".done").mkdir()
    (folder / ".done" / "run.json").write_text('{"verb": "filter"}')
    with pytest.raises(ValueError, match=r"copy is not whole: `pocketclip filter` was interrupted"):
        plan(folder)
    for damage in ("{", "{}", "[]"):
        (folder / ".done" / "run.json").write_text(damage)
        with pytest.raises(ValueError, match=r"copy is not whole, and \.done/run\.json in it is damaged"):
            plan(folder)


def test_raw_samples_are_candidates(tmp_path, records):
    write_tar(tmp_path / "0.tar", records[:1])
    assert read(plan(tmp_path)) == [
        Candidate(
            source="0.tar: k0.png", split="train", key="k0", image=records[0][1], captions=(records[0][2],)
        )
    ]
