"""What an evaluation found, as records: scores with intervals, and the ranks any later comparison needs.

A report keeps, for every query, how many wrong candidates beat the right one, so that two models (of one
report) can be compared on the very same queries, and failures can be looked at, without running them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketclip.checkpoint.records import structure, unstructure
from pocketclip.data.index import Dropped
from pocketclip.data.publish import publish_file
from pocketclip.evaluate.bootstrap import Bootstrap, Interval
from pocketclip.evaluate.metrics import DIRECTIONS, Ranks, Retrieval, relevance_groups

VERSION = 1
RECALL_AT = (1, 5, 10)
METRICS = (
    *(f"mean_recall@{k}" for k in RECALL_AT),
    *(f"{direction}_recall@{k}" for direction in DIRECTIONS for k in RECALL_AT),
    "nway_accuracy",
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How models are evaluated.

    Attributes:
        splits: splits of the packed folder to evaluate on.
        batch_size: pictures (and captions) embedded at a time.
        nway: candidates of the n-way zero-shot accuracy, the right one included.
        prompt: text given to the model for a caption; `{}` stands for the caption.
        seed: of the bootstrap draws.
        resamples: number of bootstrap draws.
        level: share of draws inside an interval.
        device: where checkpoints run ("cpu", "cuda", "mps").
    """

    splits: tuple[str, ...] = ("test-style", "test-composition", "test-unseen")
    batch_size: int = 64
    nway: int = 20
    prompt: str = "{}"
    seed: int = 0
    resamples: int = 1000
    level: float = 0.95
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) != len(self.splits):
            raise ValueError(f"splits must name at least one split, each once; they are {list(self.splits)}")
        for name, least in (("batch_size", 1), ("nway", 2), ("resamples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {self.level}")
        if self.prompt.count("{}") != 1:
            raise ValueError(f"prompt must hold one {{}} where the caption goes; it is {self.prompt!r}")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known about an evaluated model; None where it does not tell.

    Attributes:
        source: file it was read from, or a word for a model handed over in memory.
        image_parameters: of the image tower, as trained (not folded).
        text_parameters: of the text tower.
        image_px: edge of the square picture it sees.
    """

    source: str
    image_parameters: int | None = None
    text_parameters: int | None = None
    image_px: int | None = None


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """The queries of one split.

    Attributes:
        image_keys: sample keys, in the order of the ranks.
        texts: distinct main captions, in order of first appearance.
        relevant: for each image the rows in `texts` that are right for it.
        skipped: pictures that could not be read, with the reason.
    """

    image_keys: tuple[str, ...]
    texts: tuple[str, ...]
    relevant: tuple[tuple[int, ...], ...]
    skipped: tuple[Dropped, ...] = ()

    @cached_property
    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64 [N] and [M], the bootstrap group of every image and every text."""
        return relevance_groups(self.relevant, num_texts=len(self.texts))


@dataclass(frozen=True, kw_only=True)
class Result:
    """One model on one split.

    Attributes:
        model: its name in the report.
        split: the split's name.
        scores: metric (one of `METRICS`) -> value and interval, 0..1.
        image_to_text: for each image, how many wrong texts score at least as high as its best right one.
        text_to_image: for each text, how many wrong images do.
    """

    model: str
    split: str
    scores: Mapping[str, Interval]
    image_to_text: tuple[int, ...]
    text_to_image: tuple[int, ...]

    def retrieval(self, facts: SplitFacts) -> Retrieval:
        """The ranks as arrays, with the number of wrong candidates of each query."""
        num_images, num_texts = len(facts.image_keys), len(facts.texts)
        pairs = [(image, text) for image, texts in enumerate(facts.relevant) for text in set(texts)]
        right_of_image = np.bincount([image for image, _ in pairs], minlength=num_images)
        right_of_text = np.bincount([text for _, text in pairs], minlength=num_texts)
        return Retrieval(
            image_to_text=Ranks(beaten=np.array(self.image_to_text), wrong=num_texts - right_of_image),
            text_to_image=Ranks(beaten=np.array(self.text_to_image), wrong=num_images - right_of_text),
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """An evaluation: every model on every split.

    Attributes:
        data: the packed folder.
        config: how it was evaluated.
        models: name -> facts, in the order of the table.
        splits: name -> queries, in the order of the table.
        results: one a model and split.
    """

    data: str
    config: EvaluateConfig
    models: Mapping[str, ModelFacts]
    splits: Mapping[str, SplitFacts]
    results: tuple[Result, ...]
    _by_name: Mapping[tuple[str, str], Result] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {(result.model, result.split): result for result in self.results}
        object.__setattr__(self, "_by_name", by_name)

    def result(self, model: str, split: str) -> Result:
        """The result of one model on one split.

        Raises:
            ValueError: no such model or split, naming those there are.
        """
        if (model, split) not in self._by_name:
            raise ValueError(
                f"the report holds no result of model {model!r} on split {split!r}; "
                f"models: {', '.join(self.models)}; splits: {', '.join(self.splits)}"
            )
        return self._by_name[model, split]

    def compare(self, model: str, baseline: str, *, split: str, metric: str = "mean_recall@1") -> Interval:
        """How much `model` is above `baseline` on the same queries: paired difference with its interval.

        Args:
            model: name of the one.
            baseline: name of the other.
            split: where.
            metric: one of `METRICS`.

        Raises:
            ValueError: an unknown model, split or metric.
        """
        one, other = self.result(model, split), self.result(baseline, split)
        facts, nway = self.splits[split], self.config.nway
        values = metric_values(one.retrieval(facts), metric=metric, nway=nway)
        baselines = metric_values(other.retrieval(facts), metric=metric, nway=nway)
        differences = [a - b for a, b in zip(values, baselines, strict=True)]
        groups = metric_groups(facts, metric=metric)
        return split_bootstrap(facts, self.config).interval(*differences, groups=groups)

    def table(self, *, width: int = 100) -> str:
        """The scores as aligned plain text, in percent, with half the interval's width after ±.

        Models are rows; splits by metrics are columns where `width` characters hold them, else each split
        gets a table of its own.
        """
        return plain_table(self, width=width)

    def to_json(self) -> str:
        """The whole report as JSON text; equal reports give equal text."""
        head = {"format": "pocketclip-report", "version": VERSION}
        return json.dumps(head | unstructure(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, name: str = "report") -> Report:
        """The report that `to_json` wrote.

        Raises:
            ValueError: not a report, or of another version.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{name} is not JSON ({error}); write it again with `pocketclip evaluate`"
            ) from error
        if not isinstance(fields, dict) or fields.get("format") != "pocketclip-report":
            raise ValueError(f"{name} is not a pocketclip report; write one with `pocketclip evaluate`")
        if fields.get("version") != VERSION:
            raise ValueError(
                f"{name} has version {fields.get('version')} and this pocketclip reads version {VERSION}: "
                "evaluate again"
            )
        body = {key: value for key, value in fields.items() if key not in ("format", "version")}
        try:
            return structure(body, cls)
        except ValueError as error:
            raise ValueError(
                f"{name} is damaged ({error}); write it again with `pocketclip evaluate`"
            ) from error

    def write(self, path: Path) -> None:
        """Publish the report as a JSON file.

        Raises:
            OSError: it cannot be written, with the reason.
        """
        with publish_file(path) as file:
            file.write(self.to_json().encode())

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a report that `write` published.

        Raises:
            ValueError: not a report, or of another version.
            OSError: it cannot be read.
        """
        return cls.from_json(Path(path).read_text(encoding="utf-8"), name=str(path))


def score(
    found: Retrieval,
    facts: SplitFacts,
    *,
    model: str,
    split: str,
    config: EvaluateConfig,
    bootstrap: Bootstrap,
) -> Result:
    """All metrics of one model on one split, with intervals drawn over its concepts."""
    scores = {}
    for metric in METRICS:
        values = metric_values(found, metric=metric, nway=config.nway)
        scores[metric] = bootstrap.interval(*values, groups=metric_groups(facts, metric=metric))
    return Result(
        model=model,
        split=split,
        scores=scores,
        image_to_text=tuple(found.image_to_text.beaten.tolist()),
        text_to_image=tuple(found.text_to_image.beaten.tolist()),
    )


def split_bootstrap(facts: SplitFacts, config: EvaluateConfig) -> Bootstrap:
    """The draws over a split's groups, the same for every model and metric."""
    num_groups = int(facts.groups[1].max()) + 1
    return Bootstrap(num_groups=num_groups, seed=config.seed, resamples=config.resamples, level=config.level)


def metric_values(found: Retrieval, *, metric: str, nway: int) -> list[NDArray[np.float64]]:
    """Per-query values (0..1) of a metric, one array a direction that it averages.

    Raises:
        ValueError: an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")
    if metric == "nway_accuracy":
        return [found.image_to_text.nway(nway)]
    name, _, k = metric.partition("_recall@")
    ranks = {"image_to_text": [found.image_to_text], "text_to_image": [found.text_to_image]}
    return [r.hits(int(k)) for r in ranks.get(name, [found.image_to_text, found.text_to_image])]


def metric_groups(facts: SplitFacts, *, metric: str) -> list[NDArray[np.int64]]:
    """The bootstrap groups of the queries of `metric_values`, array for array."""
    image_groups, text_groups = facts.groups
    if metric.startswith("mean_"):
        return [image_groups, text_groups]
    return [text_groups] if metric.startswith("text_to_image") else [image_groups]


def plain_table(report: Report, *, width: int) -> str:
    """See `Report.table`."""
    columns = {
        "mean_recall@1": "R@1",
        "image_to_text_recall@1": "image>text",
        "text_to_image_recall@1": "text>image",
        "mean_recall@5": "R@5",
        "nway_accuracy": f"{report.config.nway}-way",
    }
    cells = {
        (result.model, result.split, metric): f"{100 * score.value:.1f} ±{100 * score.half_width:.1f}"
        for result in report.results
        for metric, score in result.scores.items()
        if metric in columns
    }
    cell = max([*map(len, columns.values()), *map(len, cells.values())])
    first = max(len("model"), *map(len, report.models))
    block = len(columns) * (cell + 2)
    one_wide = first + len(report.splits) * (block + 2) <= width
    lines: list[str] = []
    for splits in [tuple(report.splits)] if one_wide else [(split,) for split in report.splits]:
        titles = [_split_title(split, report.splits[split]) for split in splits]
        if one_wide:
            titles = [title[:block].ljust(block) for title in titles]
        lines.append(" " * first + "".join(f"    {title}" for title in titles).rstrip())
        heads = "".join(f"  {head:>{cell}}" for head in columns.values())
        lines.append("model".ljust(first) + "".join(f"  {heads}" for _ in splits))
        for model in report.models:
            rows = ["".join(f"  {cells[model, split, m]:>{cell}}" for m in columns) for split in splits]
            lines.append(model.ljust(first) + "".join(f"  {row}" for row in rows))
        lines.append("")
    lines.append(
        f"percent; R@k is the mean of both directions; image>text and text>image are R@1; "
        f"± half of the {100 * report.config.level:g}% bootstrap interval"
    )
    return "\n".join(lines)


def _split_title(name: str, facts: SplitFacts) -> str:
    title = f"{name}: {len(facts.image_keys):,} pictures, {len(facts.texts):,} captions"
    return title + (f", {len(facts.skipped)} skipped" if facts.skipped else "")
