"""Views: what is drawn can be stored, read back and replayed to the same pixels, which are torchvision's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketclip.data.augment import OPERATIONS, Augmentation, AugmentSpec, apply, draw, pack, seeded, unpack

SPEC = AugmentSpec()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_every_drawn_view_lies_in_the_picture_and_survives_storage(width, height, seed):
    view = draw(seeded(seed), width=width, height=height, spec=AugmentSpec(flip=0.5))
    top, left, crop_h, crop_w = view.crop
    assert 0 <= top <= height - crop_h
    assert 0 <= left <= width - crop_w
    assert min(crop_h, crop_w) >= 1
    packed = pack(view)
    assert packed.dtype == np.int32
    assert packed.shape == (SPEC.num_params,)
    assert unpack(packed) == view


@given(st.integers(0, 2**32))
def test_a_seed_draws_the_same_view_and_its_replay_the_same_pixels(seed):
    view = draw(seeded("key", seed), width=50, height=40, spec=SPEC)
    assert view == draw(seeded("key", seed), width=50, height=40, spec=SPEC)
    first = apply(picture(50, 40), view, size=32, spec=SPEC)
    again = apply(picture(50, 40), unpack(pack(view)), size=32, spec=SPEC)
    assert first.size == (32, 32)
    assert first.tobytes() == again.tobytes()


def test_crop_areas_and_ratios_stay_in_their_ranges():
    views = [draw(seeded(i), width=400, height=400, spec=SPEC) for i in range(500)]
    shares = [h * w / 160_000 for _, _, h, w in (view.crop for view in views)]
    ratios = [w / h for _, _, h, w in (view.crop for view in views)]
    assert 0.075 < min(shares) < 0.15
    assert max(shares) <= 1.0
    assert min(ratios) > 0.73
    assert max(ratios) < 1.36
    counts = np.bincount([index for view in views for index, _ in view.operations], minlength=len(OPERATIONS))
    assert counts.min() > 0.5 * 1000 / len(OPERATIONS)


def test_replay_refuses_a_picture_of_another_size():
    view = draw(seeded(0), width=50, height=40, spec=SPEC)
    with pytest.raises(ValueError, match=r"50x41.*drawn for 50x40"):
        apply(picture(50, 41), view, size=32, spec=SPEC)


@pytest.mark.parametrize("damage", [(2, 45), (4, 0), (6, 7), (7, 14), (7, -1)])
def test_damaged_parameters_are_refused(damage):
    params = pack(
        Augmentation(width=50, height=40, crop=(1, 2, 30, 40), flip=False, operations=((3, 9), (5, -9)))
    )
    place, value = damage
    params[place] = value
    with pytest.raises(ValueError, match="damaged augmentation parameters"):
        unpack(params)


@pytest.mark.parametrize(
    "field", [{"scale": (0.5, 0.1)}, {"ratio": (0.0, 1.0)}, {"flip": 1.5}, {"magnitude": 31}]
)
def test_a_spec_that_makes_no_sense_is_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        AugmentSpec(**field)


@pytest.mark.reference
@pytest.mark.parametrize("number", range(len(OPERATIONS)))
@pytest.mark.parametrize("magnitude", [9, -9, 20, 30])
def test_operations_give_torchvisions_pixels(number, magnitude):
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    functional = pytest.importorskip("torchvision.transforms.functional")
    name = {"autocontrast": "AutoContrast"}.get(
        OPERATIONS[number], OPERATIONS[number].title().replace("_", "")
    )
    image = picture(64, 64, seed=number)
    space = autoaugment.RandAugment()._augmentation_space(31, (64, 64))
    magnitudes, signed = space[name]
    if not signed:
        magnitude = abs(magnitude)
    strength = float(magnitudes[abs(magnitude)]) if magnitudes.ndim else 0.0
    strength = -strength if magnitude < 0 else strength
    nearest = functional.InterpolationMode.NEAREST
    expected = autoaugment._apply_op(image, name, strength, interpolation=nearest, fill=None)
    view = Augmentation(
        width=64, height=64, crop=(0, 0, 64, 64), flip=False, operations=((number, magnitude),)
    )
    assert apply(image, view, size=64, spec=SPEC).tobytes() == expected.tobytes()


@pytest.mark.reference
def test_crop_and_resize_give_torchvisions_pixels():
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = picture(97, 61)
    for seed in range(30):
        view = draw(seeded(seed), width=97, height=61, spec=AugmentSpec(num_ops=0))
        bicubic = functional.InterpolationMode.BICUBIC
        expected = functional.resized_crop(image, *view.crop, size=[48, 48], interpolation=bicubic)
        assert apply(image, view, size=48, spec=SPEC).tobytes() == expected.tobytes()
