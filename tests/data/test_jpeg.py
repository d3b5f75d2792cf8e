"""JPEGs decoded past Pillow have Pillow's pixels, whatever their kind and whatever was done to them."""

import io
import random
import threading

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketclip.data import jpeg
from pocketclip.data.picture import PictureError, _by_pillow, decode

KINDS = [
    *[(sampling, progressive) for sampling in ("grey", "444", "422", "420") for progressive in (False, True)],
    *[("440", False), ("411", False)],
]


def picture(width=75, height=51, *, seed=0):
    """Smooth and rough parts, sides that are no multiple of a block."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (height // 2, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[0 : height - height // 2, 0:width]
    smooth = np.stack([rows * 3, columns * 2, rows + columns], axis=-1) % 256
    return np.concatenate([rough, smooth.astype(np.uint8)])


def encoded(sampling="420", progressive=False, *, pixels=None, **options):
    pixels = picture() if pixels is None else pixels
    if sampling in ("440", "411"):
        return simplejpeg.encode_jpeg(pixels, colorsubsampling=sampling)
    image, file = Image.fromarray(pixels), io.BytesIO()
    if sampling == "grey":
        image.convert("L").save(file, "JPEG", progressive=progressive, **options)
    else:
        chosen = f"4:{sampling[1]}:{sampling[2]}"
        image.save(file, "JPEG", progressive=progressive, subsampling=chosen, **options)
    return file.getvalue()


def pillows(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def outcome(read, data):
    """Pixels, or the sentence that refuses them."""
    try:
        return np.asarray(read(data, name="it")).tobytes()
    except PictureError as error:
        return str(error)


@pytest.mark.parametrize(("sampling", "progressive"), KINDS)
def test_every_kind_is_known_and_has_pillows_pixels(sampling, progressive):
    data = encoded(sampling, progressive)
    header = jpeg.read_header(data)
    assert header[:5] == (75, 51, sampling, progressive, True)
    assert jpeg.agrees(sampling, progressive), "the locked Pillow and simplejpeg decode alike"
    np.testing.assert_array_equal(jpeg.decode_pixels(data, header)[..., :3], pillows(data))
    np.testing.assert_array_equal(np.asarray(decode(data, name="it")), pillows(data))


@pytest.mark.parametrize("options", [{"quality": 5}, {"quality": 100}, {"restart_marker_blocks": 2}])
def test_qualities_and_restart_markers_change_nothing(options):
    data = encoded(**options)
    np.testing.assert_array_equal(np.asarray(decode(data, name="it")), pillows(data))


@pytest.mark.parametrize("sampling", ["440", "411"])
def test_kinds_that_could_not_be_compared_are_pillows(sampling):
    assert not jpeg.agrees(sampling, True)


def test_where_the_libraries_differ_pillow_decodes(monkeypatch):
    real = simplejpeg.decode_jpeg
    jpeg.agrees.cache_clear()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *data, **more: real(*data, **more) ^ 1)
    data = encoded()
    assert jpeg.decode_pixels(data, jpeg.read_header(data)) is None
    np.testing.assert_array_equal(np.asarray(decode(data, name="it")), pillows(data))
    monkeypatch.undo()
    jpeg.agrees.cache_clear()


def with_byte(data, marker, offset, value):
    """`data` with one byte of the part that `marker` begins replaced."""
    at = data.index(marker) + 4 + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


def cmyk():
    file = io.BytesIO()
    Image.fromarray(picture()).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


def adobe_rgb():
    """Components that are red, green and blue: Adobe's marker, transform 0."""
    data = encoded("444")
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    return data[:2] + marker + data[2:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        cmyk(),
        adobe_rgb(),
        with_byte(encoded(), b"\xff\xc0", 0, 12),  # bits of a sample
        with_byte(encoded(), b"\xff\xc0", 6, 7),  # number of the first component
        with_byte(encoded(), b"\xff\xc0", 7, 0x31),  # its sampling
        encoded().replace(b"\xff\xc0", b"\xff\xc9", 1),  # arithmetic coding
        b"\xff\xd8\xff" + encoded()[2:],  # a byte to fill up
    ],
)
def test_what_is_not_ordinary_is_left_to_pillow(data):
    assert jpeg.read_header(data) is None
    assert outcome(decode, data) == outcome(_by_pillow, data)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(KINDS), st.integers(0, 2**32))
def test_damage_is_judged_as_pillow_judges_it(kind, seed):
    rng = random.Random(seed)
    data = bytearray(encoded(*kind))
    for _ in range(rng.randint(1, 3)):
        head_only = rng.random() < 0.5
        place = rng.randrange(min(len(data), 640 if head_only else len(data)))
        match rng.randrange(4):
            case 0 | 1:
                data[place] = rng.randrange(256)
            case 2:
                del data[place : place + rng.randint(1, 40)]
            case 3:
                data[place:place] = rng.randbytes(rng.randint(1, 9))
    assert outcome(decode, bytes(data)) == outcome(_by_pillow, bytes(data))


@pytest.mark.parametrize("kind", [("420", False), ("444", True), ("grey", False)])
def test_a_file_cut_anywhere_is_refused_as_pillow_refuses_it(kind):
    data = encoded(*kind)
    for length in {*range(0, len(data), 61), len(data) - 1, len(data) - 2, len(data) - 3}:
        assert outcome(decode, data[:length]) == outcome(_by_pillow, data[:length])
    assert "damaged or cut off" in outcome(decode, data[: len(data) - 2])


@given(st.sampled_from(KINDS), st.integers(1, 90), st.data())
def test_rows_above_a_bottom_are_those_of_the_whole_picture(kind, height, data):
    jpg = encoded(*kind, pixels=picture(40, height))
    bottom = data.draw(st.integers(1, height))
    header = jpeg.read_header(jpg)
    pixels = jpeg.decode_pixels(jpg, header, bottom=bottom)
    assert pixels.shape[0] >= bottom
    np.testing.assert_array_equal(pixels[:bottom, :, :3], pillows(jpg)[:bottom])


def test_what_lies_below_the_bottom_is_not_decoded():
    data = encoded(pixels=picture(40, 400))
    assert len(jpeg.decode_pixels(data, jpeg.read_header(data), bottom=30)) < 60
    cut = data[: len(data) // 2]
    assert jpeg.decode_pixels(cut, jpeg.read_header(cut), bottom=30) is None


@pytest.mark.parametrize("divisor", jpeg.SCALES)
@pytest.mark.parametrize(("sampling", "progressive"), KINDS)
def test_a_scaled_picture_is_the_mean_of_its_pixels(sampling, progressive, divisor):
    rows, columns = np.mgrid[0:130, 0:171]
    smooth = np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)
    data = encoded(sampling, progressive, pixels=smooth)
    pixels = jpeg.decode_pixels(data, jpeg.read_header(data), divisor=divisor)[..., :3]
    assert pixels.shape[:2] == (-(-130 // divisor), -(-171 // divisor))
    size = (171 // divisor, 130 // divisor)
    whole = (0, 0, size[0] * divisor, size[1] * divisor)
    expected = Image.fromarray(pillows(data)).resize(size, Image.Resampling.BOX, box=whole)
    difference = np.abs(pixels[: size[1], : size[0]].astype(int) - np.asarray(expected))
    assert difference.mean() < 3  # a column further would be 8 levels at the smallest scale
    assert difference.max() < 16


def test_threads_do_not_share_memory_and_pictures_outlive_it():
    files = [encoded(pixels=picture(60 + i, 50, seed=i)) for i in range(6)]
    expected = [pillows(data).tobytes() for data in files]
    wrong = []

    def work(start):
        kept = [(i % 6, decode(files[i % 6], name="it")) for i in range(start, start + 60)]
        wrong.extend(i for i, image in kept if image.tobytes() != expected[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
