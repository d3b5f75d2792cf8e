"""Costs: arithmetic of the towers, times samples, times passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from pocketclip.models import variant
from pocketclip.models.count import describe_towers
from pocketclip.recipes.cost import GPU_FLOP_PER_S, run_cost
from pocketclip.recipes.registry import recipe


def test_a_step_is_the_towers_arithmetic_three_times_with_every_kind_of_caption() -> None:
    run = recipe("emoji.student_plain")
    row = variant("pocketclip_tiny")
    towers = describe_towers(row.model, image_px=row.image_px)
    image, text = towers.image.train.macs, towers.text.train.macs
    cost = run_cost(run)
    assert cost.num_samples == 200 * 128
    assert cost.flop == 2 * 3 * cost.num_samples * (image + text)
    both = replace(
        run,
        stream=replace(run.stream, synthetic="."),
        objective=replace(run.objective, synthetic_weight=1.0),
        gradient_checkpointing=True,
    )
    assert run_cost(both).flop == 2 * 4 * cost.num_samples * (image + 2 * text)


def test_larger_pictures_and_texts_cost_more() -> None:
    run = recipe("emoji.teacher_vit")
    larger = run_cost(replace(run, stream=replace(run.stream, image_px=96))).flop
    longer = run_cost(replace(run, context_length=52)).flop
    assert min(larger, longer) > run_cost(run).flop


def test_a_global_batch_counts_whatever_a_process_holds() -> None:
    cost = run_cost(recipe("mobileclip2.b"))
    assert cost.num_samples == 200_000 * 65_536
    assert cost.device == "cuda"
    assert cost.hours == pytest.approx(cost.flop / GPU_FLOP_PER_S / 3600)


def test_a_checkpoint_of_unknown_size_has_no_estimate() -> None:
    run = replace(recipe("emoji.student_plain"), variant=None, start="a.safetensors")
    with pytest.raises(ValueError, match="names no variant"):
        run_cost(run)
