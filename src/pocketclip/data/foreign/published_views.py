"""The parameters of published views, both ways: which place means what is up to the augmentation's configuration.

A view is a list with one place for each transform that the configuration enables and that draws something, in a fixed
order; transforms that draw nothing have no place. Crops are pixels of the picture, everything after them pixels or
magnitudes at the side that crops are resized to, the teachers'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pocketclip.data.augment import Augmentation, AugmentSpec, from_magnitudes, magnitudes
from pocketclip.data.operations import SIDE_STEPS
from pocketclip.data.sample import JsonValue

SHIPPED_CONFIG: dict[str, JsonValue] = {
    "normalize": {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]},
    "rand_augment": {"enable": True, "p": 1.0},
    "random_resized_crop": {"interpolation": "bicubic", "size": 224},
    "to_rgb": {"enable": True},
    "to_tensor": {"enable": True},
}
"""The configuration of every published set so far."""

_UNSUPPORTED = {
    "resize": "resizes the picture before its crop",
    "center_crop": "crops the picture before its crop",
    "random_crop": "crops without resizing",
}
_CROP, _FLIP, _OPERATIONS, _ERASE = (
    "random_resized_crop",
    "random_horizontal_flip",
    "rand_augment",
    "random_erase",
)
_MIXING = ("mixup", "cutmix")
_ORDER = (_CROP, _FLIP, _OPERATIONS, _ERASE, *_MIXING)
# Settings that change no pixel of a picture that Pillow resizes.
_IGNORED = frozenset({"enable", "antialias", "inplace", "value"})


@dataclass(frozen=True, kw_only=True)
class ViewLayout:
    """What the places of a published view mean.

    Attributes:
        spec: as the views' own AugmentSpec.
        side: that crops are resized to, pixels; translations and erasures count them.
        transforms: that have a place, in order. Those that mix two pictures put one more before all others: the other
            picture, or null; a view with one cannot be replayed.
    """

    spec: AugmentSpec
    side: int
    transforms: tuple[str, ...]

    @property
    def mixes(self) -> bool:
        """Whether views may be mixed with another picture."""
        return any(name in self.transforms for name in _MIXING)


def parse_config(data: bytes, *, name: str) -> ViewLayout:
    """The layout of views by the bytes of a `config.json`: the augmentation, or a training configuration around it.

    Args:
        data: the file's bytes.
        name: the file's, for messages.

    Raises:
        ValueError: it is no such file, or its views cannot be replayed.
    """
    try:
        config = json.loads(data)
        if isinstance(config, dict) and "reinforce" in config:
            config = config["reinforce"]["image_augmentation"]
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
        return layout_of(config)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{name}: this augmentation cannot be used ({error})") from None


def layout_of(config: Mapping[str, JsonValue]) -> ViewLayout:
    """The layout of views by their configuration. Transforms that are not known are passed over.

    Raises:
        ValueError: a transform or a setting cannot be replayed; the sentence names it.
    """
    enabled = {name: settings for name in config if (settings := _settings(config, name)) is not None}
    for name, reason in _UNSUPPORTED.items():
        if name in enabled:
            raise ValueError(f"{name} {reason}, which cannot be replayed here")
    if _CROP not in enabled:
        raise ValueError(f"it has no {_CROP}")
    crop = enabled[_CROP]
    _check(crop, {"size", "scale", "ratio", "interpolation"}, what=_CROP)
    side = _side(crop)
    spec: dict[str, object] = {
        "scale": _pair(crop, "scale", (0.08, 1.0)),
        "ratio": _pair(crop, "ratio", (3 / 4, 4 / 3)),
        "interpolation": crop.get("interpolation", "bilinear"),
        "resize_order": "pillow_12",
        "translate_px": side,
    }
    spec |= _operations(enabled[_OPERATIONS]) if _OPERATIONS in enabled else {"num_ops": 0}
    if _FLIP in enabled:
        _check(enabled[_FLIP], {"p"}, what=_FLIP)
        spec["flip"] = _number(enabled[_FLIP], "p", 0.5)
    if _ERASE in enabled:
        erase = enabled[_ERASE]
        _check(erase, {"p", "scale", "ratio"}, what=_ERASE)
        spec |= {
            "erase": _number(erase, "p", 0.5),
            "erase_scale": _pair(erase, "scale", (0.02, 0.33)),
            "erase_ratio": _pair(erase, "ratio", (0.3, 3.3)),
            "erase_fill": (0, 0, 0),
        }
    return ViewLayout(
        spec=AugmentSpec(**spec),  # ty: ignore[invalid-argument-type]
        side=side,
        transforms=tuple(name for name in _ORDER if name in enabled),
    )


def read_view(value: JsonValue, *, layout: ViewLayout, width: int, height: int) -> Augmentation:
    """A view out of its published form.

    Args:
        value: its list of parameters.
        layout: what the places mean.
        width: of the picture, pixels.
        height: likewise.

    Raises:
        ValueError: it is no view of this layout and picture, or is mixed with another picture.
    """
    parts = _parts(value, layout=layout)
    if layout.mixes and parts["mixed with"] is not None:
        raise ValueError(f"a view is mixed with the picture {parts['mixed with']!r}")
    if any(parts.get(name) is not None for name in _MIXING):
        raise ValueError("a view is mixed with a picture that it does not name")
    flip = parts.get(_FLIP, False)
    if not isinstance(flip, bool):
        raise ValueError(f"a view's flip is {flip!r}")
    drawn = _drawn(parts[_OPERATIONS]) if _OPERATIONS in parts else ()
    erasure = _erasure(parts.get(_ERASE), side=layout.side)
    return Augmentation(
        width=width,
        height=height,
        crop=_integers(parts[_CROP], what="crop"),
        flip=flip,
        operations=from_magnitudes(drawn, spec=layout.spec, side=layout.side),
        erasure=erasure if layout.spec.erase else None,
    )


def write_view(view: Augmentation, *, layout: ViewLayout, spec: AugmentSpec) -> list[JsonValue]:
    """A view in its published form, the inverse of `read_view`.

    Args:
        view: of `spec`.
        layout: of `published_layout`.
        spec: what the view was drawn from.
    """
    places: list[JsonValue] = [list(view.crop)]
    if _FLIP in layout.transforms:
        places.append(view.flip)
    if _OPERATIONS in layout.transforms:
        drawn = magnitudes(view, spec=spec, side=layout.side)
        skipped = spec.rand_augment < 1.0 and all(operation == (0, 0) for operation in view.operations)
        places.append(None if skipped else [list(pair) for pair in drawn])
    if _ERASE in layout.transforms:
        assert view.erasure is not None
        places.append(_erased_pixels(view.erasure, side=layout.side))
    return places


def published_layout(spec: AugmentSpec, *, side: int) -> tuple[ViewLayout, dict[str, JsonValue]]:
    """How views of a spec are published, and the configuration that says so.

    Args:
        spec: of the views.
        side: the teachers', pixels; a spec with `translate_px` has its own.

    Raises:
        ValueError: the published form has no place for what the spec draws.
    """
    side = spec.translate_px or side
    if spec.jitter:
        raise ValueError("published views have no colour jitter: reinforce without it")
    if spec.erase and spec.erase_fill != (0, 0, 0):
        raise ValueError("published views erase to black: reinforce with erase_fill 0 0 0")
    crop: dict[str, JsonValue] = {"interpolation": spec.interpolation, "size": side}
    crop |= {"scale": list(spec.scale), "ratio": list(spec.ratio)}
    config: dict[str, JsonValue] = {**SHIPPED_CONFIG, _CROP: crop}
    config[_OPERATIONS] = {
        "enable": spec.num_ops > 0,
        "p": spec.rand_augment,
        "num_ops": spec.num_ops,
        "magnitude": spec.magnitude,
        "num_magnitude_bins": spec.num_bins,
    }
    if spec.flip:
        config[_FLIP] = {"p": spec.flip}
    if spec.erase:
        config[_ERASE] = {
            "p": spec.erase,
            "scale": list(spec.erase_scale),
            "ratio": list(spec.erase_ratio),
        }
    return layout_of(config), dict(sorted(config.items()))


def extent(views: Sequence[JsonValue], *, layout: ViewLayout) -> tuple[int, int]:
    """Width and height of the smallest picture that has room for the crops of all views.

    Raises:
        ValueError: one of them is no view.
    """
    width = height = 1
    for value in views:
        top, left, crop_h, crop_w = _integers(_parts(value, layout=layout)[_CROP], what="crop")
        width, height = max(width, left + crop_w), max(height, top + crop_h)
    return width, height


def _parts(value: JsonValue, *, layout: ViewLayout) -> dict[str, JsonValue]:
    """A view's parameters by transform, and what it is "mixed with" where that has a place."""
    names = [*(["mixed with"] if layout.mixes else []), *layout.transforms]
    if not isinstance(value, list) or len(value) != len(names):
        raise ValueError(
            f"a view is {json.dumps(value)[:60]}, where the augmentation's configuration has the {len(names)} "
            f"parameters {', '.join(names)}"
        )
    return dict(zip(names, value, strict=True))


def _settings(config: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue] | None:
    """A transform's settings, or None where it is not known or not enabled."""
    if name not in (*_UNSUPPORTED, *_ORDER):
        return None
    settings = config[name]
    if not isinstance(settings, dict):
        raise ValueError(f"{name} is not an object")
    return settings if settings.get("enable", True) else None


def _operations(settings: Mapping[str, JsonValue]) -> dict[str, object]:
    _check(
        settings,
        {"p", "num_ops", "magnitude", "num_magnitude_bins", "interpolation", "fill"},
        what="rand_augment",
    )
    if settings.get("interpolation", "nearest") != "nearest" or settings.get("fill") is not None:
        raise ValueError("rand_augment has another interpolation than nearest, or a fill")
    return {
        "rand_augment": _number(settings, "p", 1.0),
        "num_ops": _count(settings, "num_ops", 2),
        "magnitude": _count(settings, "magnitude", 9),
        "num_bins": _count(settings, "num_magnitude_bins", 31),
    }


def _side(crop: Mapping[str, JsonValue]) -> int:
    size = crop.get("size")
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if type(size) is not int or size < 1:
        raise ValueError(f"random_resized_crop has the size {size!r}, which is no side of a square")
    return size


def _check(settings: Mapping[str, JsonValue], known: set[str], *, what: str) -> None:
    unknown = sorted(set(settings) - known - _IGNORED)
    if unknown:
        raise ValueError(f"{what} has the setting {unknown[0]}, which is not known here")


def _number(settings: Mapping[str, JsonValue], name: str, default: float) -> float:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, not a number")
    return float(value)


def _count(settings: Mapping[str, JsonValue], name: str, default: int) -> int:
    value = settings.get(name, default)
    if type(value) is not int:
        raise ValueError(f"{name} is {value!r}, not an integer")
    return value


def _pair(settings: Mapping[str, JsonValue], name: str, default: tuple[float, float]) -> tuple[float, float]:
    value = settings.get(name, list(default))
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{name} is {value!r}, not two numbers")
    low, high = (_number({name: part}, name, 0.0) for part in value)
    return low, high


def _integers(value: JsonValue, *, what: str) -> tuple[int, int, int, int]:
    if not isinstance(value, list) or len(value) != 4 or not all(type(part) is int for part in value):
        raise ValueError(f"a view's {what} is {json.dumps(value)[:60]}, not four integers")
    first, second, third, fourth = cast("list[int]", value)
    return first, second, third, fourth


def _drawn(value: JsonValue) -> tuple[tuple[int, float], ...] | None:
    """Operations with their magnitudes; None where RandAugment was skipped."""
    if value is None:
        return None
    wrong = ValueError(f"a view's operations are {json.dumps(value)[:60]}, not pairs of number and magnitude")
    if not isinstance(value, list):
        raise wrong
    drawn = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise wrong
        number, strength = pair
        if type(number) is not int or isinstance(strength, bool) or not isinstance(strength, int | float):
            raise wrong
        drawn.append((number, float(strength)))
    return tuple(drawn)


def _erasure(value: JsonValue, *, side: int) -> tuple[int, int, int, int]:
    """An erased rectangle, rows first, in steps of the side; none where it was skipped."""
    if value is None:
        return 0, 0, 0, 0
    top, left, height, width = _integers(value, what="erasure")
    if top == -1:
        return 0, 0, 0, 0
    if min(top, left, height, width) < 0 or top + height > side or left + width > side:
        raise ValueError(f"a view's erasure {value} is outside its {side}x{side} pixels")
    edges = [round(pixel * SIDE_STEPS / side) for pixel in (top, left, top + height, left + width)]
    return edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]


def _erased_pixels(erasure: tuple[int, int, int, int], *, side: int) -> list[JsonValue] | None:
    top, left, height, width = erasure
    edges = [
        (2 * step * side + SIDE_STEPS) // (2 * SIDE_STEPS) for step in (top, left, top + height, left + width)
    ]
    if edges[0] == edges[2] or edges[1] == edges[3]:
        return None
    return [edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]]
