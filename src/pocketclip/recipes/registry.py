"""Recipes by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from pocketclip.recipes import ablation, captioner, dfn, emoji, mobileclip, mobileclip2
from pocketclip.recipes.debug import debug
from pocketclip.train import TrainConfig

_MADE: Mapping[str, Callable[[], TrainConfig]] = {
    "emoji.teacher_conv": emoji.teacher_conv,
    "emoji.teacher_vit": emoji.teacher_vit,
    "emoji.student_plain": emoji.student_plain,
    "emoji.student_reinforced": emoji.student_reinforced,
    "ablation.plain": ablation.plain,
    "ablation.reinforced": ablation.reinforced,
    "ablation.lambda_half": ablation.lambda_half,
    "ablation.lambda_one": ablation.lambda_one,
    "ablation.synthetic": ablation.synthetic,
    "ablation.both": ablation.both,
    "dfn.b": dfn.b,
    "dfn.b_finetune": dfn.b_finetune,
    "dfn.emoji_pretrain": dfn.emoji_pretrain,
    "dfn.emoji": dfn.emoji,
    "captioner.pretrain": captioner.pretrain,
    "captioner.finetune": captioner.finetune,
    "captioner.finetune_255": captioner.finetune_255,
    "captioner.emoji_pretrain": captioner.emoji_pretrain,
    "captioner.emoji_finetune": captioner.emoji_finetune,
    "mobileclip2.s0": mobileclip2.s0,
    "mobileclip2.s2": mobileclip2.s2,
    "mobileclip2.b": mobileclip2.b,
    "mobileclip2.s3": mobileclip2.s3,
    "mobileclip2.s4": mobileclip2.s4,
    "mobileclip2.l_14": mobileclip2.l_14,
    "mobileclip2.ablation_dfndr": mobileclip2.ablation_dfndr,
    "mobileclip2.ablation_datacompdr": mobileclip2.ablation_datacompdr,
    "mobileclip2.ablation_plain": mobileclip2.ablation_plain,
    "mobileclip.s0": mobileclip.s0,
    "mobileclip.s1": mobileclip.s1,
    "mobileclip.s2": mobileclip.s2,
    "mobileclip.b": mobileclip.b,
}


def _twin(name: str, make: Callable[[], TrainConfig]) -> Callable[[], TrainConfig]:
    def twin() -> TrainConfig:
        return debug(make())

    twin.__doc__ = f"Debug twin of {name}: a few small steps."
    return twin


RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    **_MADE,
    **{name.replace(".", ".debug_"): _twin(name, make) for name, make in _MADE.items()},
}


def recipe(name: str) -> TrainConfig:
    """The resolved recipe of that name; `recipes.NAME`, where it is defined, is the same one.

    Raises:
        ValueError: unknown name; the message lists close ones.
    """
    name = name.removeprefix("recipes.")
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown recipe {name!r}: {guess}`pocketclip train --list` lists all")
    return RECIPES[name]()
