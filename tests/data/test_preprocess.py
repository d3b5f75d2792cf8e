"""Preprocess: torchvision's pixels, bit for bit, and strict records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketclip.data.preprocess import Interpolation, Preprocess

OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.reference
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("statistics", [OPENAI, PLAIN], ids=["openai", "plain"])
def test_equals_torchvision_to_the_last_bit(interpolation: Interpolation, statistics):
    transforms = pytest.importorskip("torchvision.transforms")

    @settings(max_examples=60, deadline=None)
    @given(
        width=st.integers(1, 260),
        height=st.integers(1, 260),
        size=st.sampled_from([1, 15, 48, 97, 224]),
        seed=st.integers(0, 99),
    )
    def check(width: int, height: int, size: int, seed: int) -> None:
        reference = transforms.Compose(
            [
                transforms.Resize(size, interpolation=transforms.InterpolationMode(interpolation)),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(**statistics),
            ]
        )
        image = noise(width, height, seed=seed)
        preprocess = Preprocess(size=size, interpolation=interpolation, **statistics)
        np.testing.assert_array_equal(preprocess(image), reference(image).numpy())

    check()


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
