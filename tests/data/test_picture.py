"""Whatever comes in, an upright RGB picture comes out, or a sentence that names what came in."""

import io
import random
import struct
import threading
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pocketclip.data.picture import MAX_PIXELS, PictureError, decode, open_picture, probe, to_rgb


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(height=24, width=32):
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) * 3 % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def png_claiming(width, height):
    """A tiny PNG whose header claims this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def pixels_of(data):
    image = decode(data, name="it")
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_unchanged():
    assert np.array_equal(pixels_of(encode(gradient())), np.asarray(gradient()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats_give_what_pillow_gives(kind):
    data = encode(gradient(), kind)
    with Image.open(io.BytesIO(data)) as reference:
        assert np.array_equal(pixels_of(data), np.asarray(reference.convert("RGB")))


def test_grey_is_replicated():
    grey = gradient().convert("L")
    assert np.array_equal(pixels_of(encode(grey)), np.repeat(np.asarray(grey)[..., None], 3, axis=-1))


def test_one_bit_becomes_black_and_white():
    bits = gradient().convert("1")
    assert set(np.unique(pixels_of(encode(bits)))) == {0, 255}


@given(st.tuples(*[st.integers(0, 255)] * 4))
def test_transparency_lies_on_white(colour):
    data = encode(Image.new("RGBA", (2, 2), colour))
    alpha = colour[3] / 255
    expected = [alpha * channel + (1 - alpha) * 255 for channel in colour[:3]]
    assert np.abs(pixels_of(data)[0, 0] - np.array(expected)).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "PA", "P", "RGB", "L"])
def test_every_kind_of_transparency_lies_on_white(mode):
    if mode == "LA":
        data = encode(Image.new(mode, (4, 4), (0, 0)))
    elif mode == "PA":  # in a PNG: an alpha for each entry of the palette
        palette = Image.new("P", (4, 4), 1)
        palette.putpalette([9, 9, 9, 8, 8, 8])
        data = encode(palette, transparency=b"\xff\x00")
    else:  # one colour counts as transparent
        data = encode(Image.new(mode, (4, 4), 0), transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert (pixels_of(data) == 255).all()


def test_a_transparent_16_bit_grey_lies_on_white():
    png = bytearray(encode(Image.fromarray(np.array([[1000, 60000]], dtype=np.uint16))))
    chunk = b"tRNS" + struct.pack(">H", 1000)
    png[33:33] = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))  # after the header
    assert pixels_of(bytes(png))[0, :, 0].tolist() == [255, 233]


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_transparency_lies_on_white(mode):
    straight = Image.merge("RGBA", [*gradient().split(), gradient().convert("L")])
    if mode == "La":
        straight = straight.convert("LA")
    image = straight.convert(mode)
    expected = np.asarray(to_rgb(image.convert(straight.mode), name="it"))
    assert np.array_equal(np.asarray(to_rgb(image, name="it")), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_opaque_modes_become_what_pillow_makes_of_them(mode):
    rgb = gradient()
    image = Image.frombytes(mode, rgb.size, rgb.tobytes()) if mode == "LAB" else rgb.convert(mode)
    assert np.array_equal(np.asarray(to_rgb(image, name="it")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16L", "I;16B", "I;16N"])
def test_wide_grey_in_memory_is_scaled(mode):
    values = [0, 257, 32768, 65535]
    image = Image.new(mode, (4, 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    assert np.asarray(to_rgb(image, name="it"))[0, :, 1].tolist() == [0, 1, 128, 255]


def test_wider_grey_is_clipped():
    image = Image.fromarray(np.array([[-5, 70_000]], dtype=np.int32))
    assert np.asarray(to_rgb(image, name="it"))[0, :, 0].tolist() == [0, 255]


def test_palette_without_transparency_keeps_its_colours():
    palette = gradient().quantize(16)
    assert np.array_equal(pixels_of(encode(palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    data = encode(Image.fromarray(values), kind)
    assert pixels_of(data)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_is_converted():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = pixels_of(encode(image, "JPEG", quality=100))[4, 4]
    assert red[0] > 240
    assert red[1:].max() < 20


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pixels_of(data)[3, 3].tolist() == [255, 0, 0]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(kind, orientation):
    data = encode(gradient(), kind, exif=exif(orientation))
    with Image.open(io.BytesIO(data)) as image:
        reference = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(pixels_of(data), reference)
    once = decode(data, name="it")
    assert once.getexif().get(0x0112, 1) == 1
    assert np.array_equal(np.asarray(to_rgb(once, name="it")), reference)
    with Image.open(io.BytesIO(data)) as image:  # opened by others, not loaded yet
        assert np.array_equal(np.asarray(to_rgb(image, name="it")), reference)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_every_mode_is_turned_upright(mode, orientation):
    if mode == "I;16":
        image = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    else:
        image = gradient(20, 30).convert(mode)
    if "A" in mode:
        image.putalpha(gradient(20, 30).convert("L"))
    data = encode(image, exif=exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(pixels_of(data), np.asarray(to_rgb(upright, name="it")))
    assert decode(data, name="it").size == ((20, 30) if orientation in (6, 7) else (30, 20))


def test_orientation_in_xmp_counts_and_is_applied_once():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(gradient(), "WEBP", xmp=xmp, lossless=True)
    upright = np.asarray(gradient().transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(pixels_of(data), upright)
    assert np.array_equal(np.asarray(to_rgb(decode(data, name="it"), name="it")), upright)


@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.integers(0, 8), st.data())
def test_a_region_is_that_part_of_the_whole_picture(kind, orientation, data):
    file = encode(gradient(50, 70), kind, **({"exif": exif(orientation)} if orientation else {}))
    whole = decode(file, name="it")
    opened = open_picture(file, name="it")
    assert opened.size == whole.size
    left, right = sorted(data.draw(st.tuples(st.integers(0, whole.width - 1), st.integers(1, whole.width))))
    top, bottom = sorted(data.draw(st.tuples(st.integers(0, whole.height - 1), st.integers(1, whole.height))))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    expected = whole.crop((left, top, right, bottom)).tobytes()
    crop = (top, left, bottom - top, right - left)
    for decoding in ("exact", "fast"):
        region = opened.region(crop, at_least=10_000, decoding=decoding)
        assert region.image.mode == "RGB"
        assert region.box is None
        assert region.image.tobytes() == expected
    assert np.array_equal(np.asarray(opened.whole()), np.asarray(whole))


def wave(size=512):
    """A picture of low frequencies, 1 pixel of it is much alike the next."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    pixels = np.stack([np.sin(9 * rows + i) * np.cos(7 * columns - i) for i in range(3)], axis=-1)
    return Image.fromarray(np.rint(127.5 + 127 * pixels).astype(np.uint8))


@pytest.mark.parametrize(
    ("crop", "divisor"),
    [
        ((0, 0, 512, 512), 8),
        ((3, 5, 500, 507), 4),
        ((101, 33, 128, 300), 2),
        ((101, 33, 300, 127), 1),
        ((511, 0, 1, 512), 1),
    ],
)
def test_fast_regions_are_scaled_as_far_as_their_shorter_side_allows(crop, divisor):
    data = encode(wave(), "JPEG", quality=95)
    region = open_picture(data, name="it").region(crop, at_least=64, decoding="fast")
    top, left, height, width = crop
    if divisor == 1:
        assert region.box is None
        return
    x0, y0, x1, y1 = region.box
    assert (x1 - x0, y1 - y0) == (width / divisor, height / divisor)
    assert min(x0, y0) >= 0
    assert max(region.image.width - x1, region.image.height - y1) < 1
    # The same place: a shift by a pixel of the picture would be seen.
    seen = region.image.resize((64, 64), Image.Resampling.BICUBIC, box=region.box)
    exact = decode(data, name="it").crop((left, top, left + width, top + height))
    exact = exact.resize((64, 64), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(seen).astype(int) - np.asarray(exact)).mean() < 1


def test_only_jpegs_are_scaled():
    region = open_picture(encode(wave()), name="it").region((0, 0, 512, 512), at_least=64, decoding="fast")
    assert region.box is None
    assert region.image.size == (512, 512)


def test_damage_shows_when_pixels_are_asked_for():
    data = encode(gradient(200, 200), "JPEG")
    opened = open_picture(data[: len(data) // 2], name="holiday.jpg")
    assert opened.size == (200, 200)
    for look in (
        opened.whole,
        lambda: opened.region((0, 0, 8, 8)),
        lambda: opened.region((0, 0, 8, 8), decoding="fast"),
    ):
        with pytest.raises(PictureError, match=r"holiday\.jpg: the picture is damaged or cut off"):
            look()


def test_the_callers_picture_is_left_as_it_was():
    with Image.open(io.BytesIO(encode(gradient(), "JPEG", exif=exif(6)))) as image:
        assert to_rgb(image, name="it").size == (24, 32)
        assert image.size == (32, 24)
        assert image.getexif()[0x0112] == 6
        assert "exif" in image.info


@pytest.mark.parametrize("orientation", [0, 9, 99, "6", (6, 6)])
def test_impossible_orientation_counts_as_none(orientation):
    image = gradient()
    image.getexif()[0x0112] = orientation
    assert np.array_equal(np.asarray(to_rgb(image, name="it")), np.asarray(gradient()))


def test_unreadable_exif_costs_nothing():
    data = encode(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert pixels_of(data).shape == (24, 32, 3)


def test_probe_reads_the_header_only():
    data = encode(gradient(), "JPEG")
    assert probe(data[:-100], name="it") == ("jpg", 32, 24)
    assert probe(encode(gradient(), "WEBP"), name="it") == ("webp", 32, 24)
    assert probe(encode(gradient(), "GIF"), name="it")[0] == "gif"


@pytest.mark.parametrize("read", [decode, probe])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "zero bytes"),
        (b"hello, this is no picture at all", "not a picture in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture in a known format"),
        (png_claiming(50_000, 50_000), "picture bomb"),
        (png_claiming(10_000, 8_000), "10000 x 8000 pixels"),  # below Pillow's own limit
        (png_claiming(10_000, 12_000), "picture bomb"),  # where Pillow only warns
    ],
)
def test_refusals_name_the_picture(read, data, words):
    with pytest.raises(PictureError, match=words) as error:
        read(data, name="holiday/7.png")
    assert str(error.value).startswith("holiday/7.png: ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_pictures_are_refused(kind):
    data = encode(gradient(200, 200), kind)
    with pytest.raises(PictureError, match=r"holiday\.x: "):
        decode(data[: len(data) // 2], name="holiday.x")


def test_float_pixels_are_refused():
    with pytest.raises(PictureError, match="floating-point"):
        decode(encode(Image.new("F", (4, 4), 0.5), "TIFF"), name="it")


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]), st.integers(0, 2**32))
def test_damage_gives_a_picture_or_a_sentence(kind, seed):
    rng = random.Random(seed)
    data = bytearray(encode(gradient(), kind))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with suppress(PictureError):
        assert decode(bytes(data), name="it").mode == "RGB"


def test_pillow_globals_and_warnings_are_left_alone():
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    bomb, fine = png_claiming(10_000, 12_000), encode(gradient())

    def work():
        for _ in range(20):
            decode(fine, name="it")
            with pytest.raises(PictureError):
                decode(bomb, name="it")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == filters
    assert not caught
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS
