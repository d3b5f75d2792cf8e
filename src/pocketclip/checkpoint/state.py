"""A training state on disk: a tree of tensors and plain values in one safetensors file; nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from pocketclip.checkpoint.layout import write_safetensors
from pocketclip.data.publish import publish_file

FORMAT = "pocketclip-state"
VERSION = "1"


def save_state(path: Path, state: Mapping[str, object]) -> None:
    """Keeps a training state, whole or not at all.

    Args:
        path: of the file.
        state: a tree of dicts (of str or int keys), lists, tuples, tensors, numbers, strings and None.

    Raises:
        PublishError: disk full, or the place cannot be written; an earlier state of that name stands.
    """
    tensors: dict[str, Tensor] = {}
    tree = _describe(dict(state), place="state", tensors=tensors)
    metadata = {"format": FORMAT, "version": VERSION, "tree": json.dumps(tree, separators=(",", ":"))}
    with publish_file(path) as file:
        write_safetensors(file, tensors, metadata=metadata)


def load_state(path: Path) -> dict[str, Any]:
    """Reads what `save_state` kept, bit for bit; tensors are on the CPU and contiguous.

    Raises:
        ValueError: the file is cut, damaged, of another version or something else.
    """
    remedy = "delete it to start this run from its beginning"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole training state ({error}): {remedy}") from None
    found = (metadata.get("format"), metadata.get("version"))
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path} is {found[0]!r} version {found[1]!r}, this release reads {FORMAT!r} version {VERSION}: {remedy}"
        )
    try:
        state = _rebuild(json.loads(metadata["tree"]), tensors=tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): {remedy}") from None
    return state


def _describe(tree: object, *, place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """`tree` as JSON values; its tensors go into `tensors` under the names of their places."""

    def below(key: str | int, value: object) -> dict[str, Any]:
        return _describe(value, place=f"{place}/{key}", tensors=tensors)

    match tree:
        case Tensor():
            assert place not in tensors, place
            tensors[place] = tree.detach().cpu().contiguous()
            return {"tensor": place}
        case dict():
            assert all(type(key) in (str, int) for key in tree), place
            return {"dict": [[key, below(key, value)] for key, value in tree.items()]}
        case list():
            return {"list": [below(number, value) for number, value in enumerate(tree)]}
        case tuple():
            return {"tuple": [below(number, value) for number, value in enumerate(tree)]}
        case None | bool() | int() | float() | str():
            return {"value": tree}
    raise TypeError(
        f"a training state holds tensors and plain values, not {type(tree).__name__} (at {place})"
    )


def _rebuild(described: dict[str, Any], *, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    ((kind, value),) = described.items()
    match kind:
        case "tensor":
            return tensors[value]
        case "dict":
            return {key: _rebuild(part, tensors=tensors) for key, part in value}
        case "list":
            return [_rebuild(part, tensors=tensors) for part in value]
        case "tuple":
            return tuple(_rebuild(part, tensors=tensors) for part in value)
        case "value":
            return value
    raise ValueError(f"unknown kind {kind!r}")
