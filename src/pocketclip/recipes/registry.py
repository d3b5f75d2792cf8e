"""Recipes by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from pocketclip.recipes import emoji
from pocketclip.train import TrainConfig

_EMOJI: Mapping[str, Callable[[], TrainConfig]] = {
    "teacher_conv": emoji.teacher_conv,
    "teacher_vit": emoji.teacher_vit,
    "student_plain": emoji.student_plain,
    "student_reinforced": emoji.student_reinforced,
}


def _twin(name: str, make: Callable[[], TrainConfig]) -> Callable[[], TrainConfig]:
    def debug() -> TrainConfig:
        return emoji.debug(make())

    debug.__doc__ = f"Debug twin of emoji.{name}: a few small steps."
    return debug


RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    **{f"emoji.{name}": make for name, make in _EMOJI.items()},
    **{f"emoji.debug_{name}": _twin(name, make) for name, make in _EMOJI.items()},
}


def recipe(name: str) -> TrainConfig:
    """The resolved recipe of that name.

    Raises:
        ValueError: unknown name; the message lists close ones.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown recipe {name!r}: {guess}`pocketclip train --list` lists all")
    return RECIPES[name]()
