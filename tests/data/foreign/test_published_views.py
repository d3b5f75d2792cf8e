"""Published views: configurations to places, places to pixels, which are those of torchvision's own operations."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.data.test_augment import INSTALLED, picture, torchvision_operation
from tests.published_sets import draw_view, magnitudes

from pocketclip.data.augment import AugmentSpec, apply, draw, seeded
from pocketclip.data.foreign.published_views import (
    SHIPPED_CONFIG,
    extent,
    layout_of,
    parse_config,
    published_layout,
    read_view,
    write_view,
)

SHIPPED = layout_of(SHIPPED_CONFIG)
FLIP = {"random_horizontal_flip": {"p": 0.5}}
ERASE = {"random_erase": {"p": 0.25, "value": "random", "inplace": True}}
CROP = [2, 3, 40, 50]
DRAWN = [[1, magnitudes()[1][0]], [11, magnitudes()[11][0]]]


def config(**changed):
    return {
        name: settings for name, settings in {**SHIPPED_CONFIG, **changed}.items() if settings is not None
    }


def read(value, layout=SHIPPED, *, width=64, height=48):
    return read_view(json.loads(json.dumps(value)), layout=layout, width=width, height=height)


# Configurations


def test_the_shipped_configuration_is_the_published_replay():
    assert SHIPPED.spec == AugmentSpec(translate_px=224, resize_order="pillow_12")
    assert (SHIPPED.side, SHIPPED.transforms) == (224, ("random_resized_crop", "rand_augment"))
    assert not SHIPPED.mixes


def test_every_setting_that_a_view_depends_on_is_taken():
    layout = layout_of(
        config(
            random_resized_crop={
                "size": [256, 256],
                "interpolation": "bilinear",
                "scale": [0.5, 1],
                "ratio": [1, 1.5],
            },
            rand_augment={"p": 0.5, "num_ops": 3, "magnitude": 4, "num_magnitude_bins": 11},
            random_horizontal_flip={"p": 0.25},
            random_erase={"p": 0.75, "scale": [0.1, 0.2], "ratio": [0.5, 2]},
        )
    )
    assert layout.side == 256
    assert layout.transforms == (
        "random_resized_crop",
        "random_horizontal_flip",
        "rand_augment",
        "random_erase",
    )
    assert layout.spec == AugmentSpec(
        scale=(0.5, 1.0),
        ratio=(1.0, 1.5),
        interpolation="bilinear",
        resize_order="pillow_12",
        translate_px=256,
        flip=0.25,
        rand_augment=0.5,
        num_ops=3,
        magnitude=4,
        num_bins=11,
        erase=0.75,
        erase_scale=(0.1, 0.2),
        erase_ratio=(0.5, 2.0),
        erase_fill=(0, 0, 0),
    )


def test_what_is_not_enabled_or_not_known_has_no_place():
    layout = layout_of(
        config(
            rand_augment={"enable": False, "p": 1.0},
            resize={"enable": False},
            mixup={"enable": False},
            center_crop={"enable": False, "size": 224},
            uint8={"enable": True},
            to_rgb={"enable": True},
            timm_resize_crop_norm={"name": "x"},
        )
    )
    assert layout.transforms == ("random_resized_crop",)
    assert read([CROP], layout).operations == ()


def test_a_place_stays_when_its_probability_is_nothing():
    layout = layout_of(config(random_horizontal_flip={"p": 0}, random_erase={"p": 0}))
    view = read([CROP, False, DRAWN, None], layout)
    assert (view.flip, view.erasure) == (False, None)


def test_a_file_may_hold_the_training_configuration_around_it():
    whole = {"model_name": "ViT-L-14,ViT-L-14", "reinforce": {"image_augmentation": SHIPPED_CONFIG}}
    for content in (SHIPPED_CONFIG, whole):
        assert parse_config(json.dumps(content).encode() + b"\n", name="config.json") == SHIPPED


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"resize": {"size": 256}}, "resize resizes the picture before its crop"),
        ({"center_crop": {"size": 224}}, "center_crop crops the picture before its crop"),
        ({"random_crop": {"size": 224}}, "random_crop crops without resizing"),
        ({"random_resized_crop": None}, "it has no random_resized_crop"),
        ({"random_resized_crop": {}}, "the size None"),
        ({"random_resized_crop": {"size": [224, 256]}}, "which is no side of a square"),
        ({"random_resized_crop": {"size": 224, "interpolation": "lanczos"}}, "interpolation must be"),
        ({"random_resized_crop": {"size": 224, "scale": [0.5]}}, "scale is"),
        ({"random_resized_crop": {"size": 224, "padding": 4}}, "the setting padding, which is not known"),
        ({"random_resized_crop": True}, "random_resized_crop is not an object"),
        ({"rand_augment": {"interpolation": "bilinear"}}, "another interpolation than nearest"),
        ({"rand_augment": {"fill": 128}}, "or a fill"),
        ({"rand_augment": {"num_ops": 2.5}}, "num_ops is 2.5, not an integer"),
        ({"rand_augment": {"magnitude": 31}}, "magnitude must be in"),
        ({"random_horizontal_flip": {"p": "often"}}, "p is 'often', not a number"),
        ({"random_horizontal_flip": {"p": 2}}, "flip must be in"),
    ],
)
def test_configurations_that_cannot_be_replayed_are_refused(changed, message):
    with pytest.raises(ValueError, match=f"the/config.json: this augmentation cannot be used .*{message}"):
        parse_config(json.dumps(config(**changed)).encode(), name="the/config.json")


@pytest.mark.parametrize("data", [b"", b"7", b"[]", b'{"reinforce": 1}', b"\xff", b"[" * 100_000])
def test_files_that_are_no_configuration_are_refused(data):
    with pytest.raises(ValueError, match="cannot be used"):
        parse_config(data, name="config.json")


# Views


def test_the_shipped_form():
    view = read([CROP, DRAWN])
    assert (view.width, view.height, view.crop, view.flip) == (64, 48, tuple(CROP), False)
    assert view.operations == ((1, 9), (11, 9))
    assert read([CROP, [[1, -DRAWN[0][1]], [11, 178.5]]]).operations == ((1, -9), (11, 9))


def test_every_enabled_transform_takes_its_place_in_the_fixed_order():
    layout = layout_of(config(**ERASE, **FLIP, rand_augment={"p": 0.5}))
    view = read([CROP, True, DRAWN, [28, 56, 112, 56]], layout)
    assert view.flip
    assert view.operations == ((1, 9), (11, 9))
    assert view.erasure == (128, 256, 512, 256)  # rows first, 1/1024 of the side
    skipped = read([CROP, False, None, None], layout)
    assert (skipped.flip, skipped.operations, skipped.erasure) == (False, ((0, 0), (0, 0)), (0, 0, 0, 0))
    assert read([CROP, False, None, [-1, 0, 0, 0]], layout).erasure == (0, 0, 0, 0)


def test_views_that_are_not_mixed_are_replayed_and_the_others_refused():
    layout = layout_of(config(mixup={"p": 0.5}, cutmix={}))
    assert layout.mixes
    assert read([None, CROP, DRAWN, None, None], layout) == read([CROP, DRAWN])
    with pytest.raises(ValueError, match="mixed with the picture 'abc'"):
        read(["abc", [CROP, CROP], [DRAWN, DRAWN], 0.3, None], layout)
    with pytest.raises(ValueError, match="that it does not name"):
        read([None, CROP, DRAWN, 0.3, None], layout)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "a view is null"),
        ({}, "a view is {}"),
        ([], "the 2 parameters random_resized_crop, rand_augment"),
        ([CROP], "the 2 parameters"),
        ([CROP, DRAWN, False], "the 2 parameters"),
        ([None, DRAWN], "crop is null, not four integers"),
        ([[1, 2, 3], DRAWN], "not four integers"),
        ([[1.0, 2, 3, 4], DRAWN], "not four integers"),
        ([[True, 2, 3, 4], DRAWN], "not four integers"),
        ([[0, 0, 49, 10], DRAWN], "outside the picture of 64x48"),
        ([[0, 15, 10, 50], DRAWN], "outside the picture"),
        ([[-1, 0, 10, 10], DRAWN], "outside the picture"),
        ([[0, 0, 0, 10], DRAWN], "outside the picture"),
        ([CROP, DRAWN[:1]], "1 operations where the augmentation has 2"),
        ([CROP, [[14, 0.0], [0, 0.0]]], "operation 14 is unknown"),
        ([CROP, [[1, 0.205], [0, 0.0]]], "none of 31 bins"),
        ([CROP, [[1.0, 0.09], [0, 0.0]]], "not pairs of number and magnitude"),
        ([CROP, [[1, True], [0, 0.0]]], "not pairs"),
        ([CROP, [1, 0.09]], "not pairs"),
        ([CROP, "ShearX"], "not pairs"),
    ],
)
def test_views_that_are_none_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        read(value)


@pytest.mark.parametrize("erasure", [[0, 0, 225, 1], [200, 0, 30, 1], [0, -2, 5, 5], [0, 0, 5], 7])
def test_erasures_outside_the_side_are_refused(erasure):
    with pytest.raises(ValueError, match="a view's erasure"):
        read([CROP, DRAWN, erasure], layout_of(config(**ERASE)))


def test_flips_are_yes_or_no():
    with pytest.raises(ValueError, match="flip is 1"):
        read([CROP, 1, DRAWN], layout_of(config(**FLIP)))


def test_the_smallest_picture_with_room_for_all_views():
    views = [[[0, 0, 10, 20], None], [[30, 4, 11, 6], None]]
    assert extent(views, layout=SHIPPED) == (20, 41)
    with pytest.raises(ValueError, match="not four integers"):
        extent([[None, None]], layout=SHIPPED)


# Both ways


@given(
    st.integers(0, 2**32),
    st.sampled_from([AugmentSpec(), AugmentSpec(translate_px=224), AugmentSpec(translate_px=256, flip=0.5)]),
)
def test_views_survive_being_published(seed, spec):
    layout, published = published_layout(spec, side=224)
    assert layout.side == (spec.translate_px or 224)
    assert parse_config(json.dumps(published).encode(), name="config.json") == layout
    view = draw(seeded(seed), width=60, height=50, spec=spec)
    assert read(write_view(view, layout=layout, spec=spec), layout, width=60, height=50) == view


@given(st.integers(0, 2**32))
def test_everything_published_shows_the_same_pixels_at_the_teachers_side(seed):
    spec = AugmentSpec(
        flip=0.5, rand_augment=0.6, num_ops=3, erase=0.7, erase_fill=(0, 0, 0), resize_order="pillow_12"
    )
    layout, _ = published_layout(spec, side=32)
    view = draw(seeded(seed), width=40, height=30, spec=spec)
    back = read(write_view(view, layout=layout, spec=spec), layout, width=40, height=30)
    image = picture(40, 30)
    expected = apply(image, view, size=32, spec=spec)
    assert apply(image, back, size=32, spec=layout.spec).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("spec", "message"),
    [(AugmentSpec(jitter=0.5), "no colour jitter"), (AugmentSpec(erase=0.5), "erase to black")],
)
def test_what_has_no_published_form_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        published_layout(spec, side=224)


# Pixels


def horizontal_first(image, crop, side):
    """torchvision's crop and resize, in the order of passes of the Pillow that the published sets were made with."""
    functional = pytest.importorskip("torchvision.transforms.functional")
    bicubic = functional.InterpolationMode.BICUBIC
    cropped = functional.crop(image, *crop)
    wide = functional.resize(cropped, [cropped.height, side], interpolation=bicubic)
    return functional.resize(wide, [side, side], interpolation=bicubic)


@pytest.mark.reference
@pytest.mark.parametrize("side", [224, 256])
def test_views_replay_to_torchvisions_pixels(side):
    functional = pytest.importorskip("torchvision.transforms.functional")
    rng = random.Random(0)
    image = picture(300, 260)
    num_alike = 0
    for _ in range(40):
        crop, drawn = draw_view(rng, width=300, height=260)
        expected = horizontal_first(image, crop, side)
        bicubic = functional.InterpolationMode.BICUBIC
        whole = functional.resized_crop(image, *crop, size=[side, side], interpolation=bicubic)
        num_alike += whole.tobytes() == expected.tobytes()
        for number, value in drawn:
            expected = torchvision_operation(expected, number, value)
            whole = torchvision_operation(whole, number, value)
        view = read([crop, drawn], width=300, height=260)
        assert apply(image, view, size=side, spec=SHIPPED.spec).tobytes() == expected.tobytes()
        installed = replace(SHIPPED.spec, resize_order=INSTALLED)
        assert apply(image, view, size=side, spec=installed).tobytes() == whole.tobytes()
    assert num_alike > 20


@pytest.mark.reference
def test_flips_and_erasures_are_torchvisions():
    functional = pytest.importorskip("torchvision.transforms.functional")
    layout = layout_of(config(**FLIP, **ERASE, rand_augment={"enable": False}))
    image = picture(100, 90)
    for crop, flip, erasure in (
        ([10, 5, 60, 70], True, [0, 10, 100, 20]),
        ([0, 0, 90, 100], False, [223, 0, 1, 224]),
        ([0, 0, 9, 10], True, None),
    ):
        expected = horizontal_first(image, crop, 224)
        pixels = np.array(functional.hflip(expected) if flip else expected)
        if erasure:
            x, y, h, w = erasure
            pixels[x : x + h, y : y + w] = 0
        view = read([crop, flip, erasure], layout, width=100, height=90)
        replayed = apply(image, view, size=224, spec=layout.spec)
        assert replayed.tobytes() == Image.fromarray(pixels).tobytes()
