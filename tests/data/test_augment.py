"""Views: what is drawn can be stored, read back and replayed to the same pixels, which are torchvision's."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, __version__
from tests.data.test_augment_spec import specs

from pocketclip.data.augment import (
    Augmentation,
    AugmentSpec,
    Jitter,
    apply,
    check_view,
    draw,
    from_magnitudes,
    magnitudes,
    pack,
    seeded,
    unpack,
)
from pocketclip.data.operations import JITTER_ORDERS, OPERATIONS, SIDE_STEPS

SPEC = AugmentSpec()
EVERYTHING = AugmentSpec(flip=0.5, rand_augment=0.7, jitter=0.8, hue=0.5, erase=0.6)
PUBLISHED = AugmentSpec(translate_px=224)
# torchvision resizes as the Pillow does that is installed.
INSTALLED = "pillow_13" if int(__version__.split(".")[0]) >= 13 else "pillow_12"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


# What is drawn


@given(specs(), st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_every_drawn_view_lies_in_the_picture_and_survives_storage(spec, width, height, seed):
    view = draw(seeded(seed), width=width, height=height, spec=spec)
    top, left, crop_h, crop_w = view.crop
    assert 0 <= top <= height - crop_h
    assert 0 <= left <= width - crop_w
    assert min(crop_h, crop_w) >= 1
    packed = pack(view)
    assert packed.dtype == np.int32
    assert packed.shape == (spec.num_params,)
    assert unpack(packed) == view
    assert unpack(packed.astype(np.int16)) == view  # 16 bits are enough for sides below 32,768
    check_view(view, spec=spec)


@given(specs(), st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32))
def test_a_seed_draws_the_same_view_and_its_replay_the_same_pixels(spec, width, height, size, seed):
    view = draw(seeded("key", seed), width=width, height=height, spec=spec)
    assert view == draw(seeded("key", seed), width=width, height=height, spec=spec)
    image = picture(width, height)
    before = image.tobytes()
    first = apply(image, view, size=size, spec=spec)
    again = apply(picture(width, height), unpack(pack(view)), size=size, spec=spec)
    assert (first.size, first.mode) == ((size, size), "RGB")
    assert first.tobytes() == again.tobytes()
    assert image.tobytes() == before  # the picture itself is left alone


@pytest.mark.parametrize(
    ("seed", "spec", "row"),
    [
        (0, SPEC, [640, 480, 19, 138, 438, 463, 0, 12, 9, 5, -9]),
        (1, SPEC, [640, 480, 36, 336, 164, 206, 0, 8, 9, 4, -9]),
        (2, SPEC, [640, 480, 5, 6, 428, 543, 0, 12, 9, 7, 9]),
        (
            3,
            AugmentSpec(flip=0.5, num_ops=3, scale=(0.4, 1.0)),
            [640, 480, 56, 60, 420, 518, 1, 8, 9, 2, 9, 10, 9],
        ),
    ],
)
def test_what_was_drawn_from_a_seed_once_is_drawn_from_it_for_good(seed, spec, row):
    assert pack(draw(seeded(seed, "golden"), width=640, height=480, spec=spec)).tolist() == row


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


def test_flip_randaugment_jitter_and_erasing_come_as_often_as_asked():
    views = [draw(seeded(i), width=40, height=40, spec=EVERYTHING) for i in range(1000)]
    assert np.mean([view.flip for view in views]) == pytest.approx(0.5, abs=0.05)
    skipped = np.mean([view.operations == ((0, 0), (0, 0)) for view in views])
    assert skipped == pytest.approx(0.3, abs=0.05)
    assert np.mean([view.jitter != Jitter() for view in views]) == pytest.approx(0.8, abs=0.05)
    assert np.mean([view.erasure != (0, 0, 0, 0) for view in views]) == pytest.approx(0.6, abs=0.05)


def test_jitter_and_erasures_fill_their_ranges_and_leave_none():
    spec = AugmentSpec(
        jitter=1.0, brightness=0.4, contrast=2.0, saturation=0.0, hue=0.1, erase=1.0, erase_scale=(0.1, 0.2)
    )
    views = [draw(seeded(i), width=40, height=40, spec=spec) for i in range(1000)]
    low_high = np.array([view.jitter.strengths for view in views])
    assert low_high.min(axis=0).tolist() == pytest.approx([600, 0, 1000, -25], abs=5)
    assert low_high.max(axis=0).tolist() == pytest.approx([1400, 3000, 1000, 25], abs=15)
    assert {view.jitter.order for view in views} == set(range(len(JITTER_ORDERS)))
    shares = [h * w / SIDE_STEPS**2 for _, _, h, w in (view.erasure for view in views)]
    assert (min(shares), max(shares)) == pytest.approx((0.1, 0.2), abs=0.005)
    ratios = [h / w for _, _, h, w in (view.erasure for view in views)]
    assert (min(ratios), max(ratios)) == pytest.approx((0.3, 3.3), rel=0.05)


def test_jitter_and_erasing_change_nothing_else_that_is_drawn():
    plain, more = AugmentSpec(flip=0.5), AugmentSpec(flip=0.5, jitter=1.0, erase=1.0)
    for seed in range(50):
        one, other = (draw(seeded(seed), width=99, height=50, spec=spec) for spec in (plain, more))
        assert replace(other, jitter=None, erasure=None) == one


# What is refused


def test_replay_refuses_a_picture_of_another_size():
    view = draw(seeded(0), width=50, height=40, spec=SPEC)
    with pytest.raises(ValueError, match=r"50x41.*drawn for 50x40"):
        apply(picture(50, 41), view, size=32, spec=SPEC)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_ops": 3}, "2 operations"),
        ({"num_bins": 8, "magnitude": 3}, "bin"),
        ({"jitter": 0.0}, "a view with jitter"),
        ({"erase": 0.0}, "a view with an erasure"),
    ],
)
def test_replay_refuses_a_view_of_another_spec(other, message):
    spec = replace(EVERYTHING, rand_augment=1.0)
    view = draw(seeded(0), width=50, height=40, spec=spec)
    with pytest.raises(ValueError, match=message):
        apply(picture(50, 40), view, size=32, spec=replace(spec, **other))
    with pytest.raises(ValueError, match="no jitter, no erasure"):
        apply(picture(50, 40), draw(seeded(0), width=50, height=40, spec=SPEC), size=32, spec=spec)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[(2, 45), (2, -1), (4, 0)],  # the crop
        *[(6, 8), (6, 3), (6, -1)],  # flags
        *[(7, 14), (7, -1)],  # operations
        *[(11, 24), (11, -1), (12, -1), (13, 20_000), (15, 200)],  # jitter
        *[(16, -1), (18, 1025), (19, 900)],  # erasure
    ],
)
def test_damaged_parameters_are_refused(place, value):
    params = pack(
        Augmentation(
            width=50,
            height=40,
            crop=(1, 2, 30, 40),
            flip=False,
            operations=((3, 9), (5, -9)),
            jitter=Jitter(order=3, brightness=700, hue=-3),
            erasure=(100, 200, 300, 400),
        )
    )
    assert unpack(params).erasure == (100, 200, 300, 400)
    params[place] = value
    with pytest.raises(ValueError, match="damaged augmentation parameters"):
        unpack(params)


@pytest.mark.parametrize("length", [0, 6, 8, 10])
def test_rows_of_a_wrong_length_are_refused(length):
    params = pack(draw(seeded(0), width=50, height=40, spec=SPEC))
    with pytest.raises(ValueError, match="damaged augmentation parameters"):
        unpack(params[:length])


# What it looks like at another side


@pytest.mark.parametrize("size", [97, 128, 224, 256])
def test_a_translation_is_the_same_share_of_every_side_unless_the_spec_counts_pixels(size):
    operations = ((3, 9), (4, -9))
    view = Augmentation(width=64, height=64, crop=(0, 0, 64, 64), flip=False, operations=operations)
    white = Image.new("RGB", (64, 64), "white")

    def moved(spec):
        black = (np.asarray(apply(white, view, size=size, spec=spec)) == 0).all(axis=2)
        return int(black.all(axis=0).sum()), int(black.all(axis=1).sum())  # columns, rows

    share = int(150 / 331 * 9 / 30 * size)
    assert moved(SPEC) == (share, share)
    assert moved(PUBLISHED) == (30, 30)  # of 224 pixels


@given(st.integers(0, 2**32), st.integers(8, 150), st.integers(8, 150))
def test_what_is_erased_is_the_same_share_of_every_side(seed, small, large):
    spec = AugmentSpec(num_ops=0, erase=1.0, erase_fill=(1, 2, 3))
    view = draw(seeded(seed), width=30, height=20, spec=spec)
    white = Image.new("RGB", (30, 20), "white")
    edges = []
    for size in (small, large):
        rows, columns = np.nonzero((np.asarray(apply(white, view, size=size, spec=spec)) == (1, 2, 3)).all(2))
        if len(rows):
            edges.append(
                np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / size,
            )
            assert len(rows) == np.prod((edges[-1][2:] - edges[-1][:2]) * size).round()
    if len(edges) == 2:
        assert np.abs(edges[0] - edges[1]).max() <= 0.5 / small + 0.5 / large + 1e-9


def test_an_erasure_without_a_colour_takes_the_mean_of_the_view():
    spec = AugmentSpec(num_ops=0, erase=1.0)
    half = Image.new("RGB", (40, 40), (200, 0, 50))
    half.paste((100, 20, 50), (0, 0, 20, 40))
    view = Augmentation(
        width=40, height=40, crop=(0, 0, 40, 40), flip=False, operations=(), erasure=(256, 0, 512, 1024)
    )
    pixels = np.asarray(apply(half, view, size=40, spec=spec))
    assert (pixels[10:30] == (150, 10, 50)).all()
    assert (pixels[:10, 20:] == (200, 0, 50)).all()
    assert (pixels[30:, 20:] == (200, 0, 50)).all()


def test_a_rectangle_of_pixels_survives_up_to_1024_of_them():
    spec = AugmentSpec(num_ops=0, erase=1.0, erase_fill=(0, 0, 0))
    white = Image.new("RGB", (224, 224), "white")
    for top, left, height, width in [(0, 0, 1, 1), (3, 200, 17, 24), (100, 1, 124, 222), (223, 223, 1, 1)]:
        edges = [round(px * SIDE_STEPS / 224) for px in (top, left, top + height, left + width)]
        erasure = (edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
        view = Augmentation(
            width=224, height=224, crop=(0, 0, 224, 224), flip=False, operations=(), erasure=erasure
        )
        expected = np.full((224, 224, 3), 255, dtype=np.uint8)
        expected[top : top + height, left : left + width] = 0
        np.testing.assert_array_equal(np.asarray(apply(white, view, size=224, spec=spec)), expected)


# Magnitudes, as other formats store them


@given(
    specs().filter(lambda spec: spec.rand_augment == 1.0),
    st.integers(0, 2**32),
    st.sampled_from([1, 224, 256]),
)
def test_magnitudes_come_back_as_the_operations_they_were(spec, seed, side):
    view = draw(seeded(seed), width=30, height=30, spec=spec)
    values = magnitudes(view, spec=spec, side=side)
    back = from_magnitudes(json.loads(json.dumps(values)), spec=spec, side=side)
    assert magnitudes(replace(view, operations=back), spec=spec, side=side) == values
    if spec.magnitude:
        assert back == view.operations


def test_skipped_randaugment_has_no_magnitudes():
    assert from_magnitudes(None, spec=SPEC, side=224) == ((0, 0), (0, 0))
    image, view = picture(30, 30), draw(seeded(1), width=30, height=30, spec=SPEC)
    skipped = replace(view, operations=from_magnitudes(None, spec=SPEC, side=224))
    plain = AugmentSpec(num_ops=0)
    expected = apply(image, replace(view, operations=()), size=24, spec=plain)
    assert apply(image, skipped, size=24, spec=SPEC).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ([(1, 0.09)], "1 operations where the augmentation has 2"),
        ([(1, 0.09), (14, 0.0)], "operation 14 is unknown"),
        ([(1, 0.09), (1, 0.095)], "shear_x has magnitude 0.095, which is none of 31 bins"),
        ([(1, 0.09), (0, 1.0)], "identity has magnitude 1.0"),
        ([(1, 0.09), (11, -178.5)], "solarize has magnitude -178.5"),
        ([(1, 0.09), (5, float("nan"))], "rotate has magnitude nan"),
        ([(1, 9), (3, 9)], "shear_x has magnitude 9"),  # bins, where magnitudes belong
        ([(3, 40.0), (3, 30.0)], "translate_x has magnitude 40.0.* at side 224"),
    ],
)
def test_magnitudes_that_no_bin_has_are_refused(operations, message):
    with pytest.raises(ValueError, match=message):
        from_magnitudes(operations, spec=PUBLISHED, side=224)


def test_magnitudes_shortened_in_print_are_recognised():
    operations = [(6, -0.27), (3, 30.4532)]
    assert from_magnitudes(operations, spec=PUBLISHED, side=224) == ((6, -9), (3, 9))


# torchvision's pixels


def torchvision_operation(image, number, value):
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    functional = pytest.importorskip("torchvision.transforms.functional")
    name = {"autocontrast": "AutoContrast"}.get(
        OPERATIONS[number], OPERATIONS[number].title().replace("_", "")
    )
    nearest = functional.InterpolationMode.NEAREST
    return autoaugment._apply_op(image, name, value, interpolation=nearest, fill=None)


@pytest.mark.reference
@pytest.mark.parametrize("num_bins", [2, 11, 31])
def test_every_bin_has_torchvisions_magnitude(num_bins):
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    space = autoaugment.RandAugment()._augmentation_space(num_bins, (224, 224))
    for number, (table, signed) in enumerate(space.values()):
        for strength in range(num_bins):
            view = Augmentation(
                width=9, height=9, crop=(0, 0, 9, 9), flip=False, operations=((number, strength),)
            )
            spec = AugmentSpec(num_ops=1, num_bins=num_bins, magnitude=0)
            expected = float(table[strength]) if table.ndim else 0.0
            assert magnitudes(view, spec=spec, side=224) == ((number, expected),)
            if signed:
                negative = replace(view, operations=((number, -strength),))
                assert magnitudes(negative, spec=spec, side=224) == (
                    (number, -expected if strength else 0.0),
                )


@pytest.mark.reference
@pytest.mark.parametrize("number", range(len(OPERATIONS)))
@pytest.mark.parametrize("strength", [9, -9, 20, 30])
def test_operations_give_torchvisions_pixels(number, strength):
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    image = picture(64, 64, seed=number)
    table, signed = list(autoaugment.RandAugment()._augmentation_space(31, (64, 64)).values())[number]
    strength = strength if signed else abs(strength)
    value = float(table[abs(strength)]) if table.ndim else 0.0
    expected = torchvision_operation(image, number, -value if strength < 0 else value)
    view = Augmentation(
        width=64, height=64, crop=(0, 0, 64, 64), flip=False, operations=((number, strength),)
    )
    assert apply(image, view, size=64, spec=AugmentSpec(num_ops=1)).tobytes() == expected.tobytes()


@pytest.mark.reference
def test_crop_and_resize_give_torchvisions_pixels():
    functional = pytest.importorskip("torchvision.transforms.functional")
    image, spec = picture(97, 61), AugmentSpec(num_ops=0, resize_order=INSTALLED)
    for seed in range(30):
        view = draw(seeded(seed), width=97, height=61, spec=spec)
        bicubic = functional.InterpolationMode.BICUBIC
        expected = functional.resized_crop(image, *view.crop, size=[48, 48], interpolation=bicubic)
        assert apply(image, view, size=48, spec=spec).tobytes() == expected.tobytes()


@pytest.mark.reference
@pytest.mark.parametrize("side", [224, 256])
def test_published_parameters_replay_to_torchvisions_pixels(side):
    """Parameters that torchvision itself drew at 224, in the published form, replayed at the teachers' side and at the
    student's: the magnitudes are those of 224 at both."""
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    functional = pytest.importorskip("torchvision.transforms.functional")
    torch.manual_seed(0)
    space = list(transforms.RandAugment()._augmentation_space(31, (224, 224)).values())
    image, spec = picture(300, 260), replace(PUBLISHED, resize_order=INSTALLED)
    for _ in range(60):
        crop = transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
        drawn = []
        for number in torch.randint(len(space), (2,)).tolist():
            table, signed = space[number]
            value = float(table[9]) if table.ndim else 0.0
            drawn.append([number, -value if signed and torch.rand(()) < 0.5 else value])
        crop, drawn = json.loads(json.dumps([crop, drawn]))
        expected = functional.resized_crop(
            image, *crop, size=[side, side], interpolation=functional.InterpolationMode.BICUBIC
        )
        for number, value in drawn:
            expected = torchvision_operation(expected, number, value)
        view = Augmentation(
            width=300,
            height=260,
            crop=tuple(crop),
            flip=False,
            operations=from_magnitudes(drawn, spec=PUBLISHED, side=224),
        )
        assert apply(image, view, size=side, spec=spec).tobytes() == expected.tobytes()
        assert [list(pair) for pair in magnitudes(view, spec=PUBLISHED, side=224)] == drawn


@pytest.mark.reference
def test_jitter_gives_torchvisions_pixels_in_any_order():
    functional = pytest.importorskip("torchvision.transforms.functional")
    spec = AugmentSpec(num_ops=0, jitter=1.0, hue=0.5, brightness=0.9, contrast=0.9, saturation=2.0)
    image = picture(40, 40)
    for seed in range(60):
        view = draw(seeded(seed), width=40, height=40, spec=replace(spec, scale=(1.0, 1.0), ratio=(1.0, 1.0)))
        brightness, contrast, saturation, hue = view.jitter.strengths
        if not -127 <= hue <= 127 or hue == 0:
            continue  # torchvision reaches 127 steps at most, and a shift of 0 goes through HSV there
        change = (
            lambda image, factor=brightness: functional.adjust_brightness(image, factor / 1000),
            lambda image, factor=contrast: functional.adjust_contrast(image, factor / 1000),
            lambda image, factor=saturation: functional.adjust_saturation(image, factor / 1000),
            lambda image, steps=hue: functional.adjust_hue(image, (steps + np.sign(steps) * 0.5) / 255),
        )
        expected = image
        for which in JITTER_ORDERS[view.jitter.order]:
            expected = change[which](expected)
        assert apply(image, view, size=40, spec=spec).tobytes() == expected.tobytes()
