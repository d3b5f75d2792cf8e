"""Class names and prompt templates of the public sets, as clip_benchmark has them, and where the others' come from.

`prompts.json` is made by `tests/evaluate/make_prompts.py` and compared with clip_benchmark by a test. A folder of the
public mirror brings its own `classnames.txt` and `zeroshot_classification_templates.txt`, which go before these. Sets
that are in neither call their classes as their folders or their table does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pocketclip.evaluate.tasks import Task

_FALLBACK = "imagenet1k"
# In the order of their labels, as the sets' own publications number them.
_NUMBERED: Mapping[str, tuple[str, ...]] = {
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    "stl10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    "renderedsst2": ("negative", "positive"),
}


@cache
def shipped() -> Mapping[str, Any]:
    """What `prompts.json` holds."""
    text = (files("pocketclip.evaluate") / "prompts.json").read_text(encoding="utf-8")
    return json.loads(text)


def class_names(task: Task) -> tuple[str, ...] | None:
    """The names of a set's classes by label; None where they come with the set only."""
    subset = shipped()["imagenet_subsets"].get(task.names)
    if subset is not None:
        names = shipped()["class_names"]["imagenet1k"]
        return tuple(names[row] for row in subset)
    if task.names is not None:
        return tuple(shipped()["class_names"][task.names])
    return _NUMBERED.get(task.short)


def templates(task: Task) -> tuple[str, ...]:
    """A set's prompts, `{c}` for the class; ImageNet's 80 where it has none of its own, as in clip_benchmark."""
    table = shipped()["templates"]
    return tuple(table.get(task.templates, table[_FALLBACK]))


def wordnet_ids(task: Task) -> tuple[str, ...]:
    """The folders' names of ImageNet and its shifted sets, by label; empty for other sets."""
    ids = shipped()["wordnet_ids"]
    subset = shipped()["imagenet_subsets"].get(task.names)
    if subset is not None:
        return tuple(ids[row] for row in subset)
    return tuple(ids) if task.names == _FALLBACK else ()


def filled(templates: Sequence[str], name: str) -> list[str]:
    """The prompts for one class."""
    return [template.replace("{c}", name) for template in templates]
