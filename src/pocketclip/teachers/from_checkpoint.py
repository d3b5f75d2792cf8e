"""Checkpoints of pocketclip as teachers, folded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pocketclip.checkpoint import Loaded, load
from pocketclip.teachers.teacher import SOURCES, TeacherSpec
from pocketclip.teachers.towers import Towers


def checkpoint_towers(spec: TeacherSpec) -> Towers:
    """The towers of a checkpoint, folded: equal embeddings, faster.

    Raises:
        FileNotFoundError: no such file or folder; the name of a variant, whose weights would be random, is none either.
        ValueError: the checkpoint cannot be used.
    """
    path = Path(spec.source)
    if not path.exists():
        raise FileNotFoundError(f"teacher {spec.name}: {path} does not exist: give {SOURCES}")
    return loaded_towers(load(path))


def loaded_towers(loaded: Loaded) -> Towers:
    """The towers of a loaded checkpoint, folded."""
    model = loaded.folded().model

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, ...]:
        return (torch.from_numpy(loaded.tokenizer(texts)),)

    return Towers(
        image=model.image.to(memory_format=torch.channels_last),
        text=model.text,
        tokenize=tokenize,
        preprocess=loaded.config.preprocess,
        logit_scale=float(model.logit_scale.exp()),
        digest=loaded.digest,
        facts={"library": "pocketclip", "context_length": loaded.config.tokenizer.context_length},
    )
