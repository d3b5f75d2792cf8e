"""Preprocess: torchvision's pixels, bit for bit, and strict records."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pocketclip.data.picture import PictureError, decode
from pocketclip.data.preprocess import Interpolation, Preprocess

OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Modes of the random pictures below; "tRNS" marks a picture with a transparent colour or palette entry.
MODES = (
    "1", "L", "L tRNS", "LA", "P", "P tRNS", "PA", "RGB", "RGB tRNS", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB",
    "I", "I;16", "I;16B",
)  # fmt: skip


def random_picture(rng: np.random.Generator) -> Image.Image:
    """Of any mode, size, aspect and EXIF orientation: smooth shapes under noise."""
    short, aspect = int(2 ** rng.uniform(0, 8.5)), 2 ** abs(rng.normal(0, 1.5))
    sides = (short, min(int(short * aspect), 3000 if short < 100 else 1000))
    height, width = sides if rng.random() < 0.5 else sides[::-1]
    noisy = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    smooth = np.add.outer(np.linspace(0, 100, height), np.linspace(0, 155, width))[..., None]
    pixels = np.where(rng.random((1, 1, 4)) < 0.5, noisy, smooth).astype(np.uint8)
    mode, *transparent = str(rng.choice(MODES)).split()
    if mode in ("I", "I;16", "I;16B"):
        values = pixels[..., 0].astype(np.uint16) * 256 + pixels[..., 1]
        image = Image.fromarray(values.astype(np.int32 if mode == "I" else values.dtype))
        if mode == "I;16B":
            image = Image.frombytes(mode, image.size, values.astype(">u2").tobytes())
    elif mode in ("RGBX", "RGBA", "CMYK"):
        image = Image.frombytes(mode, (width, height), pixels.tobytes())
    elif mode in ("LAB", "YCbCr", "HSV"):
        image = Image.frombytes(mode, (width, height), pixels[..., :3].tobytes())
    elif mode in ("LA", "PA"):
        image = Image.fromarray(np.ascontiguousarray(pixels[..., :2])).convert(mode)
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., :3])).convert(mode)
    if transparent:
        image.info["transparency"] = (
            tuple(pixels[0, 0, :3].tolist()) if mode == "RGB" else int(pixels[0, 0, 0])
        )
    image.getexif()[0x0112] = int(rng.integers(1, 9))
    return image


def upright_rgb(image: Image.Image) -> Image.Image:
    """What `picture.to_rgb` promises, said with other words of PIL."""
    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(upright) / 257).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = upright.convert("RGBA")
        white = Image.new("RGB", upright.size, "white")
        return Image.composite(layers.convert("RGB"), white, layers.getchannel("A"))
    return upright.convert("RGB")


def assert_equal_to_torchvision(num_pictures: int, *, seed: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    rng = np.random.default_rng(seed)
    met: set[str] = set()
    for number in range(num_pictures):
        image = random_picture(rng)
        met.add(image.mode)
        size = int(rng.choice([1, 15, 48, 97, 224, 256]))
        interpolation: Interpolation = "bilinear" if rng.random() < 0.5 else "bicubic"
        statistics = OPENAI if rng.random() < 0.5 else PLAIN
        reference = transforms.Compose(
            [
                transforms.Resize(size, transforms.InterpolationMode(interpolation), antialias=True),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(**statistics),
            ]
        )
        if size * size * max(image.size) / min(image.size) > 16_000_000:
            image = image.resize((100, 100)) if image.mode in ("L", "RGB") else Image.new("RGB", (100, 100))
        preprocess = Preprocess(size=size, interpolation=interpolation, **statistics)
        expected = reference(upright_rgb(image)).numpy()
        np.testing.assert_array_equal(
            preprocess(image), expected, err_msg=f"picture {number}: {image.mode} {image.size} to {size}"
        )
    assert met >= {mode.split()[0] for mode in MODES}


@pytest.mark.reference
def test_equals_torchvision_to_the_last_bit():
    assert_equal_to_torchvision(150, seed=0)


@pytest.mark.slow
@pytest.mark.reference
def test_equals_torchvision_on_1000_pictures():
    assert_equal_to_torchvision(1000, seed=1)


@pytest.mark.reference
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBX", "CMYK"])
def test_equals_the_transform_of_open_clip(mode: str, interpolation: Interpolation):
    # open_clip converts after resizing, which for CMYK rounds otherwise: its loaders convert before, as we do.
    open_clip = pytest.importorskip("open_clip.transform")
    rng = np.random.default_rng(3)
    for _ in range(20):
        width, height = (int(side) for side in rng.integers(1, 300, 2))
        image = noise(width, height, seed=int(rng.integers(99))).convert(mode)
        size = int(rng.choice([32, 224]))
        preprocess = Preprocess(size=size, interpolation=interpolation, **OPENAI)
        reference = open_clip.image_transform(size, is_train=False, interpolation=interpolation, **OPENAI)
        theirs = reference(image.convert("RGB") if mode == "CMYK" else image)
        np.testing.assert_array_equal(preprocess(image), theirs.numpy())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_photo_is_seen_upright_whoever_opened_it(mode: str, orientation: int):
    tags = Image.Exif()
    tags[0x0112] = orientation
    buffer = io.BytesIO()
    noise(40, 60).convert(mode).save(buffer, "PNG" if mode == "RGBA" else "JPEG", exif=tags)
    preprocess = Preprocess(size=16, interpolation="bicubic", **PLAIN)
    opened = preprocess(Image.open(io.BytesIO(buffer.getvalue())))
    decoded = preprocess(decode(buffer.getvalue(), name="it"))
    by_hand = preprocess(ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue()))))
    np.testing.assert_array_equal(opened, decoded)
    np.testing.assert_array_equal(opened, by_hand)
    as_stored = Image.open(io.BytesIO(buffer.getvalue()))
    as_stored.getexif().clear()
    assert (orientation == 1) == np.array_equal(opened, preprocess(as_stored))


def test_floating_point_pixels_are_refused():
    with pytest.raises(PictureError, match="floating-point"):
        Preprocess(size=16, interpolation="bilinear", **PLAIN)(Image.new("F", (4, 4)))


@pytest.mark.reference
@pytest.mark.parametrize("size", [(4000, 10), (10, 4000)])
def test_a_strip_too_long_to_resize_whole_is_close_to_torchvision(size: tuple[int, int]):
    functional = pytest.importorskip("torchvision.transforms.functional")
    width, height = size
    image = Image.fromarray(np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)).convert("RGB")
    expected = np.asarray(functional.center_crop(functional.resize(image, 256), 256)).astype(int)
    pixels = Preprocess(size=256, interpolation="bilinear", **PLAIN).pixels(image)
    assert np.abs(pixels - expected).max() <= 2


def test_a_batch_equals_its_pictures():
    preprocess = Preprocess(size=32, interpolation="bicubic", **OPENAI)
    images = [noise(40 + i, 50, seed=i) for i in range(3)]
    batch_BCHW = preprocess.normalise(np.stack([preprocess.pixels(image) for image in images]))
    assert batch_BCHW.flags.c_contiguous
    assert batch_BCHW.dtype == np.float32
    np.testing.assert_array_equal(batch_BCHW, np.stack([preprocess(image) for image in images]))


def test_an_extreme_strip_is_affordable_and_keeps_its_centre():
    # 60000 x 1 resized to 256 would be 4 billion pixels; the crop keeps the centre of a dark-to-bright ramp.
    ramp = np.repeat(np.linspace(0, 255, 60000).astype(np.uint8)[None, :, None], 3, axis=2)
    preprocess = Preprocess(size=256, interpolation="bilinear", **PLAIN)
    wide = preprocess.pixels(Image.fromarray(ramp))
    tall = preprocess.pixels(Image.fromarray(ramp.transpose(1, 0, 2).copy()))
    assert wide.shape == tall.shape == (256, 256, 3)
    assert abs(wide.mean() - 127.5) < 1
    assert abs(tall.mean() - 127.5) < 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_modes_are_taken(mode: str):
    preprocess = Preprocess(size=16, interpolation="bilinear", **PLAIN)
    image = Image.new("RGB", (20, 30), (255, 255, 255)).convert(mode)
    np.testing.assert_allclose(preprocess(image), 1.0)


def test_transparency_is_white_as_in_the_decoder():
    preprocess = Preprocess(size=16, interpolation="bilinear", **PLAIN)
    np.testing.assert_allclose(preprocess(Image.new("RGBA", (20, 30), (0, 0, 0, 0))), 1.0)


@given(
    st.builds(
        Preprocess,
        size=st.integers(1, 1024),
        mean=st.tuples(*[st.floats(0, 1)] * 3),
        std=st.tuples(*[st.floats(0.01, 2)] * 3),
        interpolation=st.sampled_from(["bilinear", "bicubic"]),
    )
)
def test_json_round_trip(preprocess: Preprocess):
    assert Preprocess.from_json(preprocess.to_json()) == preprocess


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"crop": 3}, "unknown fields: crop"),
        ({"size": None}, "size"),
        ({"size": 0}, "size"),
        ({"size": True}, "size"),
        ({"mean": [0, 0]}, "mean"),
        ({"mean": ["0", 0, 0]}, "mean"),
        ({"mean": [float("nan"), 0, 0]}, "mean"),
        ({"std": [1, 1, 0]}, "std"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"interpolation": 2}, "interpolation"),
    ],
)
def test_a_wrong_record_is_refused_by_name(change, named: str):
    values = Preprocess(size=224, interpolation="bilinear", **PLAIN).to_json()
    with pytest.raises(ValueError, match=named):
        Preprocess.from_json(values | change)


def test_a_missing_field_is_named():
    values = Preprocess(size=224, interpolation="bilinear", **PLAIN).to_json()
    del values["std"]
    with pytest.raises(ValueError, match="missing fields: std"):
        Preprocess.from_json(values)
