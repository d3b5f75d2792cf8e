"""Every recipe by name: what it resolves to is written down, so that no run changes unnoticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pocketclip.checkpoint import create, structure, unstructure, variant_config
from pocketclip.recipes.emoji import reinforcement
from pocketclip.recipes.registry import RECIPES, recipe
from pocketclip.train import TrainConfig

Golden = Callable[[str, str], None]


def dump(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, default=str) + "\n"


@pytest.mark.parametrize("name", RECIPES)
def test_resolves_to_what_is_written_down(name: str, golden: Golden) -> None:
    config = recipe(name)
    model = variant_config(config.variant)
    resolved = {
        "run": unstructure(config),
        "model": unstructure(model.model),
        "preprocess": unstructure(model.preprocess),
        "tokenizer": unstructure(model.tokenizer),
    }
    golden(f"recipes/{name}.json", dump(resolved))


def test_the_emoji_reinforcement_is_written_down(golden: Golden) -> None:
    config = reinforcement({"conv": Path("conv.safetensors"), "vit": Path("vit.safetensors")})
    golden("recipes/emoji.reinforcement.json", dump(unstructure(config)))


@pytest.mark.parametrize("name", RECIPES)
def test_is_complete_and_knows_its_name(name: str) -> None:
    config = recipe(name)
    assert config.name == name
    assert structure(json.loads(json.dumps(unstructure(config))), TrainConfig) == config
    assert config.stream.image_px == variant_config(config.variant).preprocess.size
    assert create(config.variant).config.preprocess.size == config.stream.image_px


@pytest.mark.parametrize("name", [name for name in RECIPES if "debug_" not in name])
def test_has_a_debug_twin_that_differs_in_size_only(name: str) -> None:
    config, twin = recipe(name), recipe(name.replace(".", ".debug_"))
    assert twin.loop.num_steps <= 10
    assert twin.stream.batch_size <= 16
    assert (twin.variant, twin.objective, twin.seed) == (config.variant, config.objective, config.seed)
    assert (twin.stream.replay, twin.stream.augment) == (config.stream.replay, config.stream.augment)


def test_the_students_differ_in_reinforcement_only() -> None:
    plain, reinforced = recipe("emoji.student_plain"), recipe("emoji.student_reinforced")
    assert plain.loop == reinforced.loop  # equal steps
    assert plain.optim == reinforced.optim
    assert plain.variant == reinforced.variant
    assert plain.seed == reinforced.seed
    assert plain.stream.batch_size == reinforced.stream.batch_size
    assert not plain.stream.replay
    assert reinforced.stream.replay
    assert plain.objective.distill_weight == 0 < reinforced.objective.distill_weight


def test_an_unknown_name_gets_the_close_ones() -> None:
    with pytest.raises(ValueError, match="did you mean emoji.student_plain"):
        recipe("emoji.student_plian")
    with pytest.raises(ValueError, match="unknown recipe 'x': `pocketclip train --list`"):
        recipe("x")
