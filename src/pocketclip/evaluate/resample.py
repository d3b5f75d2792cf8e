"""Main metrics computed again from what is kept of every query, and how sure they are.

A task keeps a few arrays (`QUERIES` below) instead of embeddings. From them its main metric follows for any weights of
its queries, and so do bootstrap intervals and paired differences, whatever the metric: recall per class, macro-F1 and
the worst group too, which no mean of hits gives. Q: queries: pictures, pictures with their captions, or WinoGAViL's
instances. N: pictures, M: texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketclip.data.publish import publish_file
from pocketclip.evaluate.accuracy import hits, macro_f1, mean, mean_per_class_recall, worst_group
from pocketclip.evaluate.bootstrap import Interval

Queries = Mapping[str, NDArray[Any]]
QUERIES = """\
classes: `label` [Q], `top` [Q, 5] and, where there are groups, `group` [Q]
retrieval: `image_to_text` [N], `text_to_image` [M] wrong candidates that beat the right one, and the query that each
    belongs to, `image_group` [N], `text_group` [M]: what is right for each other is one
choice: `right` [Q]        associations: `jaccard` [Q], `candidates` [Q]"""
"""What is kept, by kind of task."""


def main_value(metric: str, queries: Queries, weights_Q: NDArray[np.float64] | None = None) -> float:
    """A main metric, 0..1.

    Args:
        metric: its name, as in `TASKS`.
        queries: what the task kept.
        weights_Q: how many times each query counts, at least 0; None for once.

    Raises:
        ValueError: a metric that is no task's main one.
    """
    if "top" in queries:
        label, top = queries["label"].astype(np.int64), queries["top"].astype(np.int64)
        match metric:
            case "acc1" | "acc5":
                return mean(hits(top, label, k=int(metric[-1])), weights_Q)
            case "mean_per_class_recall":
                return mean_per_class_recall(label, top[:, 0], weights_Q)
            case "F1-macro_all":
                return macro_f1(label, top[:, 0], weights_Q)
            case "acc_worst_region" | "acc_wg" | "acc_top5_wg":
                right = hits(top, label, k=5 if "top5" in metric else 1)
                return worst_group(right, queries["group"].astype(np.int64), weights_Q)
    if metric.startswith("mean_recall@") and "image_to_text" in queries:
        return _mean_recall(queries, weights_Q, k=int(metric.partition("@")[2]))
    if metric == "text_acc" and "right" in queries:
        return mean(queries["right"].astype(np.float64), weights_Q)
    if metric == "jaccard_score_10-12" and "jaccard" in queries:
        many = (queries["candidates"] >= 10).astype(np.float64)
        return mean(queries["jaccard"].astype(np.float64), many if weights_Q is None else many * weights_Q)
    raise ValueError(f"metric {metric!r} cannot be computed from {', '.join(queries)}")


def main_interval(
    metric: str, queries: Queries, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """A main metric with its percentile bootstrap interval; queries are drawn with replacement.

    Args:
        metric: its name.
        queries: what the task kept.
        seed: of the draws.
        resamples: how many, at least 1.
        level: share of them inside, in (0, 1).
    """
    values = _resampled(metric, queries, seed=seed, resamples=resamples)
    return _interval(main_value(metric, queries), values, level=level)


def paired_difference(
    metric: str, one: Queries, other: Queries, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """How much one model is above another on the same queries, with its paired percentile interval.

    Raises:
        ValueError: the two were measured on different queries.
    """
    if not same_queries(one, other):
        raise ValueError(
            "a paired difference needs the same queries: the two were measured on different pictures"
        )
    first = _resampled(metric, one, seed=seed, resamples=resamples)
    second = _resampled(metric, other, seed=seed, resamples=resamples)
    return _interval(main_value(metric, one) - main_value(metric, other), first - second, level=level)


def same_queries(one: Queries, other: Queries) -> bool:
    """Whether two were measured on the same queries: as many, of the same labels and groups."""
    facts = ("label", "group", "image_group", "text_group", "candidates")
    return num_queries(one) == num_queries(other) and all(
        (name in one) == (name in other) and (name not in one or np.array_equal(one[name], other[name]))
        for name in facts
    )


def num_queries(queries: Queries) -> int:
    """Q."""
    if "image_group" in queries:
        return int(queries["image_group"].max()) + 1
    return len(queries[next(name for name in ("label", "right", "jaccard") if name in queries)])


def write_queries(path: Path, queries: Queries) -> None:
    """Publishes what a task kept, as `.npz`.

    Raises:
        PublishError: it cannot be written.
    """
    with publish_file(Path(path)) as file:
        np.savez_compressed(file, allow_pickle=False, **queries)


def read_queries(path: Path) -> dict[str, NDArray[Any]]:
    """What `write_queries` published.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): evaluate again") from error


def _mean_recall(queries: Queries, weights_Q: NDArray[np.float64] | None, *, k: int) -> float:
    """Mean of both directions' recall; pictures and texts count as often as their query."""
    found = []
    for direction, groups in (("image_to_text", "image_group"), ("text_to_image", "text_group")):
        weights = None if weights_Q is None else weights_Q[queries[groups].astype(np.int64)]
        found.append(mean((queries[direction] < k).astype(np.float64), weights))
    return (found[0] + found[1]) / 2


def _resampled(metric: str, queries: Queries, *, seed: int, resamples: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    num = num_queries(queries)
    values = np.empty(resamples)
    for i in range(resamples):
        weights = np.bincount(rng.integers(0, num, size=num), minlength=num).astype(np.float64)
        values[i] = main_value(metric, queries, weights)
    return values


def _interval(value: float, values: NDArray[np.float64], *, level: float) -> Interval:
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    return Interval(value=value, low=float(low), high=float(high))
