"""What may be drawn: nonsense is refused, and a spec survives JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.augment import AugmentSpec


def pairs(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    """Two numbers, the smaller first."""
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: (min(pair), max(pair)))


@st.composite
def specs(draw_from) -> AugmentSpec:
    chance = st.sampled_from([0.0, 0.3, 1.0])
    num_bins = draw_from(st.integers(2, 40))
    return AugmentSpec(
        scale=draw_from(pairs(1e-3, 1.0)),
        ratio=draw_from(pairs(1e-2, 1e2)),
        flip=draw_from(chance),
        rand_augment=draw_from(chance),
        num_ops=draw_from(st.integers(0, 3)),
        magnitude=draw_from(st.integers(0, num_bins - 1)),
        num_bins=num_bins,
        interpolation=draw_from(st.sampled_from(["bilinear", "bicubic"])),
        resize_order=draw_from(st.sampled_from(["pillow_12", "pillow_13"])),
        translate_px=draw_from(st.sampled_from([None, 1, 224])),
        jitter=draw_from(chance),
        brightness=draw_from(st.floats(0.0, 10.0)),
        contrast=draw_from(st.floats(0.0, 10.0)),
        saturation=draw_from(st.floats(0.0, 10.0)),
        hue=draw_from(st.floats(0.0, 0.5)),
        erase=draw_from(chance),
        erase_scale=draw_from(pairs(1e-4, 1.0)),
        erase_ratio=draw_from(pairs(1e-3, 1e3)),
        erase_fill=draw_from(st.sampled_from([None, (0, 0, 0), (124, 116, 104)])),
    )


@pytest.mark.parametrize(
    "field",
    [
        {"scale": (0.5, 0.1)},
        {"ratio": (0.0, 1.0)},
        {"flip": 1.5},
        {"rand_augment": float("nan")},
        {"num_ops": -1},
        {"magnitude": 31},
        {"num_bins": 1},
        {"interpolation": "nearest"},
        {"resize_order": "pillow_11"},
        {"translate_px": 0},
        {"jitter": -0.1},
        {"hue": 0.6},
        {"brightness": 11.0},
        {"erase_scale": (0.0, 0.5)},
        {"erase_ratio": (2.0, 1.0)},
        {"erase_fill": (0, 0, 256)},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(field):
    with pytest.raises(ValueError, match=f"augmentation {next(iter(field))}"):
        AugmentSpec(**field)


@given(specs())
def test_a_spec_survives_json(spec):
    assert AugmentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flop": 1}, "unknown fields: flop"),
        ({"flip": "often"}, "flip is of the wrong kind: 'often'"),
        ({"num_ops": 2.0}, "num_ops is of the wrong kind"),
        ({"num_ops": True}, "num_ops is of the wrong kind"),
        ({"scale": [0.1]}, "scale is of the wrong kind"),
        ({"erase_fill": [1, 2]}, "erase_fill is of the wrong kind"),
        ({"erase_fill": 7}, "erase_fill"),
        ({"translate_px": [1, 2, 3]}, "translate_px"),
        ({"translate_px": 224.0}, "translate_px is of the wrong kind"),
        ({"interpolation": "nearest"}, "interpolation"),
    ],
)
def test_a_spec_in_json_is_read_strictly(change, message):
    with pytest.raises(ValueError, match=message):
        AugmentSpec.from_json(AugmentSpec().to_json() | change)
    with pytest.raises(ValueError, match="missing fields: erase, flip"):
        AugmentSpec.from_json(
            {k: v for k, v in AugmentSpec().to_json().items() if k not in ("flip", "erase")}
        )
