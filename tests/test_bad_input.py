"""Bad input, end to end: an exit code, one sentence naming the file and the remedy, nothing half-written."""

from __future__ import annotations

import io
import json
import resource
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.index import ShardIndex, read_index, write_index
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader, write_shard

pytest.importorskip("torch")

Cli = Callable[..., Any]  # the fixture `cli`; it gives a record with code, out, err, sentence()


def png(mode: str = "RGB", size: tuple[int, int] = (24, 24), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG", **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 3.6 thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9))
        + chunk(b"IEND", b"")
    )


def noise(size: int = 40) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


BAD_PICTURES = {
    "zero": (b"", "zero bytes"),
    "truncated": (noise()[:-900], "truncated"),
    "bomb": (bomb(), "pixels"),
    "words": (b"this is a text, not a picture", "picture"),
}


def odd_pictures() -> dict[str, bytes]:
    """Pictures that are unusual and good."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    animated, cmyk, deep = io.BytesIO(), io.BytesIO(), io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(cmyk, "JPEG")
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(deep, "PNG")
    palette = Image.new("P", (20, 20))
    palette.putpalette([255, 0, 0] * 256)
    clear = io.BytesIO()
    palette.save(clear, "PNG", transparency=0)
    return {
        "animated.gif": animated.getvalue(),
        "cmyk.jpg": cmyk.getvalue(),
        "deep.png": deep.getvalue(),
        "clear.png": clear.getvalue(),
    }


@contextmanager
def largest_file(num_bytes: int) -> Generator[None]:
    """Files cannot grow beyond a size, as on a disk that is full."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with captions, as a person has them."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        (folder / f"{number:02}.png").write_bytes(noise(40 + number))
        (folder / f"{number:02}.txt").write_text(f"noise number {number}")
    return folder


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory: pytest.TempPathFactory, shapes: Path, tiny_checkpoint: Path) -> Path:
    from pocketclip.cli import main

    folder = tmp_path_factory.mktemp("reinforced") / "shapes"
    code = main(["reinforce", str(shapes), str(folder), "--teacher", f"a={tiny_checkpoint}", "--views", "2"])
    assert code == 0
    return folder


class TestPack:
    def test_an_empty_folder_is_refused_and_leaves_nothing(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        ran = cli("pack", tmp_path / "empty", tmp_path / "out")
        assert ran.code == 1
        assert str(tmp_path / "empty") in ran.sentence()
        assert "metadata.jsonl" in ran.sentence()  # what would have been understood
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_is_not_there(self, cli: Cli, tmp_path: Path) -> None:
        ran = cli("pack", tmp_path / "nowhere", tmp_path / "out")
        assert (ran.code, "nowhere" in ran.sentence()) == (1, True)

    def test_bad_pictures_and_captions_are_dropped_counted_and_listed(self, cli: Cli, tmp_path: Path) -> None:
        source, out = tmp_path / "source", tmp_path / "out"
        source.mkdir()
        for name, (data, _) in BAD_PICTURES.items():
            (source / f"{name}.png").write_bytes(data)
            (source / f"{name}.txt").write_text(f"a picture called {name}")
        for name, data in odd_pictures().items():
            (source / name).write_bytes(data)
            (source / name).with_suffix(".txt").write_text(f"a picture called {name}")
        (source / "uncaptioned.png").write_bytes(png())
        (source / "latin.png").write_bytes(png())
        (source / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
        (source / "blank.png").write_bytes(png())
        (source / "blank.txt").write_text(" \n")
        ran = cli("pack", source, out, "--json", "--validation", "0")
        assert ran.code == 0, ran.err
        said = json.loads(ran.out)
        assert said["splits"] == {"train": len(odd_pictures())}
        reasons = {dropped["source"]: dropped["reason"] for dropped in said["dropped"]}
        names = {Path(name.split(":")[0]).name for name in reasons}
        stems = {name.split(".")[0] for name in names}
        assert stems == {*BAD_PICTURES, "uncaptioned", "latin", "blank"}
        for name, (_, word) in BAD_PICTURES.items():
            (reason,) = [reason for source, reason in reasons.items() if name in source]
            assert word in reason, reason
        listed = [(dropped.source, dropped.reason) for dropped in read_index(out).dropped]
        assert dict(listed) == reasons
        assert f"{len(reasons)} dropped" in cli("pack", source, tmp_path / "again", "--validation", "0").out

    def test_when_nothing_can_be_used_no_index_is_published(self, cli: Cli, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for name, (data, _) in BAD_PICTURES.items():
            (source / f"{name}.png").write_bytes(data)
            (source / f"{name}.txt").write_text(name)
        ran = cli("pack", source, tmp_path / "out")
        assert ran.code == 1
        assert str(source) in ran.sentence()
        assert f"all {len(BAD_PICTURES)} items were dropped" in ran.sentence()
        assert all_files(tmp_path / "out") == []

    def test_a_tar_cut_in_the_middle_keeps_what_is_whole(self, cli: Cli, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
            for number in range(6):
                for suffix, data in (("png", noise()), ("txt", f"noise {number}".encode())):
                    info = tarfile.TarInfo(f"{number}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        whole = (tmp_path / "pictures.tar").read_bytes()
        (tmp_path / "pictures.tar").write_bytes(whole[: len(whole) // 2])
        ran = cli("pack", tmp_path / "pictures.tar", tmp_path / "out", "--json", "--validation", "0")
        assert ran.code == 0, ran.err
        said = json.loads(ran.out)
        assert 0 < said["splits"]["train"] < 6
        assert any("cut" in dropped["reason"] for dropped in said["dropped"])

    def test_an_output_with_other_files_in_it_is_left_alone(
        self, cli: Cli, photos: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        ran = cli("pack", photos, tmp_path)
        assert ran.code == 1
        assert str(tmp_path) in ran.sentence()
        assert all_files(tmp_path) == ["mine.txt"]


class TestShardCutInTheMiddle:
    """`sized` hides the cut from the index, so that the shard's reader has to find it."""

    @pytest.fixture(params=["index knows", "sized"])
    def cut(self, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Path]:
        def cut(folder: Path) -> Path:
            """A copy whose first training shard, of which the path is returned, lacks its second half."""
            copy = tmp_path / "cut"
            shutil.copytree(folder, copy)
            shard = copy / "train" / "000000.tar"
            shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
            if request.param == "sized":
                index = json.loads((copy / "index.json").read_text())
                index["splits"]["train"][0]["num_bytes"] = shard.stat().st_size
                (copy / "index.json").write_text(json.dumps(index))
            return shard

        return cut

    def check(self, ran: Any, shard: Path, *, out: Path) -> None:
        assert ran.code == 1
        assert str(shard) in ran.sentence()
        assert "cut" in ran.sentence()
        assert "again" in ran.sentence()  # pack or copy it again
        assert not out.exists()

    def test_reinforce(
        self, cli: Cli, cut: Callable[[Path], Path], shapes: Path, tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        shard, out = cut(shapes), tmp_path / "out"
        ran = cli("reinforce", shard.parents[1], out, "--teacher", f"a={tiny_checkpoint}", "--views", "1")
        self.check(ran, shard, out=out / "index.json")
        assert not (out / "train" / "000000.tar").exists()

    @pytest.mark.parametrize("recipe", ["emoji.debug_student_plain", "emoji.debug_student_reinforced"])
    def test_train(
        self, cli: Cli, cut: Callable[[Path], Path], reinforced: Path, recipe: str, tmp_path: Path
    ) -> None:
        shard, out = cut(reinforced), tmp_path / "run"
        ran = cli("train", recipe, "--data", shard.parents[1], "--out", out)
        self.check(ran, shard, out=out / "checkpoint.safetensors")

    def test_evaluate(
        self, cli: Cli, cut: Callable[[Path], Path], shapes: Path, tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        shard, out = cut(shapes), tmp_path / "report.json"
        ran = cli("evaluate", tiny_checkpoint, "--data", shard.parents[1], "--split", "train", "--out", out)
        self.check(ran, shard, out=out)

    def test_index(
        self, cli: Cli, cut: Callable[[Path], Path], shapes: Path, colour_model: Path, tmp_path: Path
    ) -> None:
        """Its pictures are left out, and it is listed: the others can be searched."""
        shard, out = cut(shapes), tmp_path / "x.index"
        ran = cli("index", shard.parents[1], "--out", out, "--model", colour_model, "--json")
        assert ran.code == 0, ran.err
        done = json.loads(ran.out)
        assert [skipped["name"] for skipped in done["skipped"]] == ["train/000000.tar"]
        assert "cut" in done["skipped"][0]["reason"]
        assert done["pictures"] > 0


class TestBadPictureInAShard:
    """Bits that rotted after packing: the sample is left out, counted and listed."""

    BAD = set(BAD_PICTURES) - {"zero"}  # nobody can write a sample without a picture

    @pytest.fixture
    def rotten(self, shapes: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "rotten"
        with ShardReader(shapes / "train" / "000000.tar") as reader:
            good = [reader[row] for row in range(len(reader))]
        bad = [
            Sample(key=f"bad-{name}", image=data, extension="png", captions=(f"a bad {name}",))
            for name, (data, _) in BAD_PICTURES.items()
            if name in self.BAD
        ]
        entry = write_shard(folder / "train" / "000000.tar", [*good[:10], *bad, *good[10:]])
        write_index(folder, ShardIndex(source="rotten", splits={"train": (entry,)}))
        return folder

    def test_reinforce(self, cli: Cli, rotten: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
        ran = cli(
            "reinforce",
            rotten,
            tmp_path / "out",
            "--teacher",
            f"a={tiny_checkpoint}",
            "--views",
            "1",
            "--json",
        )
        assert ran.code == 0, ran.err
        dropped = json.loads(ran.out)["dropped"]
        assert {row["source"].split("bad-")[1] for row in dropped} == self.BAD
        assert len(read_index(tmp_path / "out").dropped) == len(self.BAD)

    def test_train(self, cli: Cli, rotten: Path, tmp_path: Path) -> None:
        from pocketclip.checkpoint import load

        out = tmp_path / "run"
        ran = cli(
            "train", "emoji.debug_student_plain", "--data", rotten, "--out", out, "--loop.num-steps", "2"
        )
        assert ran.code == 0, ran.err
        dropped = load(out / "checkpoint.safetensors").config.run["dropped"]
        assert {row["source"].split("bad-")[1] for row in dropped} == self.BAD

    def test_evaluate(self, cli: Cli, rotten: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
        out = tmp_path / "report.json"
        ran = cli("evaluate", tiny_checkpoint, "--data", rotten, "--split", "train", "--out", out)
        assert ran.code == 0, ran.err
        skipped = json.loads(out.read_text())["splits"]["train"]["skipped"]
        assert len(skipped) == len(self.BAD)

    def test_index(self, cli: Cli, rotten: Path, colour_model: Path, tmp_path: Path) -> None:
        ran = cli("index", rotten, "--out", tmp_path / "x.index", "--model", colour_model)
        assert ran.code == 0, ran.err
        assert f"{len(self.BAD)} skipped" in ran.out
        assert all(f"bad-{name}" in ran.out for name in self.BAD)


def write_calls(folder: Path, request: pytest.FixtureRequest) -> dict[str, tuple[list[str], Path]]:
    """Every verb that writes: its arguments, and the name that must not appear."""
    photos, shapes = request.getfixturevalue("photos"), request.getfixturevalue("shapes")
    model, tiny = request.getfixturevalue("colour_model"), request.getfixturevalue("tiny_checkpoint")
    index = request.getfixturevalue("searchable")
    calls = {
        "pack": (["pack", photos, folder], folder / "index.json"),
        "reinforce": (
            ["reinforce", shapes, folder, "--views", "1", "--teacher", f"a={tiny}"],
            folder / "train" / "000000.tar",
        ),
        "train": (
            [
                "train",
                "emoji.debug_student_plain",
                "--data",
                shapes,
                "--out",
                folder,
                "--loop.num-steps",
                "1",
            ],
            folder / "checkpoint.safetensors",
        ),
        "evaluate": (
            [
                "evaluate",
                tiny,
                "--data",
                shapes,
                "--split",
                "train",
                "validation",
                "--out",
                folder / "r.json",
            ],
            folder / "r.json",
        ),
        "export": (["export", tiny, folder / "exported"], folder / "exported"),
        "index": (["index", photos, "--out", folder / "i.index", "--model", model], folder / "i.index"),
        "search": (
            ["search", index, "red", "--min-score", "none", "--sheet", folder / "sheet.png"],
            folder / "sheet.png",
        ),
    }
    return {verb: ([str(part) for part in call], out) for verb, (call, out) in calls.items()}


VERBS = ["pack", "reinforce", "train", "evaluate", "export", "index", "search"]


@pytest.fixture
def searchable(cli: Cli, photos: Path, colour_model: Path, tmp_path: Path) -> Path:
    assert cli("index", photos, "--out", tmp_path / "x.index", "--model", colour_model).code == 0
    return tmp_path / "x.index"


class TestOutputThatCannotBeWritten:
    @pytest.mark.parametrize("verb", VERBS)
    def test_a_place_below_a_file(
        self, cli: Cli, verb: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        (tmp_path / "file").write_text("I am not a folder")
        arguments, _ = write_calls(tmp_path / "file" / "out", request)[verb]
        ran = cli(*arguments)
        assert ran.code == 1
        assert str(tmp_path / "file" / "out") in ran.sentence()
        assert "choose another" in ran.sentence()
        assert (tmp_path / "file").read_text() == "I am not a folder"

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_full_disk(self, cli: Cli, verb: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        arguments, out = write_calls(tmp_path / "out", request)[verb]
        with largest_file(3_000):
            ran = cli(*arguments)
        assert ran.code == 1
        assert "disk full while writing" in ran.sentence()
        assert str(tmp_path / "out") in ran.sentence()
        assert "free some space" in ran.sentence()
        assert not out.exists()
        assert not [name for name in all_files(tmp_path) if "partial" in name]

    @pytest.mark.parametrize("verb", ["pack", "reinforce", "train", "export", "index"])
    def test_the_same_command_ends_well_when_there_is_room_again(
        self, cli: Cli, verb: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        if verb == "export":
            pytest.importorskip("onnxscript")
        arguments, out = write_calls(tmp_path / "out", request)[verb]
        with largest_file(3_000):
            assert cli(*arguments).code == 1
        ran = cli(*arguments)
        assert ran.code == 0, ran.err
        assert out.exists()


def test_standard_output_on_a_full_disk(tmp_path: Path, searchable: Path, run_python: Cli) -> None:
    with Path("/dev/full").open("w") as full:
        ran = run_python("-m", "pocketclip", "search", searchable, "red", stdout=full)
    assert (ran.code, ran.sentence()) == (1, "cannot write to standard output: No space left on device")


class TestCheckpoint:
    USES = ("evaluate", "export", "reinforce")

    @pytest.fixture(params=USES)
    def use(
        self, request: pytest.FixtureRequest, cli: Cli, shapes: Path, tmp_path: Path
    ) -> Callable[[Path], Any]:
        out = tmp_path / "out"
        calls = {
            "evaluate": lambda path: ("evaluate", path, "--data", shapes, "--out", out),
            "export": lambda path: ("export", path, out),
            "reinforce": lambda path: ("reinforce", shapes, out, "--teacher", f"a={path}"),
        }

        def use(path: Path) -> Any:
            ran = cli(*calls[request.param](path))
            assert ran.code == 1
            assert str(path) in ran.sentence()
            assert not out.exists()
            return ran

        return use

    def test_of_another_version(
        self, use: Callable[[Path], Any], tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "new.safetensors"
        change_metadata(tiny_checkpoint, path, version="2")
        sentence = use(path).sentence()
        assert "version 2" in sentence
        assert "reads version 1" in sentence
        assert "train it again" in sentence

    def test_of_another_program(self, use: Callable[[Path], Any], tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        path = tmp_path / "other.safetensors"
        save_file({"weight": np.zeros(3, np.float32)}, path)
        assert "not a pocketclip checkpoint" in use(path).sentence()

    @pytest.mark.parametrize("share", [0, 1e-5, 0.001, 0.5, 0.999])
    def test_cut_short(
        self,
        use: Callable[[Path], Any],
        tiny_checkpoint: Path,
        share: float,
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "cut.safetensors"
        whole = tiny_checkpoint.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "again" in use(path).sentence()

    def test_that_is_a_pickle_is_never_opened(self, use: Callable[[Path], Any], tmp_path: Path) -> None:
        path, trace = tmp_path / "evil.pt", tmp_path / "trace"
        path.write_bytes(b"cposix\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR.")
        use(path)
        assert not trace.exists()

    def test_that_is_not_there(self, use: Callable[[Path], Any], tmp_path: Path) -> None:
        assert "does not exist" in use(tmp_path / "none.safetensors").sentence()

    def test_that_is_a_folder(self, use: Callable[[Path], Any], tmp_path: Path) -> None:
        assert "folder" in use(tmp_path).sentence()

    def test_whose_config_has_a_field_too_many(
        self,
        use: Callable[[Path], Any],
        tiny_checkpoint: Path,
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "odd.safetensors"
        change_metadata(tiny_checkpoint, path, preprocess='{"size":48,"colour":"blue"}')
        assert "preprocess" in use(path).sentence()


def change_metadata(checkpoint: Path, out: Path, **changes: str) -> None:
    """A copy of a safetensors file with other metadata."""
    data = checkpoint.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


class TestExportedModel:
    @pytest.fixture
    def model(self, colour_model: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(colour_model, tmp_path / "model"))

    @pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "tokenizer.json"])
    @pytest.mark.parametrize("change", ["a bit", "cut", "removed", "empty"])
    def test_with_a_changed_file_is_refused(
        self, cli: Cli, model: Path, photos: Path, name: str, change: str, tmp_path: Path
    ) -> None:
        data = bytearray((model / name).read_bytes())
        data[len(data) // 2] ^= 1
        contents = {"a bit": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}
        if change == "removed":
            (model / name).unlink()
        else:
            (model / name).write_bytes(contents[change])
        ran = cli("index", photos, "--out", tmp_path / "i.index", "--model", model)
        assert ran.code == 1
        assert str(model) in ran.sentence()
        assert name in ran.sentence()
        assert "again" in ran.sentence()
        assert not (tmp_path / "i.index").exists()

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", '{"format": "pocketclip-export", "version": "99"}']
    )
    def test_with_a_damaged_manifest_is_refused(
        self, cli: Cli, model: Path, photos: Path, text: str, tmp_path: Path
    ) -> None:
        (model / "manifest.json").write_text(text)
        ran = cli("index", photos, "--out", tmp_path / "i.index", "--model", model)
        assert (ran.code, "manifest.json" in ran.sentence()) == (1, True)

    def test_a_folder_that_is_none(self, cli: Cli, photos: Path, tmp_path: Path) -> None:
        ran = cli("index", photos, "--out", tmp_path / "i.index", "--model", photos)
        assert (ran.code, str(photos) in ran.sentence()) == (1, True)
        assert "pocketclip export" in ran.sentence()


class TestIndex:
    def test_made_with_another_model_is_not_compared(
        self, cli: Cli, searchable: Path, make_colour_model: Callable[..., Path], tmp_path: Path
    ) -> None:
        other = make_colour_model(tmp_path / "other", order=(2, 1, 0))
        ran = cli("search", searchable, "red", "--model", other)
        assert ran.code == 1
        assert str(searchable) in ran.sentence()
        assert str(other) in ran.sentence()
        assert "index the pictures again" in ran.sentence()

    @pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.95])
    def test_cut_short(self, cli: Cli, searchable: Path, share: float) -> None:
        path = searchable / "pictures.sqlite"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        ran = cli("search", searchable, "red", "-k", "40")
        assert (ran.code, str(searchable) in ran.sentence()) == (1, True)
        assert "again" in ran.sentence()

    def test_of_a_folder_without_pictures(self, cli: Cli, colour_model: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        ran = cli("index", tmp_path / "empty", "--out", tmp_path / "i.index", "--model", colour_model)
        assert (ran.code, str(tmp_path / "empty") in ran.sentence()) == (1, True)
        assert not (tmp_path / "i.index").exists()

    def test_of_bad_pictures_only(self, cli: Cli, colour_model: Path, tmp_path: Path) -> None:
        (tmp_path / "bad").mkdir()
        for name, (data, _) in BAD_PICTURES.items():
            (tmp_path / "bad" / f"{name}.png").write_bytes(data)
        ran = cli("index", tmp_path / "bad", "--out", tmp_path / "i.index", "--model", colour_model)
        assert (ran.code, "none of the 4 pictures" in ran.sentence()) == (1, True)
        assert not (tmp_path / "i.index").exists()

    def test_of_odd_pictures(self, cli: Cli, colour_model: Path, tmp_path: Path) -> None:
        (tmp_path / "odd").mkdir()
        for name, data in odd_pictures().items():
            (tmp_path / "odd" / name).write_bytes(data)
        ran = cli("index", tmp_path / "odd", "--out", tmp_path / "i.index", "--model", colour_model, "--json")
        done = json.loads(ran.out)
        assert (done["pictures"], done["skipped"]) == (len(odd_pictures()), [])

    @pytest.mark.parametrize("name", BAD_PICTURES)
    def test_asked_with_a_bad_picture(self, cli: Cli, searchable: Path, name: str, tmp_path: Path) -> None:
        path = tmp_path / "query.png"
        path.write_bytes(BAD_PICTURES[name][0])
        ran = cli("search", searchable, "--picture", path)
        assert (ran.code, str(path) in ran.sentence()) == (1, True)


class TestTrain:
    def run(self, cli: Cli, data: Path, out: Path, *more: str) -> Any:
        return cli("train", "emoji.debug_student_plain", "--data", data, "--out", out, *more)

    def test_a_folder_of_another_run_is_left_alone(self, cli: Cli, shapes: Path, tmp_path: Path) -> None:
        assert self.run(cli, shapes, tmp_path / "run", "--loop.num-steps", "1").code == 0
        before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
        ran = self.run(cli, shapes, tmp_path / "run", "--loop.num-steps", "2")
        assert (ran.code, str(tmp_path / "run") in ran.sentence()) == (1, True)
        assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before

    def test_too_few_pictures_for_a_batch(
        self, cli: Cli, pack_shapes: Callable[..., Path], tmp_path: Path
    ) -> None:
        data = pack_shapes(tmp_path / "few", train=5)
        ran = self.run(cli, data, tmp_path / "run")
        assert (ran.code, "batch" in ran.sentence()) == (1, True)

    def test_plain_shards_for_a_reinforced_recipe(self, cli: Cli, shapes: Path, tmp_path: Path) -> None:
        ran = cli("train", "emoji.debug_student_reinforced", "--data", shapes, "--out", tmp_path / "run")
        assert (ran.code, "pocketclip reinforce" in ran.sentence()) == (1, True)
        assert all_files(tmp_path) == []  # the folder stays free for the right data

    def test_a_damaged_state(self, cli: Cli, shapes: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        with largest_file(60_000):  # room for the configuration, not for a state
            assert self.run(cli, shapes, out).code == 1
        state = out / "states" / "step-00000001.safetensors"
        state.parent.mkdir(exist_ok=True)
        state.write_bytes(b"PK\x03\x04 not a state")
        ran = self.run(cli, shapes, out)
        assert (ran.code, str(state) in ran.sentence()) == (1, True)
        assert "delete it" in ran.sentence()


class TestReinforce:
    def test_with_other_settings_into_the_same_folder(
        self, cli: Cli, shapes: Path, reinforced: Path, tiny_checkpoint: Path
    ) -> None:
        before = {name: (reinforced / name).read_bytes() for name in all_files(reinforced)}
        ran = cli("reinforce", shapes, reinforced, "--teacher", f"a={tiny_checkpoint}", "--views", "3")
        assert (ran.code, str(reinforced) in ran.sentence()) == (1, True)
        assert {name: (reinforced / name).read_bytes() for name in all_files(reinforced)} == before

    def test_a_split_that_is_not_there(
        self, cli: Cli, shapes: Path, tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        ran = cli(
            "reinforce", shapes, tmp_path / "o", "--teacher", f"a={tiny_checkpoint}", "--split", "tests"
        )
        assert (ran.code, "validation" in ran.sentence()) == (1, True)  # one of those there are

    def test_two_teachers_of_one_name(
        self, cli: Cli, shapes: Path, tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        teacher = f"a={tiny_checkpoint}"
        ran = cli("reinforce", shapes, tmp_path / "out", "--teacher", teacher, teacher)
        assert (ran.code, "names" in ran.sentence()) == (1, True)


class TestPackedFolder:
    """index.json that is missing, cut, of another version or something else."""

    TEXTS = ("", '{"version": 1', "[]", '{"version": 99}', '{"version": 1, "splits": 3}')

    @pytest.mark.parametrize("text", [None, *TEXTS])
    def test_that_is_none(self, cli: Cli, tiny_checkpoint: Path, text: str | None, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        if text is not None:
            (data / "index.json").write_text(text)
        for call in (
            ("train", "emoji.debug_student_plain", "--data", data, "--out", tmp_path / "out"),
            ("reinforce", data, tmp_path / "out", "--teacher", f"a={tiny_checkpoint}"),
            ("evaluate", tiny_checkpoint, "--data", data),
        ):
            ran = cli(*call)
            assert (ran.code, str(data) in ran.sentence()) == (1, True)
            assert "pack" in ran.sentence()
            assert not (tmp_path / "out").exists()
