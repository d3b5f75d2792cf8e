"""Media: every format to upright pixels, what the camera wrote, and refusals before anything is decoded."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pocketclip.data.picture import decode
from pocketclip.search.exif import Exif, read_exif
from pocketclip.search.media import Media, MediaLimits, read_media, thumbnail


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth, and different in each corner: survives compression, tells every orientation."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return Image.fromarray((np.stack([x, y, x * y], axis=-1) * 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def camera(*, orientation: int = 1, taken: str = "2024:05:01 12:30:59", south: bool = False) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0132] = "2025:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x9003] = taken
    exif.get_ifd(0x8769)[0x9011] = "+02:00"
    exif.get_ifd(0x8825).update(
        {1: "S" if south else "N", 2: (48.0, 8.0, 6.36), 3: "E", 4: (11.0, 34.0, 55.2)}
    )
    return exif


def read(data: bytes, name: str = "x", **limits: float) -> tuple[Media, np.ndarray]:
    media = read_media(data, name=name, limits=MediaLimits(**limits))  # ty: ignore
    (frame,) = media.frames
    assert frame.at_s is None
    assert frame.image.mode == "RGB"
    return media, np.asarray(frame.image)


def close(found_HWC: np.ndarray, image: Image.Image, *, within: float = 6.0) -> bool:
    expected_HWC = np.asarray(image.convert("RGB")).astype(float)
    return found_HWC.shape == expected_HWC.shape and float(np.abs(found_HWC - expected_HWC).mean()) < within


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM"])
def test_usual_formats_are_the_pixels_of_the_training_path(kind: str):
    data = encoded(scene(), kind)
    media, pixels_HWC = read(data)
    np.testing.assert_array_equal(pixels_HWC, np.asarray(decode(data, name="x")))
    assert (media.kind, media.width, media.height) == ("picture", 96, 64)
    assert close(pixels_HWC, scene(), within=16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_come_upright(kind: str, orientation: int):
    data = encoded(scene(), kind, exif=camera(orientation=orientation))
    media, pixels_HWC = read(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert close(pixels_HWC, upright, within=1)
    assert (media.width, media.height) == upright.size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_what_the_camera_wrote(kind: str):
    media, _ = read(encoded(scene(), kind, exif=camera()))
    assert media.taken == "2024-05-01T12:30:59"
    assert (media.latitude, media.longitude) == pytest.approx((48.1351, 11.582), abs=1e-6)
    south, _ = read(encoded(scene(), kind, exif=camera(south=True)))
    assert south.latitude == pytest.approx(-48.1351, abs=1e-6)
    assert read_exif(camera().tobytes().removeprefix(b"Exif\0\0")).taken == media.taken  # a TIFF by itself


def test_heic_comes_upright_and_with_its_exif():
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    one = heif.from_pillow(scene())
    one.info["exif"] = camera(orientation=6).tobytes()
    one.save(file, quality=95)
    media, pixels_HWC = read(file.getvalue(), "x.heic")
    assert close(pixels_HWC, scene().rotate(-90, expand=True))
    assert (media.width, media.height, media.taken) == (64, 96, "2024-05-01T12:30:59")
    with pytest.raises(ValueError, match=r"x\.heic: the header claims 64 x 96 pixels, more than 6,000"):
        read(file.getvalue(), "x.heic", max_pixels=6000)
    for end in range(0, len(file.getvalue()), 97):
        with pytest.raises(ValueError, match=r"x\.heic"):
            read(file.getvalue()[:end], "x.heic")


@pytest.mark.parametrize("module", ["pillow_heif", "rawpy", "av"])
def test_a_missing_package_is_named(module: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, module, None)
    name, data = {
        "pillow_heif": ("x.heic", b"\0\0\0\x18ftypheic" + bytes(12)),
        "rawpy": ("x.nef", b"II*\0" + bytes(60)),
        "av": ("x.mp4", b"\0\0\0\x18ftypisom" + bytes(12)),
    }[module]
    with pytest.raises(ImportError, match=rf"{name}: .* pip install 'pocketclip\[(photos|video)\]'"):
        read_media(data, name=name)


def dng(bayer_HW: np.ndarray, *, preview: bytes | None = None, orientation: int = 1) -> bytes:
    """A camera's raw file: uncompressed RGGB, and a JPEG in the first directory if there is a preview."""
    height, width = bayer_HW.shape
    raw = [
        (0xFE, 4, [0]), (0x100, 4, [width]), (0x101, 4, [height]), (0x102, 3, [16]), (0x103, 3, [1]),
        (0x106, 3, [32803]), (0x111, 4, ["raw"]), (0x112, 3, [orientation]), (0x115, 3, [1]), (0x116, 4, [height]),
        (0x117, 4, [bayer_HW.nbytes]), (0x11C, 3, [1]), (0x828D, 3, [2, 2]), (0x828E, 1, [0, 1, 1, 2]),
    ]  # fmt: skip
    about = [
        (0x10F, 2, list(b"Maker\0")), (0x110, 2, list(b"Model\0")), (0xC612, 1, [1, 4, 0, 0]),
        (0xC614, 2, list(b"Maker Model\0")), (0xC61D, 4, [65535]), (0xC65A, 3, [21]),
        (0xC621, 10, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]), (0xC628, 5, [1, 1, 1, 1, 1, 1]),
        (0x132, 2, list(b"2023:02:03 04:05:06\0")),
    ]  # fmt: skip
    first = raw
    if preview is not None:
        with Image.open(io.BytesIO(preview)) as image:
            wide, high = image.size
        first = [
            (0xFE, 4, [1]), (0x100, 4, [wide]), (0x101, 4, [high]), (0x102, 3, [8, 8, 8]), (0x103, 3, [7]),
            (0x106, 3, [6]), (0x111, 4, ["preview"]), (0x112, 3, [orientation]), (0x115, 3, [3]), (0x116, 4, [high]),
            (0x117, 4, [len(preview)]), (0x14A, 4, ["inner"]),
        ]  # fmt: skip
    pieces = {"raw": bayer_HW.astype("<u2").tobytes(), "preview": preview or b"", "inner": b""}
    places = dict.fromkeys(pieces, 0)
    for _ in range(2):  # the second time all places are known
        data = bytearray(b"II*\0\x08\0\0\0")
        _append_directory(data, sorted([*first, *about]), places)
        if preview is not None:
            places["inner"] = len(data)
            _append_directory(data, raw, places)
        for name in ("preview", "raw"):
            places[name] = len(data)
            data += pieces[name]
    return bytes(data)


def _append_directory(data: bytearray, fields: list, places: dict[str, int]) -> None:
    form = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 10: "i"}
    outside = len(data) + 2 + 12 * len(fields) + 4
    entries, rest = b"", b""
    for tag, type_, values in fields:
        numbers = [places[value] if isinstance(value, str) else value for value in values]
        packed = struct.pack(f"<{len(numbers)}{form[type_]}", *numbers)
        count = len(numbers) // 2 if type_ in (5, 10) else len(numbers)
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, type_, count, outside + len(rest))
            rest += packed + bytes(len(packed) % 2)
        else:
            entries += struct.pack("<HHI4s", tag, type_, count, packed.ljust(4, b"\0"))
    data += struct.pack("<H", len(fields)) + entries + bytes(4) + rest


def bayer(width: int = 160, height: int = 120) -> np.ndarray:
    """Red on the left, blue on the right."""
    mosaic_HW = np.full((height, width), 2000, dtype=np.uint16)
    mosaic_HW[0::2, : width // 2 : 2] = 50_000
    mosaic_HW[1::2, width // 2 + 1 :: 2] = 50_000
    return mosaic_HW


def test_a_raw_file_without_a_preview_is_developed():
    pytest.importorskip("rawpy")
    media, pixels_HWC = read(dng(bayer()), "x.dng")
    assert (media.kind, media.width, media.height, media.taken) == ("raw", 160, 120, "2023-02-03T04:05:06")
    height, width, _ = pixels_HWC.shape
    assert abs(width - 80) <= 2
    assert abs(height - 60) <= 2
    left, right = pixels_HWC[:, 10:30].mean(axis=(0, 1)), pixels_HWC[:, 50:70].mean(axis=(0, 1))
    assert left[0] > 2 * left[2]
    assert right[2] > 2 * right[0]


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_the_preview_of_a_raw_file_is_used_upright(orientation: int):
    pytest.importorskip("rawpy")
    preview = scene(900, 600)
    data = dng(bayer(1800, 1200), preview=encoded(preview, "JPEG", quality=95), orientation=orientation)
    media, pixels_HWC = read(data, "x.DNG")
    turned = preview.rotate({1: 0, 6: -90, 3: 180}[orientation], expand=True)
    assert close(pixels_HWC, turned)
    assert (media.width > media.height) == (turned.width > turned.height)


@pytest.mark.parametrize("end", [10, 200, 1000, 20_000])
def test_a_cut_raw_file_is_refused_or_developed_without_a_crash(end: int):
    pytest.importorskip("rawpy")
    data = dng(bayer())
    with suppress(ValueError):
        media, _ = read(data[:end], "x.dng")
        assert media.width == 160


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_huge_png_is_refused_by_its_header():
    with pytest.raises(ValueError, match=r"huge\.png: the header claims .* bomb"):
        read_media(png_claiming(50_000, 50_000), name="huge.png")
    with pytest.raises(ValueError, match=r"the header claims 200 x 100 pixels, more than 10,000"):
        read_media(png_claiming(200, 100), name="x.png", limits=MediaLimits(max_pixels=10_000))


def test_a_jpeg_of_a_hundred_megapixels_is_divided_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pocketclip.data.picture.MAX_PIXELS", 400_000)  # smaller, for the test's own sake
    monkeypatch.setattr("pocketclip.search.media._SCALED_PIXELS", 40_000)
    image = scene(900, 600)
    media, pixels_HWC = read(encoded(image, "JPEG", quality=95, exif=camera(orientation=6)))
    assert (media.width, media.height) == (600, 900)
    assert pixels_HWC.shape == (225, 150, 3)
    assert close(pixels_HWC, image.resize((225, 150), Image.Resampling.BOX).rotate(-90, expand=True))
    with pytest.raises(ValueError, match="bomb"):
        read(encoded(image, "JPEG"), max_jpeg_pixels=500_000)
    with pytest.raises(ValueError, match="bomb"):  # all its coefficients would be in memory at once
        read(encoded(image, "JPEG", progressive=True))


def test_a_long_file_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "x.png"
    path.write_bytes(bytes(2000))
    for source in (path, path.read_bytes()):
        with pytest.raises(ValueError, match=r"x\.png: 2,000 bytes, more than the 1,000"):
            read_media(source, name="x.png", limits=MediaLimits(max_bytes=1000))


def test_a_path_is_as_good_as_its_bytes(tmp_path: Path):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(scene(), "JPEG", exif=camera()))
    (frame,) = read_media(path, name="x.jpg").frames
    np.testing.assert_array_equal(np.asarray(frame.image), read(path.read_bytes())[1])


def test_the_first_frame_of_an_animation():
    for kind in ("GIF", "WEBP"):
        data = encoded(scene(), kind, save_all=True, append_images=[Image.new("RGB", (96, 64))])
        assert close(read(data)[1], scene(), within=16)


@pytest.mark.parametrize(
    "make",
    [
        lambda image: encoded(image.convert("P"), "PNG"),
        lambda image: encoded(image.convert("CMYK"), "JPEG", quality=95),
        lambda image: encoded(image.convert("CMYK"), "TIFF"),
        lambda image: encoded(image.convert("RGBA"), "PNG"),
        lambda image: encoded(image.convert("YCbCr"), "TIFF"),
    ],
)
def test_odd_colours_become_rgb(make: Callable[[Image.Image], bytes]):
    assert close(read(make(scene()))[1], scene(), within=24)


def test_sixteen_bits_become_eight():
    grey_HW = np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        _, pixels_HWC = read(encoded(Image.fromarray(grey_HW), kind))
        np.testing.assert_allclose(pixels_HWC[..., 0], grey_HW / 257, atol=0.51)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_cut_files_are_one_sentence(kind: str):
    data = encoded(scene(), kind)
    for end in (0, 3, 30, len(data) // 2, len(data) - len(data) // 8):
        with pytest.raises(ValueError, match="cut: "):
            read(data[:end], "cut")


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ("2024:05:01 12:30:59\0", "2024-05-01T12:30:59"),
        ("2024-05-01 12:30:59", "2024-05-01T12:30:59"),
        ("0000:00:00 00:00:00", "2025-01-01T00:00:00"),  # the next best date
        ("    :  :     :  :  ", "2025-01-01T00:00:00"),
        ("2024:02:31 12:30:59", "2025-01-01T00:00:00"),
    ],
)
def test_dates_that_are_none_are_passed_over(taken: str, expected: str):
    assert read(encoded(scene(), "JPEG", exif=camera(taken=taken)))[0].taken == expected


def test_a_place_that_is_none_is_passed_over():
    for latitude in ((0.0, 0.0, 0.0), (91.0, 0.0, 0.0)):
        exif = camera()
        exif.get_ifd(0x8825).update({2: latitude, 4: (0.0, 0.0, 0.0)})
        media, _ = read(encoded(scene(), "JPEG", exif=exif))
        assert (media.latitude, media.longitude) == (None, None)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_exif_never_fails(data: st.DataObject):
    whole = bytearray(encoded(scene(8, 8), "JPEG", exif=camera()))
    end = whole.index(b"\xff\xdb")
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(20, end - 1))] = data.draw(st.integers(0, 255))
    exif = read_exif(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    assert exif.latitude is None or -90 <= exif.latitude <= 90
    assert 1 <= exif.orientation <= 8


def test_nothing_is_said_of_what_is_no_picture():
    assert read_exif(b"") == read_exif(b"II*\0") == read_exif(bytes(1000)) == Exif()


def test_a_thumbnail_keeps_proportions_and_small_pictures():
    with Image.open(io.BytesIO(thumbnail(scene(900, 600)))) as image:
        assert (image.format, image.size) == ("JPEG", (320, 213))
    with Image.open(io.BytesIO(thumbnail(scene(30, 20)))) as image:
        assert image.size == (30, 20)
    with Image.open(io.BytesIO(thumbnail(scene(1000, 2)))) as image:
        assert image.size == (320, 1)
