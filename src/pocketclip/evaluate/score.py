"""From embeddings to a task's metrics, by the names under which results are published.

N: pictures, M: texts, C: classes, D: embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketclip.evaluate.accuracy import (
    calibration_error,
    hits,
    macro_f1,
    mean,
    mean_per_class_recall,
    predict,
)
from pocketclip.evaluate.faces import by_group, face_metrics, questions
from pocketclip.evaluate.metrics import relevance_groups, retrieval
from pocketclip.evaluate.prompts import class_names, templates
from pocketclip.evaluate.resample import Queries
from pocketclip.evaluate.sets.item import Item, PictureSet, SetError
from pocketclip.evaluate.tasks import Groups, Task
from pocketclip.evaluate.texts import TextRows

RECALL_AT = (1, 5, 10)
_LEAST_CLASSES = 5
"""Of fewer classes there is no top-5 accuracy."""
_MIRROR = "classnames.txt and zeroshot_classification_templates.txt"


@dataclass(frozen=True, kw_only=True)
class Classes:
    """How the classes of a set are told.

    Attributes:
        names: by label.
        templates: prompts, `{c}` for the name.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a model scored on a set.

    Attributes:
        metrics: name -> value; `main_metric` last.
        queries: what is kept of every query, see `resample.py`; empty for sets without a main metric.
        classes: of a classification.
        confidence: float64 [N] of a classification, the probability of the class it took.
        calibration_error: expected, of a classification, 0..1.
    """

    metrics: dict[str, float | None]
    queries: Queries
    classes: Classes | None = None
    confidence: NDArray[np.float64] | None = None
    calibration_error: float | None = None


def score(
    task: Task,
    pictures: PictureSet,
    rows: NDArray[np.int64],
    images_ND: NDArray[np.float32],
    texts: TextRows,
    *,
    logit_scale: float,
    name: str,
) -> Scored:
    """Scores a model on a task.

    Args:
        task: what is measured.
        pictures: the set.
        rows: of its items that could be embedded.
        images_ND: their unit-norm rows.
        texts: the same model's.
        logit_scale: the model's, for its confidence.
        name: what is measured, for messages.

    Raises:
        SetError: no picture, or class names or metadata that do not fit.
        ValueError: embeddings that are not finite.
    """
    items = [pictures.items[row] for row in rows]
    if not items:
        raise SetError(f"{name}: no picture can be read")
    bad = np.flatnonzero(~np.isfinite(images_ND).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: {len(bad)} of {len(images_ND)} image embeddings are NaN or infinite (first: "
            f"{items[bad[0]].source}): the training diverged or the checkpoint is damaged"
        )
    match task.kind:
        case "classification":
            found = _classification(
                task, pictures, items, images_ND, texts, logit_scale=logit_scale, name=name
            )
        case "faces":
            found = _faces(pictures, items, images_ND, texts, name=name)
        case "retrieval":
            found = _retrieval(pictures, items, images_ND, texts, name=name)
        case "choice":
            found = _choice(items, images_ND, texts)
        case "associations":
            found = _associations(items, images_ND, texts)
    main = None if task.main_metric is None else found.metrics[task.main_metric]
    found.metrics["main_metric"] = main
    return found


def classes_of(task: Task, pictures: PictureSet, *, labels: int, name: str) -> Classes:
    """The classes of a set: its own files go before ours, ours before what its folders or table call them.

    Raises:
        SetError: nobody knows them, or they are fewer than the labels.
    """
    names = pictures.class_names or class_names(task) or pictures.folder_names
    if names is None:
        raise SetError(f"{name}: nobody knows what its classes are called: put {_MIRROR} into its folder")
    if labels > len(names):
        raise SetError(f"{name}: labels go up to {labels - 1} and there are {len(names)} class names")
    return Classes(names=names, templates=pictures.templates or templates(task))


def _classification(
    task: Task,
    pictures: PictureSet,
    items: Sequence[Item],
    images_ND: NDArray[np.float32],
    texts: TextRows,
    *,
    logit_scale: float,
    name: str,
) -> Scored:
    label = np.array([item.label for item in items], dtype=np.int64)
    classes = classes_of(task, pictures, labels=int(label.max()) + 1, name=name)
    found = predict(images_ND, texts.classes(classes.names, classes.templates), logit_scale=logit_scale)
    right = hits(found.top, label)
    metrics: dict[str, float | None] = {
        "acc1": mean(right),
        "acc5": mean(hits(found.top, label, k=5)) if len(classes.names) >= _LEAST_CLASSES else None,
        "mean_per_class_recall": mean_per_class_recall(label, found.top[:, 0]),
    }
    queries: dict[str, NDArray[Any]] = {
        "label": label.astype(np.int32),
        "top": found.top.astype(np.int32),
    }
    if task.groups is not None:
        metadata = _metadata(items, fields=len(task.groups.fields), name=name)
        metrics |= _grouped(task.groups, found.top, label, metadata)
        if task.groups.by:
            column = task.groups.fields.index(task.groups.by[-1])
            queries["group"] = metadata[:, column].astype(np.int32)
    return Scored(
        metrics=metrics,
        queries=queries,
        classes=classes,
        confidence=found.confidence,
        calibration_error=calibration_error(found.confidence, right),
    )


def _grouped(
    groups: Groups, top_NK: NDArray[np.int64], label_N: NDArray[np.int64], metadata_NF: NDArray[np.int64]
) -> dict[str, float | None]:
    """WILDS' metrics: accuracy by group, or macro-averaged recall and F1 where there is no group to report."""
    right = hits(top_NK, label_N, k=groups.top)
    if not groups.by:
        return {
            "acc_avg": mean(right),
            "recall-macro_all": mean_per_class_recall(label_N, top_NK[:, 0]),
            "F1-macro_all": macro_f1(label_N, top_NK[:, 0]),
        }
    metrics: dict[str, float | None] = {}
    for field in groups.by:
        group = metadata_NF[:, groups.fields.index(field)]
        names = [f"{field}:{i}" for i in range(int(group.max()) + 1)]
        metrics |= by_group(groups.metric, right, group, names, worst=groups.worst[field])
    return metrics


def _faces(
    pictures: PictureSet,
    items: Sequence[Item],
    images_ND: NDArray[np.float32],
    texts: TextRows,
    *,
    name: str,
) -> Scored:
    if pictures.class_names is None or pictures.templates is None:
        raise SetError(f"{name}: it needs {_MIRROR} in its folder: fetch it again")
    names = questions(pictures.class_names, what=f"{name}, classnames.txt")
    prompts = questions(pictures.templates, what=f"{name}, zeroshot_classification_templates.txt")
    answers = {
        question: predict(images_ND, texts.classes(names[question], prompts[question])).top[:, 0]
        for question in names
    }
    metadata = _metadata(items, fields=4, name=name)
    return Scored(metrics={**face_metrics(answers, metadata)}, queries={})


def _retrieval(
    pictures: PictureSet,
    items: Sequence[Item],
    images_ND: NDArray[np.float32],
    texts: TextRows,
    *,
    name: str,
) -> Scored:
    captions: list[str] = []
    relevant: list[tuple[int, ...]] = []
    known: dict[str, int] = {}
    for item in items:
        rows = []
        for caption in item.captions:
            row = known.get(caption, len(captions)) if pictures.shared_captions else len(captions)
            if row == len(captions):
                captions.append(caption)
                known[caption] = row
            rows.append(row)
        relevant.append(tuple(rows))
    ties = "lose" if pictures.shared_captions else "first"
    found = retrieval(images_ND, texts.captions(captions), relevant, name=name, ties=ties)
    metrics: dict[str, float | None] = {}
    for k in RECALL_AT:
        metrics[f"image_retrieval_recall@{k}"] = found.recall("text_to_image", k)
        metrics[f"text_retrieval_recall@{k}"] = found.recall("image_to_text", k)
    metrics["mean_recall@1"] = found.mean_recall(1)
    image_group, text_group = relevance_groups(relevant, num_texts=len(captions))
    return Scored(
        metrics=metrics,
        queries={
            "image_to_text": found.image_to_text.beaten.astype(np.int32),
            "text_to_image": found.text_to_image.beaten.astype(np.int32),
            "image_group": image_group.astype(np.int32),
            "text_group": text_group.astype(np.int32),
        },
    )


def _choice(items: Sequence[Item], images_ND: NDArray[np.float32], texts: TextRows) -> Scored:
    """SugarCrepe: the right caption has to be nearer than the wrong one; one picture is always the nearest."""
    right_ND, wrong_ND = (texts.captions([item.captions[i] for item in items]) for i in (0, 1))
    right = (images_ND * right_ND).sum(axis=1) > (images_ND * wrong_ND).sum(axis=1)
    accuracy = float(right.mean())
    return Scored(metrics={"image_acc": 1.0, "text_acc": accuracy, "acc": accuracy}, queries={"right": right})


def _associations(items: Sequence[Item], images_ND: NDArray[np.float32], texts: TextRows) -> Scored:
    """WinoGAViL (arXiv 2207.12576): Jaccard index of the pictures nearest to the cue, as many as belong to it."""
    number, right = np.array([item.metadata for item in items], dtype=np.int64).T
    _, first, instance = np.unique(number, return_index=True, return_inverse=True)
    cues = [_cue(items[row].captions[0]) for row in first]
    cosine = (images_ND * texts.captions(cues)[instance]).sum(axis=1)
    jaccard, candidates = np.empty(len(cues)), np.bincount(instance)
    for i in range(len(cues)):
        belongs, near = right[instance == i].astype(bool), cosine[instance == i]
        chosen = np.zeros(len(near), dtype=bool)
        chosen[np.argsort(near, kind="stable")[len(near) - belongs.sum() :]] = True
        either = (belongs | chosen).sum()
        jaccard[i] = (belongs & chosen).sum() / either if either else 0.0
    metrics: dict[str, float | None] = {"avg_jaccard_score": float(jaccard.mean())}
    for count in (5, 6, 10, 12):
        metrics[f"jaccard_score_{count}"] = mean(jaccard[candidates == count])
    metrics["jaccard_score_5-6"] = mean(jaccard[candidates <= 6])
    metrics["jaccard_score_10-12"] = mean(jaccard[candidates >= 10])
    return Scored(metrics=metrics, queries={"jaccard": jaccard, "candidates": candidates.astype(np.int32)})


def _cue(text: str) -> str:
    """A cue as WinoGAViL's authors prompt with it."""
    text = text.lower()
    return f"{'An' if text[:1] in 'aeiou' else 'A'} {text}"


def _metadata(items: Sequence[Item], *, fields: int, name: str) -> NDArray[np.int64]:
    lacking = next((item for item in items if len(item.metadata) < fields), None)
    if lacking is not None:
        raise SetError(
            f"{name}: {lacking.source} has {len(lacking.metadata)} of {fields} numbers of metadata (.npy): "
            "its groups cannot be told: fetch the set again"
        )
    return np.array([item.metadata[:fields] for item in items], dtype=np.int64)
