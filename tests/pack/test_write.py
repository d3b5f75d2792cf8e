"""The writer drops what is bad with a reason, and leaves nothing half-written behind."""

import errno
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pocketclip.data.foreign.candidate import Candidate, admit, unit_hash
from pocketclip.data.index import Dropped, read_index, split_shards
from pocketclip.data.picture import probe
from pocketclip.data.publish import PublishError
from pocketclip.data.shard import ShardReader
from pocketclip.pack import PackConfig, pack
from pocketclip.pack.write import PackJob, finished, write_folder


def job(folder, **changes):
    fields = {"source": "here", "config": {"a": 1}, "shard_samples": {"train": 3, "validation": 3}}
    return PackJob(out=folder, **{**fields, **changes})


@pytest.fixture
def candidate(encode):
    def make(number=0, **changes):
        fields = {
            "source": f"folder/{number}.png",
            "split": "train",
            "key": f"k{number}",
            "image": encode(),
            "captions": (f"picture {number}",),
        }
        return Candidate(**{**fields, **changes})

    return make


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_known_formats_keep_their_bytes(candidate, encode, kind, extension):
    sample = admit(candidate(image=encode(kind)))
    assert (sample.image, sample.extension) == (encode(kind), extension)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_stored_as_png(candidate, encode, kind):
    sample = admit(candidate(image=encode(kind)))
    assert sample.extension == "png"
    assert probe(sample.image, name="it") == ("png", 24, 24)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": b""}, "the picture has zero bytes"),
        ({"image": b"text"}, "not a picture in a known format"),
        ({"captions": ()}, "at least one caption"),
        ({"captions": ("ok", " ")}, "a caption is empty"),
        ({"meta": {"x": float("inf")}}, "meta is not JSON"),
    ],
)
def test_a_bad_candidate_is_dropped_with_its_reason(candidate, changes, reason):
    dropped = admit(candidate(**changes))
    assert isinstance(dropped, Dropped)
    assert dropped.source == "folder/0.png"
    assert reason in dropped.reason
    assert "folder/0.png" not in dropped.reason


def test_truncated_pictures_are_dropped(candidate, encode):
    dropped = admit(candidate(image=encode(size=200)[:-40]))
    assert "damaged or cut off" in dropped.reason


def test_shards_fill_in_order_and_the_index_counts(tmp_path, candidate):
    out = tmp_path / "out"
    licence = {"licence": "CC0-1.0"}
    items = [
        *(candidate(number, meta=licence) for number in range(7)),
        candidate(20, split="validation"),
        candidate(3),  # a key used before
        Dropped(source="other", reason="was bad already"),
    ]
    index = write_folder(job(out), items)
    assert [entry.num_samples for entry in index.splits["train"]] == [3, 3, 1]
    assert [entry.file for entry in index.splits["validation"]] == ["validation/000000.tar"]
    assert index.licences == {"CC0-1.0": 7}
    assert index.dropped == (
        Dropped(source="folder/3.png", reason="another sample already has the key k3"),
        Dropped(source="other", reason="was bad already"),
    )
    assert read_index(out) == index
    keys = []
    for path in split_shards(out, "train"):
        with ShardReader(path) as shard:
            keys += shard.keys
    assert keys == [f"k{number}" for number in range(7)]


def test_splits_without_samples_are_not_listed(tmp_path, candidate):
    assert list(write_folder(job(tmp_path / "out"), [candidate()]).splits) == ["train"]


def test_nothing_usable_is_an_error_with_the_first_reason(tmp_path, candidate):
    with pytest.raises(
        ValueError, match=r"all 2 items were dropped, the first, folder/0\.png, because: .*zero"
    ):
        write_folder(job(tmp_path / "out"), [candidate(0, image=b""), candidate(1, image=b"")])
    with pytest.raises(ValueError, match="no picture with a caption"):
        write_folder(job(tmp_path / "out"), [])
    assert list((tmp_path / "out").iterdir()) == []


def test_an_exception_leaves_whole_shards_and_no_index(tmp_path, candidate):
    out = tmp_path / "out"

    def breaking():
        yield from (candidate(number) for number in range(4))
        yield candidate(9, split="validation")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_folder(job(out), breaking())
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [".packing", "train/000000.tar"]
    assert finished(job(out)) is None
    write_folder(job(out), [candidate()])
    assert not (out / ".packing").exists()


def test_a_full_disk_is_a_sentence_and_leaves_no_index(tmp_path, candidate, monkeypatch):
    out = tmp_path / "out"
    calls = itertools.count()
    fsync = os.fsync

    def full(number):
        if next(calls) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PublishError, match=r"disk full while writing .*/train/\d{6}\.tar: free some space"):
        write_folder(job(out), [candidate(number) for number in range(12)])
    assert not (out / "index.json").exists()
    assert not list(out.rglob("*.partial"))


def test_an_unwritable_place_is_a_sentence(candidate):
    with pytest.raises(PublishError, match=r"cannot write /proc/none/.*choose another output"):
        write_folder(job(Path("/proc/none")), [candidate()])


def test_folders_with_other_files_are_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "000000.tar").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match="already holds other files"):
        finished(job(tmp_path))
    assert (tmp_path / "train" / "000000.tar").read_bytes() == b"somebody's"
    with pytest.raises(ValueError, match="is a file"):
        finished(job(tmp_path / "train" / "000000.tar"))


def test_a_finished_folder_is_recognised_unless_it_was_cut(tmp_path, candidate):
    out = tmp_path / "out"
    index = write_folder(job(out), [candidate()])
    assert finished(job(out)) == index
    with pytest.raises(ValueError, match=r"holds a pack of here \(made with another a, b\): choose another"):
        finished(job(out, config={"a": 2, "b": 1}))
    shard = out / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"000000\.tar has 100 bytes"):
        finished(job(out))


KILLED = """
import sys, time
from pathlib import Path
from pocketclip.pack.source import PackConfig
from pocketclip.pack import pack, write
take, stop_at = write._FolderWriter.take, int(sys.argv[3])
count = 0
def slow(self, candidate):
    global count
    take(self, candidate)
    count += 1
    if count == stop_at:
        print("ready", flush=True)
        time.sleep(60)
write._FolderWriter.take = slow
pack(Path(sys.argv[1]), Path(sys.argv[2]), config=PackConfig(shard_samples=4))
"""


@pytest.mark.parametrize("stop_at", [1, 11])
def test_killed_and_run_again_gives_the_same_bytes(tmp_path, encode, stop_at):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number}.png").write_bytes(encode(size=number + 1))
        (source / f"{number}.txt").write_text(f"picture {number}")
    pack(source, tmp_path / "calm", config=PackConfig(shard_samples=4))
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, source, out, str(stop_at)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert not (out / "index.json").exists()
    pack(source, out, config=PackConfig(shard_samples=4))
    files = [
        {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "calm", out)
    ]
    assert files[0] == files[1]


def test_hashes_are_the_same_everywhere():
    assert unit_hash("a", "b") != unit_hash("ab")
    assert f"{unit_hash('salt', 'key'):.12f}" == "0.431113030594"


def test_a_run_killed_before_its_mark_had_a_name_goes_on(tmp_path):
    """The moment between making the folder and renaming the mark into place."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "..packing.partial").write_bytes(b"pocket")
    assert finished(job(out)) is None
    (out / "letter.txt").write_text("somebody's")
    with pytest.raises(ValueError, match="already holds other files"):
        finished(job(out))
