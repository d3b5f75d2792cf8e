"""WebDataset tars of other tools, whole, odd and cut."""

import io
import json
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.tars import read_tars
from pocketclip.pack import PackConfig, pack

CONFIG = PackConfig(validation=0)


def write_tar(path, members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def packed(tmp_path, unpack):
    def run(source):
        index = pack(source, tmp_path / "out", config=CONFIG)
        return unpack(tmp_path / "out", index), {drop.source: drop.reason for drop in index.dropped}

    return run


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_as_other_tools_write_them(tmp_path, packed, encode, layout):
    record = {"caption": "from json", "uid": "u1", "score": float("nan")}
    members = [
        ("./000.JPG", encode("JPEG")),
        ("./000.txt", b"from txt\n"),
        ("./000.json", json.dumps(record).encode()),
        ("deep/folder/001.webp", encode("WEBP")),
        ("deep/folder/001.caption", b"second"),
        ("deep/folder/001.cls", b"7"),
        ("002.image.png", encode()),
        ("002.url.txt", b"https://example.org/2.png"),
        ("002.json", b'{"text": ["third", "drei"]}'),
        ("__shard_info__", b"x"),
        (f"{'long' * 40}.png", encode()),
        (f"{'long' * 40}.txt", b"fourth"),
    ]
    if layout == tarfile.USTAR_FORMAT:
        members = members[:-2]
    samples, dropped = packed(write_tar(tmp_path / "in" / "a.tar", members, format=layout))
    assert not dropped
    assert samples["from txt"].captions == ("from txt", "from json")
    assert samples["from txt"].meta == {"uid": "u1", "score": None}
    assert samples["from txt"].key == "000"
    assert samples["second"].extension == "webp"
    assert samples["third"].meta == {"url": "https://example.org/2.png"}


def test_bad_samples_are_listed_and_the_good_ones_kept(tmp_path, packed, encode):
    members = [
        ("0.png", encode()),
        ("0.txt", b"good"),
        ("1.png", encode()),
        ("2.txt", b"no picture"),
        ("3.png", b""),
        ("3.txt", b"zero"),
        ("4.png", encode()),
        ("4.txt", "café".encode("latin-1")),
        ("5.png", encode()),
        ("5.json", b"{"),
        ("0.png", encode()),
        ("0.txt", b"the same key again"),
        ("6.pyd", b"a pickle is never opened"),
    ]
    samples, dropped = packed(write_tar(tmp_path / "in" / "a.tar", members))
    assert list(samples) == ["good"]
    assert dropped["a.tar: 1"] == "no caption (no txt, caption or json with text)"
    assert dropped["a.tar: 2"] == "no picture (it has txt)"
    assert dropped["a.tar: 3.png"] == "the picture has zero bytes"
    assert dropped["a.tar: 4"] == "4.txt: the caption is not UTF-8 (byte 3): save it as UTF-8"
    assert dropped["a.tar: 5"].startswith("5.json: it is not JSON")
    assert dropped["a.tar: 0.png"] == "another sample already has the key 0"
    assert dropped["a.tar: 6"] == "no picture (it has pyd)"


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


@settings(deadline=None, max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True), damage=st.booleans())
def test_a_tar_cut_or_damaged_anywhere_keeps_its_whole_samples_and_says_so(tmp_path_factory, where, damage):
    members = [(f"{n}.{e}", d) for n in range(6) for e, d in (("png", png(n)), ("txt", b"x%d" % n))]
    path = write_tar(tmp_path_factory.mktemp("cut") / "a.tar", members)
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar.getmembers()]
    at = int(where * (headers[-1] + 1024))
    if damage:  # a header overwritten
        at = max(header for header in headers if header <= at)
        data = data[:at] + b"\xff" * 512 + data[at + 512 :]
    else:
        data = data[:at]
    path.write_bytes(data)
    items = list(read_tars([path], split_of=lambda _: "train"))
    candidates = [item for item in items if isinstance(item, Candidate)]
    whole = sum(header + 1024 <= at for header in headers) // 2  # each member has one block of data
    assert [candidate.captions for candidate in candidates][:whole] == [(f"x{n}",) for n in range(whole)]
    assert [candidate.image for candidate in candidates] == [png(n) for n in range(len(candidates))]
    assert items[-1].source == "a.tar"
    assert any(words in items[-1].reason for words in ("cut or damaged", "cut in", "zero bytes"))


def test_several_tars_one_of_them_broken(tmp_path, packed, encode):
    for number in range(3):
        sample = [(f"{number}.png", encode()), (f"{number}.txt", b"picture %d" % number)]
        write_tar(tmp_path / "in" / f"{number:03d}.tar", sample)
    (tmp_path / "in" / "001.tar").write_bytes(b"not a tar at all")
    (tmp_path / "in" / "003.tar").write_bytes(b"")
    samples, dropped = packed(tmp_path / "in")
    assert list(samples) == ["picture 0", "picture 2"]
    assert set(dropped) == {"001.tar", "003.tar"}


def test_brace_patterns(tmp_path, packed, encode):
    for number in (8, 9, 10):
        sample = [(f"{number}.png", encode()), (f"{number}.txt", b"picture %d" % number)]
        write_tar(tmp_path / "in" / f"{number:03d}.tar", sample)
    samples, dropped = packed(tmp_path / "in" / "{008..011}.tar")
    assert list(samples) == ["picture 8", "picture 9", "picture 10"]
    assert dropped == {"011.tar": "cannot be read: No such file or directory"}


def test_links_and_folders_in_a_tar_are_passed_over(tmp_path, packed, encode):
    path = write_tar(tmp_path / "in" / "a.tar", [("0.png", encode()), ("0.txt", b"good")])
    with tarfile.open(path, "a") as tar:
        for name, kind in (("1.png", tarfile.SYMTYPE), ("folder", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    samples, dropped = packed(path)
    assert (list(samples), dropped) == (["good"], {})
