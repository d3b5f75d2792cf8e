"""Every recipe by name: what it resolves to is written down, so that no run changes unnoticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pocketclip.checkpoint import structure, unstructure, variant_config
from pocketclip.models import ViTConfig
from pocketclip.recipes import mobileclip, mobileclip2
from pocketclip.recipes.emoji import reinforcement
from pocketclip.recipes.registry import RECIPES, recipe
from pocketclip.train import TrainConfig, train

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


def test_the_published_reinforcements_are_written_down(golden: Golden) -> None:
    golden("recipes/mobileclip2.dfndr.json", dump(unstructure(mobileclip2.dfndr())))
    golden("recipes/mobileclip.datacompdr.json", dump(unstructure(mobileclip.datacompdr())))


@pytest.mark.parametrize("name", RECIPES)
def test_is_complete_and_knows_its_name(name: str) -> None:
    config = recipe(name)
    assert config.name == name
    assert structure(json.loads(json.dumps(unstructure(config))), TrainConfig) == config
    assert config.stream.image_px is None  # the variant knows


@pytest.mark.parametrize("name", [name for name in RECIPES if "debug_" not in name])
def test_has_a_debug_twin_that_differs_in_size_only(name: str) -> None:
    config, twin = recipe(name), recipe(name.replace(".", ".debug_"))
    assert twin.loop.num_steps <= 10
    assert twin.samples_per_step() <= 16
    assert twin.device == "cpu"
    assert (twin.objective, twin.seed, twin.freeze) == (config.objective, config.seed, config.freeze)
    assert (twin.stream.replay, twin.stream.augment) == (config.stream.replay, config.stream.augment)
    assert twin.loop.average_decay == config.loop.average_decay
    towers = variant_config(config.variant).model, variant_config(twin.variant).model
    assert isinstance(towers[0].image, ViTConfig) == isinstance(towers[1].image, ViTConfig)


@pytest.mark.parametrize("form", ["s0", "b", "ablation_plain"])
def test_a_twin_of_a_large_run_trains(form: str, shapes: Path, reinforced: Path, tmp_path: Path) -> None:
    twin = recipe(f"mobileclip2.debug_{form}")
    data = shapes if form == "ablation_plain" else reinforced
    assert train(twin, data=data, out=tmp_path).is_file()


# (variant, samples a step, steps, warm-up, peak and lowest learning rate): Table 16 of arXiv 2508.20691.
TABLE_16 = {
    "s0": ("mobileclip2_s0", 65_536, 200_000, 10_000, 1e-3, 1e-6),
    "s2": ("mobileclip2_s2", 65_536, 200_000, 10_000, 1e-3, 1e-6),
    "b": ("mobileclip2_b", 65_536, 200_000, 2_000, 1e-3, 1e-6),
    "s3": ("mobileclip2_s3", 114_688, 200_000, 2_000, 1e-3, 0.0),
    "s4": ("mobileclip2_s4", 114_688, 200_000, 2_000, 1e-3, 0.0),
}


@pytest.mark.parametrize("name", TABLE_16)
def test_the_rows_of_table_16(name: str) -> None:
    run = recipe(f"mobileclip2.{name}")
    optim = run.optim
    schedule = (run.loop.num_steps, optim.warmup_steps, optim.lr_peak, optim.lr_floor)
    assert (run.variant, run.global_batch, *schedule) == TABLE_16[name]
    assert (optim.betas, optim.weight_decay, optim.clip_norm) == ((0.9, 0.95), 0.2, 1.0)
    assert (run.objective.distill_weight, run.loop.precision) == (1.0, "bf16")
    assert run.objective.caption_weight == run.objective.synthetic_weight == 1.0
    for num_processes in (8, 128):
        assert run.shared_out(num_processes).stream.batch_size * num_processes == run.global_batch


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


def test_a_recipe_is_found_by_where_it_is_defined_too() -> None:
    assert recipe("recipes.mobileclip2.debug_s0") == recipe("mobileclip2.debug_s0")


def test_an_unknown_name_gets_the_close_ones() -> None:
    with pytest.raises(ValueError, match="did you mean emoji.student_plain"):
        recipe("emoji.student_plian")
    with pytest.raises(ValueError, match="unknown recipe 'x': `pocketclip train --list`"):
        recipe("x")


@pytest.mark.parametrize("form", ["pretrain", "finetune_255"])
def test_a_twin_of_a_large_captioner_trains(form: str, shapes: Path, tmp_path: Path) -> None:
    assert train(recipe(f"captioner.debug_{form}"), data=shapes, out=tmp_path).is_file()


def test_a_captioners_weights_are_those_of_coca() -> None:
    for name in ("pretrain", "finetune", "finetune_255"):
        run = recipe(f"captioner.{name}")
        assert (run.objective.contrastive_weight, run.objective.captioning_weight) == (1.0, 2.0)
    pretrain, finetune = recipe("captioner.pretrain"), recipe("captioner.finetune")
    assert pretrain.loop.num_steps * pretrain.samples_per_step() == pytest.approx(13e9, rel=0.01)
    assert finetune.loop.num_steps * finetune.samples_per_step() == pytest.approx(12e6, rel=0.01)
    assert recipe("captioner.finetune_255").context_length == 255
