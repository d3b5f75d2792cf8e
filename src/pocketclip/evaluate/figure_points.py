"""Who stands where on the map: published models by Table 8, one's own by its results and a latency that is known.

A latency of one's own was not measured on the phone of Table 8. A model with the towers of a published one takes that
one's; of others the place is estimated from a bench that holds published towers beside them, and drawn as such.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketclip.evaluate.figure import OWN, Point
from pocketclip.evaluate.published import PublishedModel, find_published, published_results, table8
from pocketclip.evaluate.rows import Row, average, shift_average

IMAGENET, MEAN, SHIFT = "imagenet", "mean38", "shift"
AXES = {
    IMAGENET: "ImageNet-1k zero-shot top-1 (%)",
    MEAN: "mean over the 38 sets of DataComp (%)",
    SHIFT: "mean over ImageNet's six shifted sets (%)",
}


@dataclass(frozen=True, kw_only=True)
class Benched:
    """A model's latencies on some machine.

    Attributes:
        variant: whose towers it has; None where unknown.
        latency_ms: both towers, one picture and one text.
    """

    variant: str | None
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A model's place on the horizontal axis.

    Attributes:
        latency_ms: on the map's machine.
        spread_ms: least and most, where it is an estimate from several published models.
        estimated: not measured there.
    """

    latency_ms: float
    spread_ms: tuple[float, float] | None = None
    estimated: bool = False


def published_points(accuracy: str) -> list[Point]:
    """The models of Table 8 that have both a latency and this accuracy: one of `AXES`, or the key of a set."""
    points = []
    for model in table8().values():
        height = _published_height(model, accuracy)
        if model.latency_ms is not None and height is not None:
            points.append(
                Point(name=model.name, family=model.family, latency_ms=model.latency_ms, accuracy=height)
            )
    return points


def own_point(name: str, rows: Sequence[Row], latency: Latency, *, accuracy: str) -> Point:
    """A model of one's own.

    Raises:
        ValueError: its results do not hold the sets that the accuracy is made of.
    """
    height = accuracy_of(rows, accuracy)
    if height is None:
        raise ValueError(
            f"{name} has no result for {AXES.get(accuracy, accuracy)}: evaluate it on those sets, or choose another "
            "--accuracy"
        )
    return Point(
        name=name,
        family=OWN,
        latency_ms=latency.latency_ms,
        accuracy=height,
        spread_ms=latency.spread_ms,
        estimated=latency.estimated,
    )


def accuracy_of(rows: Sequence[Row], accuracy: str) -> float | None:
    """One of `AXES` or the key of a set, in percent; None where sets are missing."""
    if accuracy == MEAN:
        found = average(rows)
        value = None if found is None or found.missing else found.value
    elif accuracy == SHIFT:
        value = shift_average(rows)
    else:
        key = "imagenet1k" if accuracy == IMAGENET else accuracy
        value = next((row.main for row in rows if row.key == key), None)
    return None if value is None else 100 * value


def published_latency(variant: str) -> Latency | None:
    """What Table 8 says of a model in any spelling; None where it says nothing."""
    name = find_published(variant)
    latency_ms = None if name is None else table8()[name].latency_ms
    return None if latency_ms is None else Latency(latency_ms=latency_ms)


def place(name: str, bench: Mapping[str, Benched]) -> Latency:
    """Where a benched model stands on the phone's axis.

    One with published towers takes their latency. Another is placed by the published ones beside it: its latency times
    the geometric mean of theirs on the phone over theirs in the bench, with the least and most of these ratios.

    Raises:
        ValueError: the bench does not hold the model, or no published towers beside it.
    """
    if name not in bench:
        raise ValueError(
            f"the bench holds {', '.join(bench)} and not {name}: bench it under this name, NAME=MODEL, or give "
            f"--latency {name}=MS"
        )
    own = bench[name]
    found = None if own.variant is None else published_latency(own.variant)
    if found is not None:
        return found
    ratios = [
        known.latency_ms / one.latency_ms
        for one in bench.values()
        if one.variant is not None and (known := published_latency(one.variant)) is not None
    ]
    if not ratios:
        raise ValueError(
            f"the bench holds no model of Table 8 beside {name}, by which it could be placed on the phone's axis: "
            f"bench it beside one, as in `pocketclip bench {name}=MODEL MobileCLIP2-S0 MobileCLIP2-S2`"
        )
    middle = math.exp(statistics.fmean(map(math.log, ratios)))
    spread = (min(ratios) * own.latency_ms, max(ratios) * own.latency_ms) if len(ratios) > 1 else None
    return Latency(latency_ms=middle * own.latency_ms, spread_ms=spread, estimated=True)


def _published_height(model: PublishedModel, accuracy: str) -> float | None:
    if accuracy in AXES:
        return {IMAGENET: model.imagenet, MEAN: model.mean38, SHIFT: model.shift}[accuracy]
    return accuracy_of(published_results().get(model.name, ()), accuracy)
